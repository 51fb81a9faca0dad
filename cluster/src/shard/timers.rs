//! Fires a shard's timers while this node leads it.
//!
//! The schedule follows what is applied. A firing goes to the timer's entity, which is brought back for it if it is not
//! live, and counts only if the entity still has that timer then; its record takes the timer away or moves it on. So it
//! does not matter who tries how often: whatever ends without such a record is tried again, here or by the next leader.
//!
//! The clock is the wall clock of the leader. A leader whose clock is behind fires late by that much, and one that is ahead
//! early; neither makes a timer fire twice or not at all.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    replica::{MAILBOX_QUARTERS_EFFECTS, Replica},
    restart::Watched,
    schedule::Schedule,
};
use crate::{
    admission::Limit,
    entity::{
        EntityKey,
        activation::{ActivationMessage, Delivered, FireMessage, Undelivered},
    },
    journal::{Firing, TimerKey},
    trace::TraceContext,
};

/// Firings under way at a time for one shard, so that what became due while nobody led it does not come all at once.
const FIRINGS_MAX: usize = 128;
/// How long one attempt may hold a place among them.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// The clock is looked at this often at least while a timer waits: it may have been set.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Timers that are read at once when leadership begins.
const PAGE_LEN: usize = 1_000;
/// Applied entries whose changes are taken in at once.
const CHANGES_MAX: usize = 256;

/// Timers that changed, with their next firing; none for those that are gone.
pub(crate) type Changes = Vec<(TimerKey, Option<Firing>)>;

/// Fires what is due until it is aborted. What changes comes through `queue`, from the beginning of the leadership on.
pub(crate) async fn run(replica: Arc<Replica>, mut queue: mpsc::UnboundedReceiver<Changes>) {
    let mut schedule = Schedule::default();
    let mut last = None;
    loop {
        let page = replica.state().timers().page(last.as_ref(), PAGE_LEN);
        let Some((due_ms, key, _)) = page.last() else { break };
        last = Some((*due_ms, key.clone()));
        for (_, key, firing) in page {
            schedule.changed(key, Some(firing));
        }
        tokio::task::yield_now().await;
    }
    let mut firings: JoinSet<(TimerKey, Firing)> = JoinSet::new();
    let mut changes = Vec::new();
    loop {
        let now_ms = replica.now_ms();
        for (key, firing) in schedule.due(now_ms, FIRINGS_MAX) {
            let replica = Arc::clone(&replica);
            firings.spawn(async move {
                fire(&replica, &key, &firing).await;
                (key, firing)
            });
        }
        let pause = schedule
            .next_ms(FIRINGS_MAX)
            .map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)).min(LOOK_MAX));
        tokio::select! {
            biased;
            count = queue.recv_many(&mut changes, CHANGES_MAX) => {
                if count == 0 {
                    return;
                }
                for (key, firing) in changes.drain(..).flatten() {
                    schedule.changed(key, firing);
                }
            }
            Some(ended) = firings.join_next() => {
                let (key, firing) = ended.expect("attempts are not aborted and do not panic");
                schedule.ended(&key, &firing, replica.now_ms(), jittered);
            }
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// One attempt.
async fn fire(replica: &Arc<Replica>, key: &TimerKey, firing: &Firing) {
    let Some(set_by) = replica.state().timers().get(key).map(|row| row.trace) else {
        return;
    };
    // It may be due long after what set it, and many times: a trace of its own, with a link. Whoever tries again makes the
    // same one.
    let trace = if set_by.is_some() {
        set_by.caused(&format!("{} {}", key.entity, firing.request()))
    } else {
        TraceContext::default()
    };
    let mut span = replica
        .spans()
        .begin_as(|| "timer".into(), trace, &TraceContext::default())
        .with("entity", || key.entity.to_string())
        .with("timer", || key.name.to_string())
        .with("shard", || i64::from(replica.shard()));
    span.link(set_by);
    let attempt = replica.fire(&key.entity, firing.clone(), trace);
    let delivered = match timeout(ATTEMPT_MAX, attempt).await {
        Ok(delivered) => delivered,
        // It may still take effect.
        Err(_) => Err(Undelivered::Unknown),
    };
    if delivered.is_ok() {
        let late = Duration::from_millis(replica.now_ms().saturating_sub(firing.due_ms));
        replica.meters().tell(|meter| meter.fired(late));
    }
    if let Err(reason) = delivered {
        span.fail(&format!("{reason:?}"));
        tracing::debug!(entity = %key.entity, timer = %key.name, ?reason, "a timer is fired again");
    }
}

impl Replica {
    /// Lets an entity's timer fire, if it is still to fire; resolves when that is durable.
    pub(crate) async fn fire(self: &Arc<Self>, key: &EntityKey, firing: Firing, trace: TraceContext) -> Delivered {
        if self.is_behind() {
            return Err(Undelivered::Overloaded(Limit::Tail));
        }
        let (reply, answer) = oneshot::channel();
        let message = FireMessage { firing, trace, reply };
        let pass = self.deliver(key, ActivationMessage::Fire(message), MAILBOX_QUARTERS_EFFECTS)?;
        let watched = pass.map(|pass| Watched::new(self, key, pass));
        let delivered = answer.await.unwrap_or(Err(Undelivered::Unknown));
        if let (Some(watched), Ok(_)) = (watched, &delivered) {
            watched.succeeded();
        }
        delivered
    }
}

/// Between half and one and a half times as long, so that what failed together does not come back together.
fn jittered(pause_ms: u64) -> u64 {
    pause_ms / 2 + rand::random_range(0..=pause_ms)
}
