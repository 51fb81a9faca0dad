//! What one append makes durable.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Chain, Firing, Forgotten, Lift, Origin, Quarantined, Trimmed};
use crate::{
    entity::{EntityKey, RequestId, decision::EffectRequest},
    trace::TraceContext,
};

/// The first byte of an encoded record. A new layout gets a new number, and the old one stays readable.
const RECORD_V1: u8 = 1;

/// What a caller was told: the reply, or the rejection, in the entity's encoding.
pub(crate) type Reply = Result<Bytes, Bytes>;

/// One record of a shard's journal.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all records are decided ones, and none lives long"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// An entity has decided a command.
    Decided(Decided),
    /// Effects that nobody waits for have been carried out.
    Acknowledged(Vec<EffectId>),
    /// An entity is put aside for a command that it fails at, or has failed at it once more.
    Quarantined(Box<Quarantined>),
    /// The journal's mark, drawn by its first leader. Counts once: a journal keeps its first mark.
    Marked(u64),
    /// An entity is forgotten.
    Forgotten(Box<Forgotten>),
    /// The beginning of an entity's history is let go.
    Trimmed(Box<Trimmed>),
}

/// A decided command and all that follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decided {
    pub(crate) entity: EntityKey,
    /// The number of this record among those of its entity, from 1. A record whose number is not the next is refused:
    /// its author did not know all that had happened.
    pub(crate) seq: u64,
    /// The activation that decided it, and the number of the last record that this one was loaded with. Once a record of an
    /// activation is refused, so are all that it decided on top of it.
    pub(crate) activation: u64,
    pub(crate) base: u64,
    pub(crate) request: RequestId,
    /// When it was decided, by the leader's clock, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) trace: TraceContext,
    /// Kept beside its events, so that a later build can decide it again.
    pub(crate) command: Bytes,
    pub(crate) reply: Reply,
    pub(crate) events: Vec<Bytes>,
    pub(crate) effects: Vec<StoredEffect>,
    /// Effects of this entity whose outcome this command was.
    pub(crate) acknowledges: Vec<EffectId>,
    /// The firing of a timer of this entity that this command was.
    #[serde(default)]
    pub(crate) fires: Option<Firing>,
    /// It lifts the entity's quarantine.
    #[serde(default)]
    pub(crate) lift: Option<Box<Lift>>,
    /// Of what the caller sent, so that another command under the same request id is noticed; 0 where nobody said.
    #[serde(default)]
    pub(crate) fingerprint: u64,
    /// How deep the command was in a chain of effects; none for those of clients.
    #[serde(default)]
    pub(crate) chain: Option<Chain>,
    /// Where the command came from; none unless it was another entity's effect.
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
    /// Who asked, as the caller has said; none for what the cluster itself asked: effects, outcomes, timers.
    #[serde(default)]
    pub(crate) asked_by: Option<Arc<str>>,
    /// In history: `effects` is what was decided. False for rows of builds that kept no effects there.
    #[serde(default)]
    pub(crate) keeps_effects: bool,
}

impl Decided {
    /// Bytes of its command, events and effects, about.
    pub(crate) fn bytes(&self) -> usize {
        let events = self.events.iter().map(Bytes::len);
        let effects = self.effects.iter().map(|effect| match &effect.request {
            EffectRequest::Command { command, .. } => command.len(),
            EffectRequest::Call { request, .. } => request.len(),
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => 0,
        });
        self.command.len() + events.chain(effects).sum::<usize>()
    }
}

/// A recorded intention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredEffect {
    pub(crate) request: EffectRequest,
    /// Comes back with the outcome; `None` where nobody waits for one.
    pub(crate) token: Option<Bytes>,
}

/// The name of an effect: the record that caused it, and its place in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct EffectId {
    pub(crate) entity: EntityKey,
    pub(crate) seq: u64,
    pub(crate) place: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.entity, self.seq, self.place)
    }
}

