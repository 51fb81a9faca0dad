//! The thread that writes the log and syncs it, for all groups at once: whatever came in during one sync goes into the next.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use super::{
    end_node,
    mailbox::{Event, Mailbox},
};
use crate::{
    replication::{GroupWrite, Input, driver::Write},
    store::log::Log,
};

/// Begins the thread; it ends when the sender is dropped.
pub(crate) fn spawn(
    log: Arc<Log>,
    mailbox: Arc<Mailbox>,
    generations: HashMap<u32, u64>,
) -> std::io::Result<(mpsc::Sender<Write>, thread::JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel::<Write>();
    let join = thread::Builder::new().name("flusher".into()).spawn(move || {
        let mut flusher = Flusher { log, generations };
        while let Ok(first) = receiver.recv() {
            let writes: Vec<Write> = std::iter::once(first).chain(receiver.try_iter()).collect();
            let last = writes.last().map_or(0, |write| write.number);
            mailbox.timings().sync_begins();
            // The log's library panics when the device does not take what it was given. What is on it then is unknown.
            if catch_unwind(AssertUnwindSafe(|| flusher.flush(writes))).is_err() {
                end_node(
                    "the log cannot be brought to the device; replace it if that happens again, then start the node",
                );
            }
            mailbox.timings().sync_ends();
            mailbox.send(Event::Input(Input::Written(last)));
        }
    })?;
    Ok((sender, join))
}

struct Flusher {
    log: Arc<Log>,
    /// Under which the state store keeps each group.
    generations: HashMap<u32, u64>,
}

impl Flusher {
    fn flush(&mut self, writes: Vec<Write>) {
        let mut parts: Vec<(u32, GroupWrite, u64)> = Vec::new();
        // The last index of each group in this batch.
        let mut lasts: HashMap<u32, u64> = HashMap::new();
        for write in writes {
            let follows = |(group, part): (&u32, &GroupWrite)| match (lasts.get(group), part.entries.first()) {
                _ if part.install.is_some() || part.remove => !lasts.contains_key(group),
                (Some(last), Some(first)) => first.index == last + 1,
                _ => true,
            };
            // One batch never replaces what it holds itself.
            if !write.groups.iter().all(follows) {
                self.append(&parts);
                parts.clear();
                lasts.clear();
            }
            for (group, part) in write.groups {
                if part.remove {
                    self.generations.remove(&group);
                    lasts.remove(&group);
                }
                if let Some((index, _, generation)) = part.install {
                    self.generations.insert(group, generation);
                    lasts.insert(group, index);
                }
                if let Some(last) = part.entries.last() {
                    lasts.insert(group, last.index);
                }
                let generation = self.generations.get(&group).copied().unwrap_or_default();
                parts.push((group, part, generation));
            }
        }
        self.append(&parts);
    }

    fn append(&self, parts: &[(u32, GroupWrite, u64)]) {
        if !parts.is_empty()
            && let Err(error) = self.log.append(parts)
        {
            end_node(&format!(
                "the log cannot be written ({error}); free the disk or replace it, then start the node"
            ));
        }
    }
}
