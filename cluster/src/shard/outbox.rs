//! Carries a shard's effects out while this node leads it, and repeats them until they are acknowledged.
//!
//! An effect's id is the request id on the other side, so repeating it does nothing twice. An outcome that somebody waits
//! for goes back to the entity as a command, and the record of that command acknowledges the effect; all others are
//! acknowledged together.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{effect_span::EffectSpan, mailbox::Event, replica::Replica, restart::Poison};
use crate::{
    codec,
    engine::Engine,
    entity::{Outcome, RequestId, decision::EffectRequest, envelope::Envelope},
    error::Error,
    journal::{Chain, EffectId, Origin, OutboxRow, Record, quarantine::Stage},
    metrics::CallEnd,
    schema::Part,
    service::{CallError, ServiceCall},
    supervision::{Guard, contain},
    trace::TraceContext,
};

/// First and longest time between two attempts.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest time a service may ask to be left alone.
const SERVICE_DELAY_MAX: Duration = Duration::from_mins(2);
/// How long one attempt to reach another entity may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// What became of one attempt.
enum Attempt {
    /// Done, and nobody waits for an outcome.
    Done(EffectId),
    /// Done; the record of its outcome has acknowledged it.
    Settled(EffectId),
    /// To be tried again after so long, for this reason.
    Later(EffectId, Duration, String),
}

/// What has waited without holding a place among those under way.
enum Rested {
    /// Its pause is over.
    Again(EffectId),
    /// The bulkhead of what it calls has a place for it.
    Admitted(EffectId, OwnedSemaphorePermit),
}

/// Carries out what comes through `queue` until it is aborted.
pub(crate) async fn run(
    engine: Weak<Engine>,
    replica: Arc<Replica>,
    term: u64,
    again: mpsc::UnboundedSender<EffectId>,
    mut queue: mpsc::UnboundedReceiver<EffectId>,
) {
    let mut carrying: JoinSet<Attempt> = JoinSet::new();
    // Those that wait for their next attempt hold no place: a service that is down must not keep others from starting.
    let mut resting: JoinSet<Rested> = JoinSet::new();
    let mut attempts: HashMap<EffectId, u32> = HashMap::new();
    loop {
        let Some(limit) = engine.upgrade().map(|engine| engine.limits().effects_in_flight_max) else {
            return;
        };
        tokio::select! {
            Some(attempt) = carrying.join_next() => {
                let mut done = Vec::new();
                let ended = std::iter::once(attempt).chain(std::iter::from_fn(|| carrying.try_join_next()));
                for attempt in ended.collect::<Vec<_>>() {
                    match attempt.expect("attempts are not aborted, and their panics are caught") {
                        Attempt::Done(id) => {
                            if attempts.remove(&id).is_some() {
                                replica.note_waiting(&id, None);
                            }
                            done.push(id);
                        }
                        Attempt::Settled(id) => {
                            if attempts.remove(&id).is_some() {
                                replica.note_waiting(&id, None);
                            }
                        }
                        Attempt::Later(id, after, reason) => {
                            let attempts = attempts.entry(id.clone()).or_default();
                            *attempts += 1;
                            replica.note_waiting(&id, Some((*attempts, reason)));
                            resting.spawn(async move {
                                sleep(after).await;
                                Rested::Again(id)
                            });
                        }
                    }
                }
                acknowledge(&replica, term, &again, done);
            }
            Some(Ok(rested)) = resting.join_next() => match rested {
                // The receiver stands right here.
                Rested::Again(id) => drop(again.send(id)),
                // The bulkhead is the limit of those, whatever else is under way.
                Rested::Admitted(id, place) => {
                    let attempt = attempts.get(&id).copied().unwrap_or_default();
                    match (replica.open_effect(&id), engine.upgrade()) {
                        (Some(open), Some(engine)) => {
                            let replica = Arc::clone(&replica);
                            carrying.spawn(contained(engine, replica, term, id, open, attempt, Some(place)));
                        }
                        _ => drop(attempts.remove(&id)),
                    }
                }
            },
            next = queue.recv(), if carrying.len() < limit => {
                let Some(id) = next else { return };
                let open = replica.open_effect(&id);
                let attempt = attempts.get(&id).copied().unwrap_or_default();
                match (open, engine.upgrade()) {
                    (Some((row, origin)), Some(engine)) => {
                        let guard = guard_of(&engine, &row);
                        let place = guard.as_ref().and_then(Guard::try_place);
                        if let (Some(guard), None) = (guard, &place) {
                            resting.spawn(async move {
                                let place = guard.place().await;
                                Rested::Admitted(id, place)
                            });
                        } else {
                            let replica = Arc::clone(&replica);
                            carrying.spawn(contained(engine, replica, term, id, (row, origin), attempt, place));
                        }
                    }
                    _ => drop(attempts.remove(&id)),
                }
            }
        }
    }
}

