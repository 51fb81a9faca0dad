//! What was recorded of an entity: its state at a point, what differs between two, its events, and the records themselves.

use std::{pin::Pin, time::Duration};

use cluster::{
    EntityKey,
    history::{Change, HistoryError, HistoryFault, HistoryReader, Moment, Point, Recorded},
};
use futures::{Stream, StreamExt as _, stream};
use proto::history::v1 as pb;
use serde_json::Value;
use tonic::{Response, Status};

use super::{
    request::{Call, Edge},
    status::Fault,
    traces::Traces,
};

/// How long a stream waits for its next page.
const PAGE_WAIT: Duration = Duration::from_secs(10);

/// The history service.
#[derive(Clone)]
pub(crate) struct History {
    edge: Edge,
}

type Pages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::history_server::History for History {
    async fn show_at(
        &self,
        request: tonic::Request<pb::ShowAtRequest>,
    ) -> Result<Response<pb::ShowAtResponse>, Status> {
        let (call, request) = self.edge.receive("History/ShowAt", request)?;
        self.edge.looked(&call, "show at", &request.key);
        call.answer(self.show(&call, &request).await)
    }

    async fn diff(&self, request: tonic::Request<pb::DiffRequest>) -> Result<Response<pb::DiffResponse>, Status> {
        let (call, request) = self.edge.receive("History/Diff", request)?;
        self.edge.looked(&call, "diff", &request.key);
        call.answer(self.difference(&call, &request).await)
    }

    type EventsStream = Pages<pb::EventsPage>;

    async fn events(&self, request: tonic::Request<pb::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let (call, request) = self.edge.receive("History/Events", request)?;
        self.edge.looked(&call, "events", &request.key);
        let begun = self.begin(&call, &request.key, 0).await;
        let (key, reader) = match begun {
            Ok(begun) => begun,
            Err(fault) => return call.answer(Err(fault)),
        };
        let version = reader.base().version;
        let (edge, range) = (self.edge.clone(), range_of(&request));
        let pages = stream::unfold((reader, version), move |(mut reader, mut version)| {
            let (edge, key) = (edge.clone(), key.clone());
            async move {
                loop {
                    let page = match reader.next().await? {
                        Ok(records) => events_of(&edge, &key, &records, &mut version, range),
                        Err(error) => Err(Fault::from(error)),
                    };
                    match page {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => return Some((Ok(pb::EventsPage { events }), (reader, version))),
                        Err(fault) => return Some((Err(fault.status(None)), (reader, version))),
                    }
                }
            }
        });
        let response: Response<Self::EventsStream> = call.answer(Ok(pages.boxed()))?;
        Ok(response)
    }

    type RecordsStream = Pages<pb::RecordsPage>;

    async fn records(
        &self,
        request: tonic::Request<pb::RecordsRequest>,
    ) -> Result<Response<Self::RecordsStream>, Status> {
        let (call, request) = self.edge.receive("History/Records", request)?;
        self.edge.looked(&call, "records", &request.key);
        let reader = match self.begin(&call, &request.key, request.after_record).await {
            Ok((_, reader)) => reader,
            Err(fault) => return call.answer(Err(fault)),
        };
        let mut head = reader.head().clone();
        if !request.with_state {
            head.state = None;
        }
        let first = pb::RecordsPage {
            base: Some(reader.base().clone().into()),
            head: Some(head.into()),
            records: Vec::new(),
        };
        let rest = stream::unfold(reader, |mut reader| async move {
            let page = match reader.next().await? {
                Ok(records) => Ok(pb::RecordsPage {
                    records: records.into_iter().map(pb::Record::from).collect(),
                    ..pb::RecordsPage::default()
                }),
                Err(error) => Err(Fault::from(error).status(None)),
            };
            Some((page, reader))
        });
        call.answer(Ok(stream::iter([Ok(first)]).chain(rest).boxed()))
    }

    async fn forget(&self, request: tonic::Request<pb::ForgetRequest>) -> Result<Response<pb::ForgetResponse>, Status> {
        let (call, request) = self.edge.receive("History/Forget", request)?;
        let forgotten = self.forget_entity(&call, &request).await;
        self.edge
            .did(&call, "forget", &request.key, forgotten.as_ref().err())
            .await;
        if forgotten.is_ok() {
            Traces::new(self.edge.clone())
                .forget_everywhere(request.key.clone())
                .await;
        }
        call.answer(forgotten)
    }

    async fn audit(&self, request: tonic::Request<pb::AuditRequest>) -> Result<Response<pb::AuditResponse>, Status> {
        let (call, request) = self.edge.receive("History/Audit", request)?;
        self.edge.looked(&call, "audit", &request.key);
        let key = match request.key.as_str() {
            "" => Ok(None),
            key => key_of(key).map(Some),
        };
        let key = match key {
            Ok(key) => key,
            Err(fault) => return call.answer(Err(fault)),
        };
        let found = self.edge.cluster.audit(key.as_ref(), &request, &call.request()).await;
        call.answer(found.map_err(Fault::from))
    }

    async fn forgotten(
        &self,
        request: tonic::Request<pb::ForgottenRequest>,
    ) -> Result<Response<pb::ForgottenResponse>, Status> {
        let (call, request) = self.edge.receive("History/Forgotten", request)?;
        let found = match key_of(&request.key) {
            Ok(key) => Ok(self.edge.cluster.remains(&key).await),
            Err(fault) => Err(fault),
        };
        call.answer(found)
    }
}

