//! One entity of any kind in a world of its own, as bytes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    entity::{
        Context, EntityKey, Outcome,
        decision::EffectRequest,
        kind::{Kind, Live, RawDecision, RawEffect},
        timer,
    },
    journal::{TimerRow, timers},
    trace::TraceContext,
};

/// One live entity with its timers.
pub(super) struct Deciding {
    key: EntityKey,
    kind: Arc<dyn Kind>,
    live: Box<dyn Live>,
    version: u64,
    pub(super) timers: BTreeMap<Arc<str>, TimerRow>,
}

/// What came of a command.
pub(super) struct Decided {
    pub(super) outcome: Outcome,
    /// Commands and calls that it wants.
    pub(super) effects: Vec<RawEffect>,
    /// Its events, or why not, for people.
    pub(super) shown: String,
}

impl Deciding {
    pub(super) fn new(key: &EntityKey, kind: &Arc<dyn Kind>) -> Self {
        Self {
            key: key.clone(),
            kind: Arc::clone(kind),
            live: kind.load(None).expect("an entity can be made from nothing"),
            version: 0,
            timers: BTreeMap::new(),
        }
    }

    pub(super) fn kind(&self) -> &dyn Kind {
        &*self.kind
    }

    pub(super) fn state(&self) -> Bytes {
        self.live.snapshot()
    }

    /// Decides a command. The state passes through its stored encoding, so that what does not survive it is found here.
    pub(super) fn decide(&mut self, command: &[u8], now_ms: u64) -> Decided {
        let context = Context {
            key: self.key.clone(),
            version: self.version,
            now_ms,
        };
        let decided = self.live.decide(command, &context);
        let RawDecision { events, reply, effects } =
            decided.unwrap_or_else(|error| panic!("{} cannot read a command: {error}", self.key));
        self.version += events.len() as u64;
        let again = self.kind.load(Some(&self.live.snapshot()));
        self.live = again.unwrap_or_else(|error| panic!("{} cannot be read back: {error}", self.key));
        let requests = effects.iter().map(|effect| &effect.request);
        if let Err(error) = timer::check(requests, &self.timers) {
            panic!("the engine would not take this decision of {}: {error}", self.key);
        }
        let shown = match &reply {
            Ok(_) => events
                .iter()
                .map(|event| self.event(event))
                .collect::<Vec<_>>()
                .join(", "),
            Err(rejection) => format!("rejected {}", self.said(Err(rejection))),
        };
        let outcome = match reply {
            Ok(reply) => Outcome::Replied(reply),
            Err(rejection) => Outcome::Rejected(rejection),
        };
        let effects = effects
            .into_iter()
            .filter(|effect| !self.changes_timer(effect))
            .collect();
        Decided {
            outcome,
            effects,
            shown,
        }
    }

    fn changes_timer(&mut self, RawEffect { request, token }: &RawEffect) -> bool {
        match timers::change_of(request, token.as_ref(), 0, TraceContext::default()) {
            Some((name, Some(row))) => drop(self.timers.insert(name, row)),
            Some((name, None)) => drop(self.timers.remove(&name)),
            None => return false,
        }
        true
    }

    /// The command that an outcome makes.
    pub(super) fn resume(&self, token: &[u8], outcome: Outcome) -> Bytes {
        let command = self.kind.resume(token, outcome);
        command.unwrap_or_else(|error| panic!("{} cannot read its own token: {error}", self.key))
    }

    /// Takes a timer out that fires now, and gives the command that it makes.
    pub(super) fn fire(&mut self, name: &str, now_ms: u64) -> Bytes {
        let (name, row) = self.timers.remove_entry(name).expect("the timer is set");
        let outcome = Outcome::Fired {
            due_ms: row.due_ms,
            missed: row.missed(now_ms),
        };
        if let Some(next) = row.after_firing(now_ms) {
            self.timers.insert(name, next);
        }
        self.resume(&row.token, outcome)
    }

    fn event(&self, event: &[u8]) -> String {
        match self.kind.event_json(event) {
            Ok((name, serde_json::Value::Null)) => name,
            Ok((name, value)) => format!("{name} {value}"),
            Err(error) => panic!("{} cannot read its own event: {error}", self.key),
        }
    }

    fn said(&self, reply: Result<&[u8], &[u8]>) -> String {
        let json = self.kind.reply_json(reply);
        json.map_or_else(|error| error.to_string(), |json| json.to_string())
    }
}

/// What is to be done, for people: `stock/tea Reserve {"quantity":3}`.
pub(super) fn describe(kind: Option<&dyn Kind>, request: &EffectRequest) -> String {
    match request {
        EffectRequest::Command { to, command } => match kind.map(|kind| kind.command_json(command)) {
            Some(Ok(serde_json::Value::String(name))) => format!("{to} {name}"),
            Some(Ok(serde_json::Value::Object(map))) if map.len() == 1 => {
                let (name, value) = map.into_iter().next().expect("the map has one entry");
                format!("{to} {name} {value}")
            }
            Some(Ok(other)) => format!("{to} {other}"),
            _ => format!("{to} {} bytes that cannot be read", command.len()),
        },
        EffectRequest::Call { service, request } => format!("{service} {}", String::from_utf8_lossy(request)),
        EffectRequest::SetTimer { name, .. } | EffectRequest::CancelTimer { name } => name.to_string(),
    }
}
