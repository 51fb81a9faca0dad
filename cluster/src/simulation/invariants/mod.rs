//! What must hold in every run, one file each.

pub(super) mod agreement;
pub(super) mod convergence;
pub(super) mod cut;
pub(super) mod digests;
pub(super) mod effects;
pub(super) mod feed;
pub(super) mod history;
pub(super) mod leaders;
pub(super) mod linearizable;
pub(super) mod replies;
pub(super) mod timers;

/// What the checks remember.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    pub(super) agreement: agreement::Agreement,
    pub(super) digests: digests::Digests,
    pub(super) effects: effects::Effects,
    pub(super) feed: feed::Feed,
    pub(super) leaders: leaders::Leaders,
    pub(super) linearizable: linearizable::History,
    pub(super) replies: replies::Replies,
    pub(super) timers: timers::Timers,
}