impl Replica {
    /// An open effect, and what goes with it to the entity that it is sent to.
    pub(crate) fn open_effect(&self, id: &EffectId) -> Option<(Arc<OutboxRow>, Option<Origin>)> {
        let state = self.state();
        let row = Arc::clone(state.outbox().get(id)?);
        let origin = state.origin_of(self.shard(), &row);
        Some((row, origin))
    }
}

/// Breaker and bulkhead of what an effect calls, if it calls the outside.
fn guard_of(engine: &Engine, row: &OutboxRow) -> Option<Guard> {
    match &row.effect.request {
        EffectRequest::Call { service, .. } => engine.services().get(service).map(|service| service.guard().clone()),
        EffectRequest::Command { .. } | EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => None,
    }
}

/// One attempt, which holds its place in the bulkhead until its end.
async fn contained(
    engine: Arc<Engine>,
    replica: Arc<Replica>,
    term: u64,
    id: EffectId,
    open: (Arc<OutboxRow>, Option<Origin>),
    attempt: u32,
    place: Option<OwnedSemaphorePermit>,
) -> Attempt {
    let carried = carry(engine, replica, term, id.clone(), open, attempt, place);
    AssertUnwindSafe(carried).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(effect = %id, "carrying out an effect panicked; it is tried again");
        Attempt::Later(id, BACKOFF_MAX, "carrying it out panicked".to_owned())
    })
}

/// Records that effects have been carried out which nobody waits for.
fn acknowledge(replica: &Replica, term: u64, again: &mpsc::UnboundedSender<EffectId>, effects: Vec<EffectId>) {
    if effects.is_empty() {
        return;
    }
    let again = again.clone();
    replica.mailbox().send(Event::Propose {
        group: replica.shard(),
        term,
        record: Record::Acknowledged(effects.clone()).encode(),
        on_fate: Box::new(move |fate| {
            if fate.is_err() {
                for effect in effects {
                    // The receiver ends with the leadership; its successor finds the effect in the outbox.
                    let _ = again.send(effect);
                }
            }
        }),
    });
}

/// Tries to carry out one effect, and to hand its outcome to the entity that waits for it.
async fn carry(
    engine: Arc<Engine>,
    replica: Arc<Replica>,
    term: u64,
    id: EffectId,
    (row, origin): (Arc<OutboxRow>, Option<Origin>),
    attempt: u32,
    place: Option<OwnedSemaphorePermit>,
) -> Attempt {
    // Its outcome has to wait: carrying it out again and again meanwhile would help nobody.
    if attempt > 0 && row.effect.token.is_some() && replica.is_quarantined(&id.entity) {
        let reason = "the entity that waits for the outcome is quarantined".to_owned();
        return Attempt::Later(id, jittered(BACKOFF_MAX), reason);
    }
    let span = EffectSpan::begin(engine.spans(), &id, &row, attempt);
    let once = once(&engine, &id, &row, origin, attempt, span.trace()).await;
    span.end(once.as_ref().map_err(|(_, reason)| reason.as_str()));
    // Handing the outcome to the entity needs no place any more.
    drop(place);
    let outcome = match once {
        Ok(outcome) => outcome,
        Err((after, reason)) => {
            let trace_id = row.trace.trace_hex();
            tracing::debug!(effect = %id, entity = %id.entity, trace_id, attempt, reason, "an effect is repeated");
            let after = after.map_or_else(|| backoff(attempt), |after| after.min(SERVICE_DELAY_MAX));
            return Attempt::Later(id, jittered(after), reason);
        }
    };
    let Some(token) = &row.effect.token else {
        return Attempt::Done(id);
    };
    let Some(kind) = replica.registry().get(&id.entity.kind).cloned() else {
        tracing::error!(effect = %id, "this build does not know the kind of entity that waits for the outcome");
        return Attempt::Later(id, BACKOFF_MAX, "this build does not know the kind".to_owned());
    };
    let request = RequestId::new(&format!("{id}!")).expect("an effect's id is far below the limit");
    // An outcome comes back to where it was asked for: no deeper.
    let envelope = Envelope {
        chain: row.chain.clone().map(Arc::new),
        ..Envelope::new(request, row.trace)
    };
    if replica.fleet().is_mixed()
        && let Some(reason) = replica.passes_over(&id.entity, Part::Token, token)
    {
        replica.give_to_newer(&reason);
        return Attempt::Later(id, jittered(backoff(attempt)), reason);
    }
    let resumed = contain::run(Stage::Resume, || kind.resume(token, outcome.clone()));
    let command = match resumed {
        Ok(command) => command,
        Err(fault) => {
            let poison = Poison {
                seq: replica.state().head(&id.entity).map_or(0, |head| head.seq) + 1,
                envelope,
                command: codec::encode(&outcome),
                acknowledges: Some(id.clone()),
                fires: None,
            };
            let reason = fault.reason.clone();
            let after_ms = replica.failed(&id.entity, term, fault, Some(poison));
            return Attempt::Later(id, Duration::from_millis(after_ms).max(BACKOFF_FIRST), reason);
        }
    };
    let delivered = replica.command(&id.entity, command, envelope, Some(id.clone())).await;
    match delivered {
        Ok(_) => Attempt::Settled(id),
        Err(reason) => {
            // Carried out again, which does nothing twice, and its outcome is delivered again.
            tracing::debug!(effect = %id, ?reason, "an outcome is delivered again");
            let reason = format!("its outcome was not taken: {reason:?}");
            Attempt::Later(id, jittered(backoff(attempt)), reason)
        }
    }
}

