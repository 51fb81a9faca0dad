//! Records on the wire: as nodes hand them to each other, and to clients.

use proto::history::v1 as pb;

use super::{Base, Cause, Head, Recorded, RecordedEffect};
use crate::{
    entity::{EntityKey, decision::EffectRequest},
    trace::TraceContext,
};

impl From<Recorded> for pb::Record {
    fn from(record: Recorded) -> Self {
        let (mut timer, mut timer_due_unix_ms, mut outcome_of, mut is_effect) =
            (String::new(), 0, String::new(), false);
        match record.cause {
            Cause::Call => {}
            Cause::Effect => is_effect = true,
            Cause::Outcome(effect) => outcome_of = effect,
            Cause::Timer { name, due_ms } => (timer, timer_due_unix_ms) = (name, due_ms),
        }
        let rejected = record.reply.is_err();
        Self {
            record: record.seq,
            at_unix_ms: record.at_ms,
            request_id: record.request_id,
            asked_by: record.asked_by,
            traceparent: if record.trace.is_some() {
                record.trace.to_string()
            } else {
                String::new()
            },
            timer,
            timer_due_unix_ms,
            outcome_of,
            is_effect,
            command: record.command,
            reply: record.reply.unwrap_or_else(|rejection| rejection),
            rejected,
            events: record.events,
            keeps_effects: record.effects.is_some(),
            effects: record.effects.into_iter().flatten().map(pb::Effect::from).collect(),
            skipped: record.skipped,
        }
    }
}

impl From<RecordedEffect> for pb::Effect {
    fn from(effect: RecordedEffect) -> Self {
        use pb::effect::What;

        let what = match effect.request {
            EffectRequest::Command { to, command } => What::Command(pb::CommandTo {
                to: to.to_string(),
                command,
            }),
            EffectRequest::Call { service, request } => What::Call(pb::Call { service, request }),
            EffectRequest::SetTimer { name, due_ms, every_ms } => What::SetTimer(pb::SetTimer {
                name: name.to_string(),
                due_unix_ms: due_ms,
                every_ms,
            }),
            EffectRequest::CancelTimer { name } => What::CancelTimer(name.to_string()),
        };
        Self {
            what: Some(what),
            token: effect.token,
        }
    }
}

/// A record of an entity as it came over the wire; or what of it cannot be read.
pub fn recorded(entity: &EntityKey, record: pb::Record) -> Result<Recorded, String> {
    let cause = if !record.timer.is_empty() {
        Cause::Timer {
            name: record.timer,
            due_ms: record.timer_due_unix_ms,
        }
    } else if !record.outcome_of.is_empty() {
        Cause::Outcome(record.outcome_of)
    } else if record.is_effect {
        Cause::Effect
    } else {
        Cause::Call
    };
    let effects: Result<Vec<_>, String> = record.effects.into_iter().map(recorded_effect).collect();
    Ok(Recorded {
        entity: entity.clone(),
        seq: record.record,
        at_ms: record.at_unix_ms,
        request_id: record.request_id,
        asked_by: record.asked_by,
        trace: TraceContext::parse(&record.traceparent).unwrap_or_default(),
        cause,
        command: record.command,
        reply: if record.rejected {
            Err(record.reply)
        } else {
            Ok(record.reply)
        },
        events: record.events,
        effects: record.keeps_effects.then_some(effects?),
        skipped: record.skipped,
    })
}

fn recorded_effect(effect: pb::Effect) -> Result<RecordedEffect, String> {
    use pb::effect::What;

    let request = match effect.what.ok_or("an effect is empty")? {
        What::Command(pb::CommandTo { to, command }) => EffectRequest::Command {
            to: EntityKey::parse(&to).map_err(|error| format!("the target of an effect, {to:?}, {error}"))?,
            command,
        },
        What::Call(pb::Call { service, request }) => EffectRequest::Call { service, request },
        What::SetTimer(timer) => EffectRequest::SetTimer {
            name: timer.name.into(),
            due_ms: timer.due_unix_ms,
            every_ms: timer.every_ms,
        },
        What::CancelTimer(name) => EffectRequest::CancelTimer { name: name.into() },
    };
    Ok(RecordedEffect {
        request,
        token: effect.token,
    })
}

impl From<Base> for pb::Base {
    fn from(base: Base) -> Self {
        Self {
            record: base.seq,
            version: base.version,
            at_unix_ms: base.at_ms,
            state: base.state,
        }
    }
}

impl From<pb::Base> for Base {
    fn from(base: pb::Base) -> Self {
        Self {
            seq: base.record,
            version: base.version,
            at_ms: base.at_unix_ms,
            state: base.state,
        }
    }
}

impl From<Head> for pb::Head {
    fn from(head: Head) -> Self {
        Self {
            record: head.seq,
            version: head.version,
            state: head.state,
        }
    }
}

impl From<pb::Head> for Head {
    fn from(head: pb::Head) -> Self {
        Self {
            seq: head.record,
            version: head.version,
            state: head.state,
        }
    }
}