impl History {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn begin(&self, call: &Call, key: &str, after: u64) -> Result<(EntityKey, HistoryReader), Fault> {
        let key = key_of(key)?;
        let request = call.request_within(PAGE_WAIT);
        let reader = self.edge.cluster.history(&key, after, &request).await?;
        Ok((key, reader))
    }

    async fn show(&self, call: &Call, request: &pb::ShowAtRequest) -> Result<pb::ShowAtResponse, Fault> {
        let key = key_of(&request.key)?;
        let point = point_of("at", request.at)?;
        let shown = self.edge.cluster.state_at(&key, point, &call.request()).await;
        let shown = shown.map_err(|error| fault(&key, error))?;
        if shown.version == 0 {
            return Err(Fault::NotFound {
                kind: "event yet of entity",
                id: key.to_string(),
            });
        }
        Ok(pb::ShowAtResponse {
            shard: self.edge.cluster.shard_of(&key),
            kind: key.kind.to_string(),
            id: key.id.to_string(),
            moment: Some(moment(&shown)),
            state_json: shown.state.to_string(),
        })
    }

    async fn forget_entity(&self, call: &Call, request: &pb::ForgetRequest) -> Result<pb::ForgetResponse, Fault> {
        let key = key_of(&request.key)?;
        let cluster = &self.edge.cluster;
        let receipt = cluster.forget(&key, &request.reason, &call.request()).await?;
        let receipt = receipt.ok_or_else(|| Fault::NotFound {
            kind: "record of entity",
            id: key.to_string(),
        })?;
        Ok(pb::ForgetResponse { receipt: Some(receipt) })
    }

    async fn difference(&self, call: &Call, request: &pb::DiffRequest) -> Result<pb::DiffResponse, Fault> {
        let key = key_of(&request.key)?;
        let points = (point_of("before", request.before)?, point_of("after", request.after)?);
        let diff = self.edge.cluster.diff(&key, points, &call.request()).await;
        let (before, after, changes) = diff.map_err(|error| fault(&key, error))?;
        Ok(pb::DiffResponse {
            before: Some(moment(&before)),
            after: Some(moment(&after)),
            changes: changes.into_iter().map(change).collect(),
        })
    }
}

/// Events after the first version, up to and with the second.
fn range_of(request: &pb::EventsRequest) -> (u64, u64) {
    let up_to = match request.up_to_version {
        0 => u64::MAX,
        version => version,
    };
    (request.after_version, up_to)
}

fn events_of(
    edge: &Edge,
    key: &EntityKey,
    records: &[Recorded],
    version: &mut u64,
    (after, up_to): (u64, u64),
) -> Result<Vec<pb::Event>, Fault> {
    let mut events = Vec::new();
    for record in records {
        for event in &record.events {
            *version += 1;
            if *version > after && *version <= up_to {
                let (name, json) = edge.cluster.event_json(key, event)?;
                events.push(pb::Event {
                    version: *version,
                    name,
                    json: json.to_string(),
                    record: record.seq,
                    at_unix_ms: record.at_ms,
                    request_id: record.request_id.clone(),
                    asked_by: record.asked_by.clone(),
                    trace_id: if record.trace.is_some() {
                        record.trace.trace_hex()
                    } else {
                        String::new()
                    },
                });
            }
        }
    }
    Ok(events)
}

fn key_of(text: &str) -> Result<EntityKey, Fault> {
    EntityKey::parse(text).map_err(|error| Fault::invalid("key", error))
}

fn point_of(field: &'static str, point: Option<pb::Point>) -> Result<Point, Fault> {
    match point.and_then(|point| point.at) {
        Some(pb::point::At::Version(version)) => Ok(Point::Version(version)),
        Some(pb::point::At::UnixMs(ms)) => Ok(Point::Time(ms)),
        None => Err(Fault::invalid(field, "must be given: a version or a time")),
    }
}

fn fault(key: &EntityKey, fault: HistoryFault) -> Fault {
    match fault {
        HistoryFault::Engine(error) => error.into(),
        HistoryFault::History(error @ HistoryError::UnknownKind(_)) => {
            Fault::invalid("kind", format!("is unknown: {error}"))
        }
        HistoryFault::History(HistoryError::Nothing(key)) => Fault::NotFound {
            kind: "event yet of entity",
            id: key.to_string(),
        },
        HistoryFault::History(error) => Fault::Refused {
            reason: "NO_SUCH_MOMENT".into(),
            subject: key.to_string(),
            message: error.to_string(),
        },
    }
}

fn moment(moment: &Moment<Value>) -> pb::Moment {
    pb::Moment {
        version: moment.version,
        record: moment.seq,
        at_unix_ms: moment.at_ms,
    }
}

fn change(change: Change) -> pb::Change {
    pb::Change {
        path: change.path,
        before_json: change.before.map(|value| value.to_string()),
        after_json: change.after.map(|value| value.to_string()),
    }
}