/// One attempt; or after how long to try again (none: the usual) and why.
async fn once(
    engine: &Arc<Engine>,
    id: &EffectId,
    row: &OutboxRow,
    origin: Option<Origin>,
    attempt: u32,
    trace: TraceContext,
) -> Result<Outcome, (Option<Duration>, String)> {
    match &row.effect.request {
        EffectRequest::Command { to, command } => {
            let depth_max = engine.limits().effect_depth_max;
            let chain = Chain::after(row.chain.as_ref(), &id.entity, depth_max);
            if chain.depth > depth_max {
                return Ok(Outcome::Failed(engine.end_chain(&chain, to)));
            }
            let request = RequestId::new(&id.to_string()).expect("an effect's id is far below the limit");
            let envelope = Envelope {
                chain: Some(Arc::new(chain)),
                origin: origin.map(Arc::new),
                ..Envelope::new(request, trace)
            };
            match engine.ask_effect(to, command.clone(), envelope, ATTEMPT_MAX).await {
                Ok(Ok(reply)) => Ok(Outcome::Replied(reply)),
                Ok(Err(rejection)) => Ok(Outcome::Rejected(rejection)),
                Err(error @ (Error::Invalid { .. } | Error::Skipped { .. } | Error::Forgotten { .. })) => {
                    Ok(Outcome::Failed(error.to_string()))
                }
                Err(error) => Err((None, error.to_string())),
            }
        }
        EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => {
            Ok(Outcome::Failed("a timer is not carried out".to_owned()))
        }
        EffectRequest::Call { service, request } => {
            let Some(called) = engine.services().get(service) else {
                return Err((Some(BACKOFF_MAX), format!("this node has no service {service:?}")));
            };
            let call = ServiceCall {
                effect_id: id.to_string(),
                attempt,
                recorded_at_ms: row.at_ms,
                request: request.clone(),
                trace,
            };
            let begun = Instant::now();
            let answer = called.call(call).await;
            engine.meters().tell(|meter| {
                let end = match &answer {
                    Ok(_) => CallEnd::Answered,
                    Err(CallError::Later { .. }) => CallEnd::Later,
                    Err(CallError::GivenUp(_)) => CallEnd::GivenUp,
                };
                meter.called(service, end, begun.elapsed());
            });
            match answer {
                Ok(answer) => Ok(Outcome::Replied(answer)),
                Err(CallError::GivenUp(reason)) => Ok(Outcome::Failed(reason)),
                Err(CallError::Later { after, reason }) => Err((Some(after), reason)),
            }
        }
    }
}

fn backoff(attempt: u32) -> Duration {
    (BACKOFF_FIRST * 2_u32.saturating_pow(attempt.min(16))).min(BACKOFF_MAX)
}

/// Between half and one and a half times as long, so that what failed together does not come back together.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + rand::random::<f64>())
}
