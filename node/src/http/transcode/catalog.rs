//! What can be called, told from the contracts: services, methods, messages, and the comments that stand at them.

use std::collections::BTreeSet;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    ServiceDescriptor, prost_types::EnumValueDescriptorProto,
};
use serde_json::{Map, Value, json};

/// What nodes say to each other is no business of clients.
const HIDDEN_CONTRACT: &str = "cluster/v1/peer.proto";

pub(super) fn is_hidden(service: &ServiceDescriptor) -> bool {
    service.parent_file().name() == HIDDEN_CONTRACT
}

/// All of it as JSON: `services` in order, `messages` and `enums` by full name.
pub(super) fn of(contracts: &DescriptorPool) -> Value {
    let mut known = Known::default();
    let services: Vec<Value> = contracts
        .services()
        .filter(|service| !is_hidden(service))
        .map(|service| {
            let methods: Vec<Value> = service
                .methods()
                .map(|method| {
                    known.add(&method.input());
                    known.add(&method.output());
                    json!({
                        "name": method.name(),
                        "comment": comment(&method.parent_file(), method.path()),
                        "request": method.input().full_name(),
                        "answer": method.output().full_name(),
                        "streams_requests": method.is_client_streaming(),
                        "streams_answers": method.is_server_streaming(),
                        "is_read": super::is_read(&method),
                    })
                })
                .collect();
            json!({
                "name": service.full_name(),
                "comment": comment(&service.parent_file(), service.path()),
                "methods": methods,
            })
        })
        .collect();
    json!({ "services": services, "messages": known.messages, "enums": known.enums })
}

/// The messages and enums that methods need.
#[derive(Default)]
struct Known {
    seen: BTreeSet<String>,
    messages: Map<String, Value>,
    enums: Map<String, Value>,
}

impl Known {
    fn add(&mut self, message: &MessageDescriptor) {
        if !self.seen.insert(message.full_name().to_owned()) {
            return;
        }
        let fields: Vec<Value> = message.fields().map(|field| self.field(&field)).collect();
        let told = json!({ "comment": comment(&message.parent_file(), message.path()), "fields": fields });
        self.messages.insert(message.full_name().to_owned(), told);
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut told = json!({
            "name": field.json_name(),
            "type": self.kind(field),
            "comment": comment(&field.parent_message().parent_file(), field.path()),
        });
        if field.is_map() {
            told["is_map"] = true.into();
        } else if field.cardinality() == Cardinality::Repeated {
            told["is_list"] = true.into();
        }
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            told["one_of"] = oneof.name().into();
        }
        told
    }

    fn kind(&mut self, field: &FieldDescriptor) -> String {
        match field.kind() {
            Kind::Message(message) if message.is_map_entry() => self.kind(&message.map_entry_value_field()),
            Kind::Message(message) => {
                self.add(&message);
                message.full_name().to_owned()
            }
            Kind::Enum(of) => {
                self.add_enum(&of);
                of.full_name().to_owned()
            }
            plain => format!("{plain:?}").to_lowercase(),
        }
    }

    fn add_enum(&mut self, of: &EnumDescriptor) {
        if self.seen.insert(of.full_name().to_owned()) {
            let descriptor = of.enum_descriptor_proto();
            let values: Vec<&str> = descriptor.value.iter().map(EnumValueDescriptorProto::name).collect();
            self.enums.insert(of.full_name().to_owned(), json!(values));
        }
    }
}

/// What stands above it in its file.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let location = source.and_then(|source| source.location.iter().find(|location| location.path == path));
    location.map_or_else(String::new, |location| {
        let lines = location.leading_comments().lines().map(str::trim);
        lines.collect::<Vec<_>>().join(" ").trim().to_owned()
    })
}
