//! Carries a shard's effects out while this node leads it, and repeats them until they are acknowledged.
//!
//! An effect's id is the request id on the other side, so repeating it does nothing twice. An outcome that somebody waits
//! for goes back to the entity as a command, and the record of that command acknowledges the effect; all others are
//! acknowledged together.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::FutureExt;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{mailbox::Event, replica::Replica};
use crate::{
    engine::Engine,
    entity::{Outcome, RequestId, decision::EffectRequest, envelope::Envelope},
    error::Error,
    journal::{Chain, EffectId, Origin, OutboxRow, Record},
    service::{CallError, ServiceCall},
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
    /// To be tried again.
    Later(EffectId, Duration),
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
    let mut resting: JoinSet<EffectId> = JoinSet::new();
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
                            attempts.remove(&id);
                            done.push(id);
                        }
                        Attempt::Settled(id) => drop(attempts.remove(&id)),
                        Attempt::Later(id, after) => {
                            *attempts.entry(id.clone()).or_default() += 1;
                            resting.spawn(async move {
                                sleep(after).await;
                                id
                            });
                        }
                    }
                }
                acknowledge(&replica, term, &again, done);
            }
            Some(Ok(id)) = resting.join_next() => {
                // The receiver stands right here.
                let _ = again.send(id);
            }
            next = queue.recv(), if carrying.len() < limit => {
                let Some(id) = next else { return };
                let open = replica.open_effect(&id);
                let attempt = attempts.get(&id).copied().unwrap_or_default();
                match (open, engine.upgrade()) {
                    (Some((row, origin)), Some(engine)) => {
                        let replica = Arc::clone(&replica);
                        carrying.spawn(async move {
                            let carried = carry(engine, replica, id.clone(), row, origin, attempt);
                            AssertUnwindSafe(carried).catch_unwind().await.unwrap_or_else(|_| {
                                tracing::error!(effect = %id, "carrying out an effect panicked; it is tried again");
                                Attempt::Later(id, BACKOFF_MAX)
                            })
                        });
                    }
                    _ => drop(attempts.remove(&id)),
                }
            }
        }
    }
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
    id: EffectId,
    row: Arc<OutboxRow>,
    origin: Option<Origin>,
    attempt: u32,
) -> Attempt {
    let outcome = match once(&engine, &id, &row, origin, attempt).await {
        Ok(outcome) => outcome,
        Err((after, reason)) => {
            tracing::debug!(effect = %id, attempt, reason, "an effect is repeated");
            let after = after.map_or_else(|| backoff(attempt), |after| after.min(SERVICE_DELAY_MAX));
            return Attempt::Later(id, jittered(after));
        }
    };
    let Some(token) = &row.effect.token else {
        return Attempt::Done(id);
    };
    let Some(kind) = replica.registry().get(&id.entity.kind).cloned() else {
        tracing::error!(effect = %id, "this build does not know the kind of entity that waits for the outcome");
        return Attempt::Later(id, BACKOFF_MAX);
    };
    let command = match catch_unwind(AssertUnwindSafe(|| kind.resume(token, outcome))) {
        Ok(Ok(command)) => command,
        Ok(Err(error)) => {
            tracing::error!(effect = %id, %error, "the entity does not understand the token of its own effect");
            return Attempt::Later(id, BACKOFF_MAX);
        }
        Err(_) => {
            tracing::error!(effect = %id, "the entity panicked over the outcome of its effect");
            return Attempt::Later(id, BACKOFF_MAX);
        }
    };
    let request = RequestId::new(&format!("{id}!")).expect("an effect's id is far below the limit");
    // An outcome comes back to where it was asked for: no deeper.
    let envelope = Envelope {
        chain: row.chain.clone().map(Arc::new),
        ..Envelope::new(request, row.trace)
    };
    let delivered = replica.command(&id.entity, command, envelope, Some(id.clone())).await;
    match delivered {
        Ok(_) => Attempt::Settled(id),
        Err(reason) => {
            // Carried out again, which does nothing twice, and its outcome is delivered again.
            tracing::debug!(effect = %id, ?reason, "an outcome is delivered again");
            Attempt::Later(id, jittered(backoff(attempt)))
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
) -> Result<Outcome, (Option<Duration>, String)> {
    match &row.effect.request {
        EffectRequest::Command { to, command } => {
            let chain = Chain::after(row.chain.as_ref(), &id.entity);
            if chain.depth > engine.limits().effect_depth_max {
                return Ok(Outcome::Failed(engine.end_chain(&chain, to)));
            }
            let request = RequestId::new(&id.to_string()).expect("an effect's id is far below the limit");
            let span = engine
                .spans()
                .begin("effect", &row.trace)
                .with("effect", || id.to_string());
            let trace = span.context(&row.trace);
            let envelope = Envelope {
                chain: Some(Arc::new(chain)),
                origin: origin.map(Arc::new),
                ..Envelope::new(request, trace)
            };
            match engine.ask_effect(to, command.clone(), envelope, ATTEMPT_MAX).await {
                Ok(Ok(reply)) => Ok(Outcome::Replied(reply)),
                Ok(Err(rejection)) => Ok(Outcome::Rejected(rejection)),
                Err(error @ Error::Invalid { .. }) => Ok(Outcome::Failed(error.to_string())),
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
            let mut span = engine
                .spans()
                .begin(format!("call {service}"), &row.trace)
                .with("effect", || id.to_string());
            let call = ServiceCall {
                effect_id: id.to_string(),
                attempt,
                recorded_at_ms: row.at_ms,
                request: request.clone(),
                trace: span.context(&row.trace),
            };
            match called.call(call).await {
                Ok(answer) => Ok(Outcome::Replied(answer)),
                Err(CallError::GivenUp(reason)) => {
                    span.fail(&reason);
                    Ok(Outcome::Failed(reason))
                }
                Err(CallError::Later { after, reason }) => {
                    span.fail(&reason);
                    Err((Some(after), reason))
                }
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
