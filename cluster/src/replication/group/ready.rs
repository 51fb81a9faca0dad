//! What the library has ready: what is to be written and sent, in which order, and what is to be applied.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, EntryType, Snapshot};

use super::{
    super::{
        Entry,
        driver::{Applied, Failure, GroupWrite, Output},
        members::Members,
        message,
    },
    Group, Held,
};

impl Group {
    pub(super) fn take_ready(&mut self, write: u64, part: &mut GroupWrite, output: &mut Output) {
        let mut ready = self.raw.ready();
        let mut must_write = ready.must_sync();
        let mut drop_generation = None;
        for message in ready.take_messages() {
            output.send.push(self.envelope(message));
        }
        if !ready.snapshot().is_empty() {
            must_write = true;
            drop_generation = Some(self.install(ready.snapshot(), part, output));
        }
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().hard_state = hard_state.clone();
            self.hard_state_dirty = true;
        }
        if !ready.entries().is_empty() {
            must_write = true;
            append(&mut part.entries, ready.entries());
            self.raw.mut_store().append(ready.entries());
        }
        if must_write && std::mem::take(&mut self.hard_state_dirty) {
            part.hard_state = Some(message::hard_state_in(&self.raw.store().hard_state));
        }
        for state in ready.take_read_states() {
            if self.catch_up.answered(&state.request_ctx, state.index) {
                continue;
            }
            if let Ok(round) = <[u8; 8]>::try_from(&state.request_ctx[..])
                && let Some(tickets) = self.rounds.remove(&u64::from_be_bytes(round))
            {
                self.confirmed.push((state.index, tickets));
            }
        }
        let committed = ready.take_committed_entries();
        let number = ready.number();
        let messages: Vec<_> = ready
            .take_persisted_messages()
            .into_iter()
            .map(|message| self.envelope(message))
            .collect();
        self.raw.advance_append_async(ready);
        // Also a readiness that wrote nothing waits while an older one of its group is on its way to the device.
        let waits_for = if must_write {
            Some(write)
        } else {
            self.held.back().map(|held| held.write)
        };
        if let Some(write) = waits_for {
            self.held.push_back(Held {
                write,
                ready: number,
                messages,
                drop_generation,
            });
        } else {
            self.raw.on_persist_ready(number);
            output.send.extend(messages);
        }
        self.apply(committed, output);
    }

    /// Begins anew behind a fetched snapshot; says which generation is now of no use.
    fn install(&mut self, snapshot: &Snapshot, part: &mut GroupWrite, output: &mut Output) -> u64 {
        let meta = snapshot.get_metadata();
        let generation = self
            .staged
            .take()
            .expect("a snapshot is taken only after its data was fetched");
        part.entries.clear();
        // A cut from before, not yet written, would move the log's beginning back below the snapshot.
        self.cut = None;
        part.cut = None;
        part.install = Some((meta.index, meta.term, generation));
        let log = self.raw.mut_store();
        log.restart_at(meta.index, meta.term);
        log.members = Members::from(meta.get_conf_state());
        self.applied = (meta.index, meta.term);
        // The library takes note only when the next entry is applied, and until then an election would make it look for
        // entries that the snapshot has replaced.
        self.raw.raft.raft_log.applied = meta.index;
        self.hard_state_dirty = true;
        output.applied.push(Applied::Install {
            group: self.id,
            generation,
        });
        std::mem::replace(&mut self.generation, generation)
    }

    fn apply(&mut self, committed: Vec<Entry>, output: &mut Output) {
        let Some(last) = committed.last().map(|entry| entry.index) else {
            return;
        };
        for entry in committed {
            self.applied = (entry.index, entry.term);
            let members = match entry.get_entry_type() {
                EntryType::EntryNormal => None,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let mut change = ConfChangeV2::default();
                    // An empty change ends the time in which two majorities count.
                    let read = change.merge_from_bytes(&entry.data);
                    let changed = read
                        .map_err(|error| error.to_string())
                        .and_then(|()| self.raw.apply_conf_change(&change).map_err(|error| error.to_string()));
                    // No leader proposes one that cannot be. Every replica passes over it alike.
                    let state = changed.unwrap_or_else(|reason| {
                        tracing::error!(
                            group = self.id,
                            reason,
                            "a change of members that cannot be is passed over"
                        );
                        self.raw.raft.prs().conf().to_conf_state()
                    });
                    // One that came to lead while it was on its way out. The library would have it lead on, and then looks
                    // for its own progress, which is gone.
                    if self.is_leader() && !self.raw.raft.promotable() {
                        let term = self.raw.raft.term;
                        self.raw.raft.become_follower(term, raft::INVALID_ID);
                    }
                    Some(Members::from(&state))
                }
            };
            let tickets = self.tickets_of(entry.index, entry.term, output);
            let data = if members.is_some() { Bytes::new() } else { entry.data };
            output.applied.push(Applied::Entry {
                group: self.id,
                index: entry.index,
                term: entry.term,
                data,
                tickets,
                members,
            });
        }
        self.raw.advance_apply_to(last);
    }

    /// Our own proposals in an applied entry. Those of an entry that another one has replaced have an unknown fate: a copy
    /// of it may still be found on a replica that was away, but it cannot be committed any more at this index.
    fn tickets_of(&mut self, index: u64, term: u64, output: &mut Output) -> Vec<u64> {
        while let Some(first) = self.in_flight.front() {
            if first.index > index {
                break;
            }
            let first = self.in_flight.pop_front().expect("the front was seen");
            if first.index == index && first.term == term {
                return first.tickets;
            }
            output
                .failed
                .extend(first.tickets.into_iter().map(|ticket| (ticket, Failure::Unknown)));
        }
        Vec::new()
    }
}

/// Appends to a batch what may replace the end of what is already in it.
fn append(batch: &mut Vec<Entry>, new: &[Entry]) {
    if let (Some(first), Some(begin)) = (new.first(), batch.first().map(|entry| entry.index)) {
        batch.truncate(first.index.saturating_sub(begin) as usize);
    }
    batch.extend_from_slice(new);
}
