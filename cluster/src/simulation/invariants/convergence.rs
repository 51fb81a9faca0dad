//! Once nothing goes wrong any more, everything comes to rest: all replicas are voters and in one state, and every
//! operation has its answer.

use crate::{
    entity::EntityKey,
    replication::Members,
    simulation::{
        invariants::history,
        node::Node,
        world::{TICK, World},
    },
};

/// How late a repeating timer may be once nothing goes wrong any more, in ticks.
const TIMER_LATE_TICKS_MAX: u64 = 100;

impl World {
    /// Whether a group has exactly the replicas that it should have, all of them voters.
    pub(in crate::simulation) fn has_all_members(&self, group: u32, members: &Members) -> bool {
        let mut wanted = self.homes.home(group).to_vec();
        let mut voters = members.voters.clone();
        wanted.sort_unstable();
        voters.sort_unstable();
        wanted == voters && members.learners.is_empty() && members.voters_outgoing.is_empty()
    }

    /// Whether everything has come to rest; what it waits for if not.
    pub(in crate::simulation) fn converged(&self) -> Result<(), String> {
        if self.clients.open() > 0 {
            return Err(format!("{} operations have no answer", self.clients.open()));
        }
        self.author_waits_for()?;
        self.damage_left()?;
        if self.checks.timers.open() > 0 {
            return Err(format!("{} timers have not fired", self.checks.timers.open()));
        }
        // One may have been set just now that was due long ago: it has its time too.
        let late_ms = self.now.saturating_sub(TIMER_LATE_TICKS_MAX * TICK);
        if let Some(late) = self.checks.timers.overdue(late_ms).filter(|_| self.alarms.is_some()) {
            return Err(late);
        }
        for group in 0..self.shape.groups {
            let mut states = Vec::new();
            for node in self.home_of(group) {
                let run = self.nodes[&node].run.as_ref().ok_or("a node is down")?;
                let replica = run.replicas.get(&group).ok_or("a replica is not opened yet")?;
                let meta = replica.shard.meta();
                if !self.has_all_members(group, &meta.members) {
                    return Err(format!(
                        "group {group} on node {node} has the members {:?}",
                        meta.members
                    ));
                }
                states.push((meta.applied, meta.digest));
            }
            if states.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("group {group} is in the states {states:?}"));
            }
            let home = self.home_of(group);
            let stray = |node: &&Node| !home.contains(&node.id) && node.disk.held.contains_key(&group);
            if let Some(stray) = self.nodes.values().find(stray) {
                return Err(format!("node {} still holds group {group}", stray.id));
            }
        }
        Ok(())
    }

    /// The checks that need the whole run.
    pub(in crate::simulation) fn check_the_end(&mut self) {
        let mut verdict = Ok(());
        let own = self.checks.effects.histories.keys();
        let keys: Vec<(EntityKey, u32)> = match &self.author {
            Some(_) => own.map(|key| (key.clone(), self.clients.group_of(key))).collect(),
            None => self.clients.keys().to_vec(),
        };
        for (key, group) in &keys {
            let committed = self
                .checks
                .effects
                .histories
                .get(key)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let mut outboxes = Vec::new();
            for node in self.home_of(*group) {
                let Some(run) = &self.nodes[&node].run else { continue };
                let Some(replica) = run.replicas.get(group) else {
                    continue;
                };
                let shard = &replica.shard;
                let held = history::is_held(shard, key, committed).map_err(|what| format!("node {node}: {what}"));
                verdict = verdict.and(held);
                outboxes.push(shard.outbox());
            }
            if outboxes.windows(2).any(|pair| pair[0] != pair[1]) {
                verdict = verdict.and(Err(format!("group {group}: the outboxes differ")));
            }
            for op in self.clients.ops.values().filter(|op| op.key == *key) {
                verdict = verdict.and(history::keeps(op, committed));
            }
        }
        self.verdict("history", verdict);
        let verdict = self.checks.linearizable.check();
        self.count(
            "operations placed in one order",
            verdict.as_ref().map_or(0, |count| *count as u64),
        );
        self.verdict("linearizable", verdict.map(drop));
        if self.author.is_some() {
            return self.check_what_the_author_says(true);
        }
        self.check_feeds();
        self.check_timers();
    }

    fn check_timers(&mut self) {
        let mut verdict = match self
            .checks
            .timers
            .overdue(self.now.saturating_sub(TIMER_LATE_TICKS_MAX * TICK))
        {
            Some(late) => Err(late),
            None => Ok(()),
        };
        for group in 0..self.shape.groups {
            let of_group = |(key, of): &(EntityKey, u32)| (*of == group).then(|| key.clone());
            let keys: Vec<EntityKey> = self.clients.keys().iter().filter_map(of_group).collect();
            for node in self.home_of(group) {
                let Some(run) = &self.nodes[&node].run else { continue };
                let held = self.checks.timers.are_held(&run.replicas[&group].shard, &keys);
                verdict = verdict.and(held.map_err(|what| format!("node {node}: {what}")));
            }
        }
        self.verdict("timers", verdict);
    }
}