impl fmt::Debug for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An effect that is not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxRow {
    pub(crate) effect: StoredEffect,
    pub(crate) at_ms: u64,
    pub(crate) trace: TraceContext,
    /// The position in the journal at which it came about; 0 where that was not kept.
    #[serde(default)]
    pub(crate) born: u64,
    /// How deep the command that caused it was in a chain of effects.
    #[serde(default)]
    pub(crate) chain: Option<Chain>,
}

impl Record {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![RECORD_V1];
        rmp_serde::encode::write(&mut out, self).expect("a record is plain data, which always has a MessagePack form");
        out.into()
    }

    /// Reads a record back; says why it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&RECORD_V1, rest)) => rmp_serde::from_slice(rest).map_err(|error| error.to_string()),
            Some((version, _)) => Err(format!("written by a newer version (record layout {version})")),
            None => Err("empty".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let entity = EntityKey::new("order", "7").expect("a key");
        Record::Decided(Decided {
            seq: 2,
            activation: 9,
            base: 1,
            request: RequestId::new("r-1").expect("a request id"),
            at_ms: 1_000,
            trace: TraceContext {
                trace_id: 5,
                span_id: 6,
                sampled: true,
            },
            command: Bytes::from_static(b"c"),
            reply: Err(Bytes::from_static(b"no")),
            events: vec![Bytes::from_static(b"e")],
            effects: vec![StoredEffect {
                request: EffectRequest::Command {
                    to: EntityKey::new("stock", "a").expect("a key"),
                    command: Bytes::from_static(b"d"),
                },
                token: Some(Bytes::from_static(b"t")),
            }],
            acknowledges: vec![EffectId {
                entity: entity.clone(),
                seq: 1,
                place: 0,
            }],
            fires: Some(Firing {
                name: "expiry".into(),
                seq: 1,
                due_ms: 900,
            }),
            lift: None,
            fingerprint: 7,
            chain: Some(Chain {
                depth: 1,
                path: vec![entity.clone()],
            }),
            origin: Some(Origin {
                shard: 2,
                born: 3,
                floor: 4,
                holes: vec![3],
            }),
            asked_by: Some("ann".into()),
            keeps_effects: false,
            entity,
        })
    }

    #[test]
    fn a_record_reads_back() {
        for record in [sample(), Record::Acknowledged(vec![]), Record::Marked(7)] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    /// What is stored must stay readable: a change here needs a new layout number.
    #[test]
    fn golden_bytes() {
        let hex: Vec<String> = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex.concat(),
            "0181a744656369646564dc001392a56f72646572a137020901a3722d31cd03e894000506c3c40163\
             81a3457272c4026e6f91c40165919281a7436f6d6d616e6492\
             92a573746f636ba161c40164c401749193\
             92a56f72646572a137010093a665787069727901cd0384c00792019192a56f72646572a137940203049103\
             a3616e6ec2"
        );
    }

    /// A record of a build that knew less: what it did not write is not there.
    #[test]
    fn an_older_record_reads_back() {
        let hex = "0181a7446563696465649c92a56f72646572a137020901a3722d31cd03e894000506c3c40163\
                   81a3457272c4026e6f91c40165919281a7436f6d6d616e6492\
                   92a573746f636ba161c40164c401749193\
                   92a56f72646572a1370100";
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hexadecimal"))
            .collect();
        let Record::Decided(old) = Record::decode(&bytes).expect("a record") else {
            panic!("it is a decided one")
        };
        assert_eq!((old.seq, old.fires), (2, None));
        assert_eq!((old.fingerprint, old.chain, old.origin), (0, None, None));
    }

    #[test]
    fn what_is_no_record_says_why() {
        assert_eq!(Record::decode(&[]), Err("empty".to_owned()));
        assert!(
            Record::decode(&[9, 1])
                .expect_err("no record")
                .contains("newer version")
        );
        assert!(Record::decode(&[RECORD_V1, 0xc1]).is_err());
    }
}
