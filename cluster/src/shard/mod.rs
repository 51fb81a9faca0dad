//! A node's shards at work: the shell around the pure driver and journal.
//!
//! Reading order: [`mailbox`] (how anything reaches the driver), [`runtime`] (the thread that steps it and carries out what it
//! says), [`flusher`] (the thread that writes and syncs), [`slots`] (which shards this node holds), [`replica`] (one shard on
//! this node: state, leadership, watchers), [`reading`] (what is true now), [`behind`] (reads that any replica may answer), [`freshness`] (how new its state
//! is), [`population`] (its live entities), [`residents`] and [`sketch`] (which of them stay), [`shares`] (how shards share a
//! node's room), [`live`] (what they share else), [`supervisor`] (the parent of a shard's activations), [`restart`] (what
//! becomes of entities that fail), [`outbox`] (carries effects out), [`schedule`] and [`timers`] (fire timers),
//! [`checkpointer`] (the thread that moves tails into the state store), [`snapshot`] (how a replica that needs more than the
//! log gets it), [`timings`] (how long the parts of a commit take).

pub(crate) mod behind;
pub(crate) mod checkpointer;
mod effect_span;
pub(crate) mod flusher;
pub(crate) mod foreign;
pub(crate) mod forget;
pub(crate) mod freshness;
pub(crate) mod live;
pub(crate) mod mailbox;
mod outbox;
mod population;
pub(crate) mod reading;
pub(crate) mod replica;
mod residents;
pub(crate) mod restart;
pub(crate) mod runtime;
pub(crate) mod schedule;
pub(crate) mod shares;
mod sketch;
pub(crate) mod slots;
pub(crate) mod snapshot;
pub(crate) mod supervisor;
pub(crate) mod timers;
pub(crate) mod timings;

use std::{io::Write as _, path::Path};

use crate::{
    entity::{Entity as _, EntityKey},
    membership::Roster,
    store::{StoreError, damage},
};

/// The shard of an entity. Only its id counts, so that entities that work together and share an id (an order, its
/// checkout, its payment) share a leader. Stored: must never change.
pub(crate) fn shard_of(key: &EntityKey, shards: u32) -> u32 {
    // The roster has a shard of its own, behind those of all others.
    if *key.kind == *Roster::KIND {
        return shards;
    }
    // FNV alone leaves the low bits of short ids alike; the multiplication spreads them.
    let hash = crate::journal::keys::fnv(key.id.as_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 32) as u32) % shards
}

/// Ends the process: going on would acknowledge what is not durable or serve what is not true. The peers take over, and a
/// restart replays the log.
pub(crate) fn end_node(reason: &str) -> ! {
    tracing::error!(reason, "this node cannot go on and ends");
    tell(&format!("this node cannot go on and ends: {reason}"));
    std::process::exit(70);
}

/// A line for whoever started the process. It is lost where it cannot be written, as on a full disk that holds the process's log too.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "playhouse: {text}");
}

/// Ends the process because of what the store says. Damage is noted in the data folder: at the next start the node fetches everything from
/// its peers, instead of meeting the same again.
pub(crate) fn end_with(data: &Path, what: &str, error: &StoreError) -> ! {
    if error.is_damage() {
        damage::note(data, &error.to_string());
        end_node(&format!(
            "{what}: {error}. Start it again: it sets its data folder aside then and fetches everything from its peers"
        ));
    }
    end_node(&format!(
        "{what}: {error}; free the disk or replace it, then start the node"
    ));
}

#[cfg(test)]
mod tests {
    use std::{env, fs::File, process::Command};

    use super::*;

    /// Set for a test that runs itself once more, in a process that is to end.
    const ENDS: &str = "PLAYHOUSE_TEST_ENDS";

    #[test]
    fn a_node_ends_also_where_nobody_can_be_told() {
        if env::var_os(ENDS).is_some() {
            end_node("there is no room");
        }
        let ended = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "shard::tests::a_node_ends_also_where_nobody_can_be_told"])
            .env(ENDS, "1")
            .stderr(File::options().write(true).open("/dev/full").expect("Linux has it"))
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(70), "{ended:?}");
    }

    #[test]
    fn entities_with_one_id_share_a_shard_and_ids_spread() {
        let key = |kind: &str, id: &str| EntityKey::new(kind, id).expect("a key");
        assert_eq!(shard_of(&key("order", "42"), 16), shard_of(&key("payment", "42"), 16));
        let mut counts = [0_u32; 16];
        for n in 0..16_000 {
            counts[shard_of(&key("order", &n.to_string()), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    /// Stored data is found by it.
    #[test]
    fn golden_shards() {
        let shard = |id: &str| shard_of(&EntityKey::new("order", id).expect("a key"), 16);
        assert_eq!(["536365", "536366", "a", "85123A"].map(shard), [9, 13, 3, 0]);
    }
}
