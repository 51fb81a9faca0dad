//! A reader of a group's feed that goes from replica to replica sees every committed event once, in order: the events of an
//! entity one after the other, and of the group at positions that are the same on all replicas.

use std::collections::BTreeMap;

use crate::{
    entity::EntityKey,
    journal::{
        Shard,
        feed::{
            FeedRecord, Position,
            read::{Page, PageMax, Reading},
        },
    },
    simulation::world::World,
};

/// Records of one page: few, so that pages end anywhere.
const PAGE_LEN: usize = 7;

/// One reader for each group.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    readers: BTreeMap<u32, Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    after: Position,
    versions: BTreeMap<EntityKey, u64>,
    seen: Vec<FeedRecord>,
}

fn page(shard: &Shard, after: Position, records: usize) -> Result<Page, String> {
    let max = PageMax {
        records,
        bytes: usize::MAX,
    };
    match shard.begin_feed(after, &|_| true, max) {
        Reading::Tail(page) => Ok(page.finish(max)),
        Reading::Stored(stored) => stored.finish(&|_| true, max).map_err(|error| error.to_string()),
    }
}

impl Feed {
    /// The group's reader reads some more, here. A replica that has not come so far has nothing for it.
    pub(crate) fn read(&mut self, group: u32, shard: &Shard) -> Result<(), String> {
        let reader = self.readers.entry(group).or_default();
        let page = page(shard, reader.after, PAGE_LEN)?;
        if page.next < reader.after {
            return Err(format!(
                "group {group}: reading goes back from {} to {}",
                reader.after, page.next
            ));
        }
        for record in page.records {
            let version = reader.versions.entry(record.entity.clone()).or_default();
            if record.first_version != *version + 1 {
                return Err(format!(
                    "group {group}: {} goes on with version {} after {version}",
                    record.entity, record.first_version
                ));
            }
            *version += record.events.len() as u64;
            reader.seen.push(record);
        }
        reader.after = page.next;
        Ok(())
    }

    /// At the end: who reads all of it here sees what the reader has seen, and as many events as were committed.
    pub(crate) fn ends(
        &mut self,
        group: u32,
        shard: &Shard,
        committed: &BTreeMap<EntityKey, u64>,
    ) -> Result<(), String> {
        loop {
            let before = self.readers.entry(group).or_default().after;
            self.read(group, shard)?;
            if self.readers[&group].after == before {
                break;
            }
        }
        let reader = &self.readers[&group];
        let (mut all, mut after) = (Vec::new(), Position::BEGINNING);
        loop {
            let page = page(shard, after, PAGE_LEN * 10)?;
            after = page.next;
            all.extend(page.records);
            if page.is_end {
                break;
            }
        }
        if let Some((one, other)) = all.iter().zip(&reader.seen).find(|(one, other)| one != other) {
            return Err(format!(
                "group {group}: {one:?} stands where another replica has {other:?}"
            ));
        }
        if all.len() != reader.seen.len() {
            return Err(format!(
                "group {group}: {} records of {} are read",
                all.len(),
                reader.seen.len()
            ));
        }
        match committed
            .iter()
            .find(|(key, events)| reader.versions.get(*key).copied().unwrap_or_default() != **events)
        {
            Some((key, events)) => Err(format!("group {group}: of {events} events of {key} some are not read")),
            None => Ok(()),
        }
    }
}

impl World {
    /// The feeds of all replicas at the end of a run.
    pub(super) fn check_feeds(&mut self) {
        let mut verdict = Ok(());
        let mut committed: BTreeMap<u32, BTreeMap<EntityKey, u64>> = BTreeMap::new();
        for (key, group) in self.clients.keys() {
            let records = self
                .checks
                .effects
                .histories
                .get(key)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let events: usize = records.iter().map(|record| record.events.len()).sum();
            committed.entry(*group).or_default().insert(key.clone(), events as u64);
        }
        for (group, committed) in &committed {
            for node in self.home_of(*group) {
                let Some(run) = &self.nodes[&node].run else { continue };
                let Some(replica) = run.replicas.get(group) else {
                    continue;
                };
                let ends = self.checks.feed.ends(*group, &replica.shard, committed);
                verdict = verdict.and(ends.map_err(|what| format!("node {node}: {what}")));
            }
        }
        self.verdict("feed", verdict);
    }
}
