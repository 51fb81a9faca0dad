//! Who has looked at what, and who has changed what by hand. What entities were asked is in their records; this is the rest: people's
//! reads of entities and their histories, and what they do to the cluster.
//!
//! Each node notes it in an entity of its own, `audit/node-N`, a batch at a time. Its state holds the latest [`ENTRIES_KEPT_MAX`]
//! entries, and its kind keeps few records of history, so that what is stored is bounded.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Retention;
use crate::entity::{Context, Decision, Entity, NoToken, Outcome};

/// Entries that are kept for each node.
pub const ENTRIES_KEPT_MAX: usize = 2_000;
/// What its kind keeps of its history: the state has the entries.
pub(crate) const RETENTION: Retention = Retention {
    records_max: Some(128),
    age_max_ms: None,
};

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, by the clock of the node that was asked, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked, as they said: `tenant/caller`. Empty where nobody said.
    pub asked_by: String,
    /// What, for example `show` or `forget`.
    pub action: String,
    /// Of what, for example `order/42`, `node/2`, `breaker/payment-provider`.
    pub subject: String,
    /// The call's idempotency key.
    pub request_id: String,
    /// 32 hexadecimal digits, or empty.
    pub trace_id: String,
    /// Empty, or why it was not done.
    pub failure: String,
}

/// The entity that a node notes it in.
pub(crate) struct Audit;

/// What it holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) entries: VecDeque<AuditEntry>,
    /// All that were ever noted, and those that came too fast to be noted.
    pub(crate) noted: u64,
    pub(crate) missed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    Note { entries: Vec<AuditEntry>, missed: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    Noted { entries: Vec<AuditEntry>, missed: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Rejection {}

impl Entity for Audit {
    const KIND: &'static str = "audit";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = Rejection;
    type Token = NoToken;

    fn decide(_: &State, command: Command, _: &Context) -> Result<Decision<Self>, Rejection> {
        let Command::Note { entries, missed } = command;
        Ok(Decision::reply(()).event(Event::Noted { entries, missed }))
    }

    fn evolve(state: &mut State, event: &Event) {
        let Event::Noted { entries, missed } = event;
        state.noted += entries.len() as u64;
        state.missed += missed;
        state.entries.extend(entries.iter().cloned());
        let over = state.entries.len().saturating_sub(ENTRIES_KEPT_MAX);
        state.entries.drain(..over);
    }

    fn resume(token: NoToken, _: Outcome) -> Command {
        match token {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::script::Script;

    fn entry(n: usize) -> AuditEntry {
        AuditEntry {
            at_ms: n as u64,
            asked_by: "ann".to_owned(),
            action: "show".to_owned(),
            subject: format!("order/{n}"),
            request_id: String::new(),
            trace_id: String::new(),
            failure: String::new(),
        }
    }

    #[test]
    fn the_latest_entries_are_kept_and_all_are_counted() {
        let mut state = State::default();
        for n in 0..ENTRIES_KEPT_MAX + 5 {
            let entries = vec![entry(n)];
            Audit::evolve(&mut state, &Event::Noted { entries, missed: 1 });
        }
        assert_eq!(state.entries.len(), ENTRIES_KEPT_MAX);
        assert_eq!(state.entries.front(), Some(&entry(5)));
        let all = ENTRIES_KEPT_MAX as u64 + 5;
        assert_eq!((state.noted, state.missed), (all, all));
        let note = Command::Note {
            entries: vec![entry(1)],
            missed: 0,
        };
        drop(Script::<Audit>::new("node-1").when(note).then_reply(()));
    }
}
