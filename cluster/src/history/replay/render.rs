//! How the two sides of a decision are compared and shown: as this build reads them.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{RecordedEffect, Replayer};
use crate::{codec, entity::decision::EffectRequest, schema::versioned};

impl Replayer {
    pub(super) fn is_same_answer(&self, then: &Result<Bytes, Bytes>, now: &Result<Bytes, Bytes>) -> bool {
        then == now || (then.is_ok() == now.is_ok() && self.answer_json(then) == self.answer_json(now))
    }

    pub(super) fn are_same_events(&self, then: &[Bytes], now: &[Bytes]) -> bool {
        let is_same = |(then, now): (&Bytes, &Bytes)| then == now || self.event_json(then) == self.event_json(now);
        then.len() == now.len() && then.iter().zip(now).all(is_same)
    }

    pub(super) fn are_same_effects(&self, then: &[RecordedEffect], now: &[RecordedEffect]) -> bool {
        let is_same = |(then, now): (&RecordedEffect, &RecordedEffect)| {
            then == now || self.effect_json(then) == self.effect_json(now)
        };
        then.len() == now.len() && then.iter().zip(now).all(is_same)
    }

    pub(super) fn answer_json(&self, answer: &Result<Bytes, Bytes>) -> Value {
        let (name, bytes) = match answer {
            Ok(reply) => ("reply", reply),
            Err(rejection) => ("rejection", rejection),
        };
        let read = self.kind.reply_json(answer.as_deref().map_err(|bytes| &bytes[..]));
        json!({ name: read.unwrap_or_else(|_| plain(bytes)) })
    }

    pub(super) fn event_json(&self, event: &[u8]) -> Value {
        match self.kind.event_json(event) {
            Ok((name, json)) => json!({ name: json }),
            Err(_) => plain(event),
        }
    }

    pub(super) fn command_json(&self, command: &[u8]) -> Value {
        let read = self.kind.command_json(command);
        read.unwrap_or_else(|_| plain(command))
    }

    pub(super) fn effect_json(&self, effect: &RecordedEffect) -> Value {
        let mut shown = match &effect.request {
            EffectRequest::Command { to, command } => {
                let kind = self.registry.get(&to.kind);
                let read = kind.and_then(|kind| kind.command_json(command).ok());
                json!({"to": to.to_string(), "command": read.unwrap_or_else(|| plain(command))})
            }
            EffectRequest::Call { service, request } => {
                let read: Option<Value> = serde_json::from_slice(request).ok();
                json!({"call": service, "request": read.unwrap_or_else(|| plain(request))})
            }
            EffectRequest::SetTimer { name, due_ms, every_ms } => {
                json!({"set_timer": &**name, "due_unix_ms": due_ms, "every_ms": every_ms})
            }
            EffectRequest::CancelTimer { name } => json!({"cancel_timer": &**name}),
        };
        if let Some(token) = &effect.token {
            shown["token"] = plain(token);
        }
        shown
    }
}

/// What this build has no type for, without what says its version.
fn plain(bytes: &[u8]) -> Value {
    let value = versioned::split(bytes).map_or(bytes, |(_, value)| value);
    codec::json_of(value)
}
