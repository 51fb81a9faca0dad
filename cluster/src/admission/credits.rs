//! How many of a node's credits one party may hold. A party is a tenant with one kind of entity: so neither a tenant nor a kind can
//! stand in the way of others.
//!
//! The rule is that of dynamic thresholds (Choudhury and Hahne, 1998): whoever holds less than [`SHARE`] times what is free may
//! take one more. With n parties that take what they can get, each ends with `SHARE / (1 + n * SHARE)` of all credits, and
//! `1 / (1 + n * SHARE)` stay free for whoever comes next. So a party that holds little is always let in, whatever the others do,
//! and one that is alone has nearly everything. Nobody has to know who else there is.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    limit::Limit,
    tenants::{Counts, Tenant, Tenants},
};

/// A party may hold so many times what is free: alone at most four fifths, two of them four ninths each.
pub(crate) const SHARE: usize = 4;

/// Whether somebody who holds `held` may take one more of `max` credits, of which `taken` are taken.
pub(crate) fn may_take(held: usize, taken: usize, max: usize) -> bool {
    held < SHARE.saturating_mul(max.saturating_sub(taken))
}

/// Credits, and who holds them.
pub(crate) struct Pool {
    limit: AtomicUsize,
    taken: Arc<AtomicUsize>,
    /// The place of each kind in a tenant's counts.
    kinds: BTreeMap<&'static str, usize>,
    tenants: Tenants,
}

/// A credit; given back when it is dropped.
pub(crate) struct Credit {
    taken: Arc<AtomicUsize>,
    of_party: Option<(Counts, usize)>,
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some((counts, kind)) = &self.of_party {
            counts[*kind].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Pool {
    pub(crate) fn new(limit: usize, kinds: impl Iterator<Item = &'static str>) -> Self {
        let kinds: BTreeMap<&'static str, usize> = kinds.zip(0..).collect();
        Self {
            limit: AtomicUsize::new(limit),
            taken: Arc::default(),
            tenants: Tenants::new(kinds.len() + 1),
            kinds,
        }
    }

    /// How many may be held at most just now.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one of `max` credits, or says which limit stands in the way.
    pub(crate) fn take(&self, max: usize, tenant: &Tenant, kind: &str) -> Result<Credit, Limit> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let mut credit = Credit {
            taken: Arc::clone(&self.taken),
            of_party: None,
        };
        if taken >= max {
            return Err(Limit::InFlight);
        }
        let counts = self.tenants.counts_of(tenant);
        // Kinds that nobody has registered share a place.
        let kind = self.kinds.get(kind).copied().unwrap_or(self.kinds.len());
        let held = counts[kind].fetch_add(1, Ordering::Relaxed);
        credit.of_party = Some((counts, kind));
        if may_take(held, taken, max) {
            Ok(credit)
        } else {
            Err(Limit::Share)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).expect("a tenant")
    }

    fn fill(pool: &Pool, max: usize, tenant: &Tenant, kind: &str) -> Vec<Credit> {
        let mut held = Vec::new();
        while let Ok(credit) = pool.take(max, tenant, kind) {
            held.push(credit);
        }
        held
    }

    #[test]
    fn a_tenant_that_takes_all_it_gets_leaves_room_for_the_next() {
        let pool = Pool::new(1_000, ["order"].into_iter());
        let greedy = fill(&pool, 1_000, &tenant("greedy"), "other");
        assert_eq!(greedy.len(), 800);
        let modest = fill(&pool, 1_000, &tenant("modest"), "other");
        assert!(modest.len() >= 150, "{}", modest.len());
        assert_eq!(pool.take(1_000, &tenant("greedy"), "other").err(), Some(Limit::Share));
        assert!(
            pool.take(1_000, &tenant("third"), "other").is_ok(),
            "there is always one more"
        );
        drop((greedy, modest));
        assert_eq!(pool.held(), 0);
    }

    /// One at ten times the load of the other: both are served to the end in equal measure of what they ask for.
    #[test]
    fn ten_times_the_load_of_one_kind_does_not_starve_another() {
        let pool = Pool::new(1_000, ["stock", "order"].into_iter());
        let mut under_way: std::collections::VecDeque<(bool, Credit)> = std::collections::VecDeque::new();
        let (mut let_in, mut refused) = ([0_u32; 2], [0_u32; 2]);
        for round in 0..20_000 {
            // Ten of one kind come for one of the other; the node finishes three in that time.
            for _ in 0..10 {
                match pool.take(100, &Tenant::default(), "stock") {
                    Ok(credit) => {
                        let_in[0] += 1;
                        under_way.push_back((true, credit));
                    }
                    Err(_) => refused[0] += 1,
                }
            }
            match pool.take(100, &tenant(&format!("t{}", round % 3)), "order") {
                Ok(credit) => {
                    let_in[1] += 1;
                    under_way.push_back((false, credit));
                }
                Err(_) => refused[1] += 1,
            }
            for _ in 0..3 {
                under_way.pop_front();
            }
        }
        assert_eq!(
            refused[1], 0,
            "the modest kind is always let in: {let_in:?} {refused:?}"
        );
        assert!(refused[0] > 140_000, "the greedy one is not: {let_in:?} {refused:?}");
        assert!(
            let_in[0] >= 39_000,
            "and yet has all that is left: {let_in:?} {refused:?}"
        );
    }

    #[test]
    fn two_parties_end_with_equal_shares() {
        let (mut held, max) = ([0_usize; 2], 900);
        loop {
            let before = held;
            for party in 0..2 {
                if may_take(held[party], held[0] + held[1], max) {
                    held[party] += 1;
                }
            }
            if held == before {
                break;
            }
        }
        assert!(held.iter().all(|held| (398..=402).contains(held)), "{held:?}");
    }
}
