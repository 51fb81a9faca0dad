//! Rate, errors and duration of every gRPC method. The methods are those of the contracts, so a caller cannot make up new ones.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Meter},
};
use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::SECONDS;

/// gRPC's codes by number, as they are written in labels.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// CANCELLED: what a call counts as whose caller went away.
pub(crate) const CANCELLED: usize = 1;
/// UNKNOWN: what a call counts as whose answer has no status.
pub(crate) const UNKNOWN: usize = 2;
/// The label of what is called and is no method of the contracts.
const OTHER: &str = "other";

/// Counts calls of all methods.
#[derive(Clone)]
pub(crate) struct Grpc(Arc<Inner>);

struct Inner {
    calls: Counter<u64>,
    /// By path: `/playhouse.order.v1.Orders/PlaceOrder`.
    methods: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
}

/// A method's instruments.
pub(crate) struct Method {
    name: String,
    /// Bound when a code is first seen: most methods never see most of them.
    codes: [OnceLock<BoundCounter<u64>>; CODES.len()],
    /// None for streams, which take as long as somebody listens.
    duration: Option<BoundHistogram<f64>>,
    in_flight: AtomicI64,
}

impl Grpc {
    pub(super) fn new(meter: &Meter) -> Self {
        let calls = meter
            .u64_counter("playhouse.grpc.server.calls")
            .with_description("gRPC calls that have ended, by method and code.")
            .build();
        let durations = meter
            .f64_histogram("playhouse.grpc.server.call.duration")
            .with_unit("s")
            .with_description("How long unary gRPC calls took, by method.")
            .with_boundaries(SECONDS.to_vec())
            .build();
        let method = |name: String, is_unary: bool| {
            let attributes = [KeyValue::new("method", name.clone())];
            Arc::new(Method {
                duration: is_unary.then(|| durations.bind(&attributes)),
                name,
                codes: std::array::from_fn(|_| OnceLock::new()),
                in_flight: AtomicI64::new(0),
            })
        };
        let methods = methods()
            .map(|(path, name, is_unary)| (path, method(name, is_unary)))
            .collect();
        let inner = Arc::new(Inner {
            calls,
            methods,
            other: method(OTHER.to_owned(), false),
        });
        let observed = Arc::clone(&inner);
        meter
            .i64_observable_up_down_counter("playhouse.grpc.server.calls.in.flight")
            .with_description("gRPC calls and streams under way, by method.")
            .with_callback(move |observer| {
                for method in observed.methods.values().chain([&observed.other]) {
                    let count = method.in_flight.load(Ordering::Relaxed);
                    if count != 0 || method.has_ended_some() {
                        observer.observe(count, &[KeyValue::new("method", method.name.clone())]);
                    }
                }
            })
            .build();
        Self(inner)
    }

    /// A call of the method at this path begins.
    pub(crate) fn begin(&self, path: &str) -> Arc<Method> {
        let method = self.0.methods.get(path).unwrap_or(&self.0.other);
        method.in_flight.fetch_add(1, Ordering::Relaxed);
        Arc::clone(method)
    }

    /// It has ended with this code.
    pub(crate) fn end(&self, method: &Method, code: usize, took: Duration) {
        method.in_flight.fetch_sub(1, Ordering::Relaxed);
        let code = code.min(CODES.len());
        let (place, code) = CODES.get(code).map_or((UNKNOWN, CODES[UNKNOWN]), |name| (code, *name));
        let counter = method.codes[place].get_or_init(|| {
            let attributes = [
                KeyValue::new("method", method.name.clone()),
                KeyValue::new("code", code),
            ];
            self.0.calls.bind(&attributes)
        });
        counter.add(1);
        if let Some(duration) = &method.duration {
            duration.record(took.as_secs_f64());
        }
    }
}

impl Method {
    fn has_ended_some(&self) -> bool {
        self.codes.iter().any(|code| code.get().is_some())
    }
}

/// All methods of the contracts: path, name for people and whether they are unary. What nodes say to each other is counted elsewhere.
fn methods() -> impl Iterator<Item = (String, String, bool)> {
    let descriptors =
        FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the contracts were compiled by our own build");
    descriptors.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let (package, of) = (package.clone(), service.name().to_owned());
            service.method.into_iter().map(move |method| {
                let name = format!("{of}/{}", method.name());
                let is_unary = !method.client_streaming() && !method.server_streaming();
                (format!("/{package}.{name}"), name, is_unary)
            })
        })
    })
}
