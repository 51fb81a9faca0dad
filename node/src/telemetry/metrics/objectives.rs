//! Whether commands are good enough: two objectives over three windows, kept as a ring of counts.
//!
//! *Availability*: the platform answers, with a reply or with the domain's no. *Latency*: of what it answers, nearly all comes in
//! time. What is bad uses up the error budget (one minus the target); the burn rate says how many times faster than it may.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;

use super::recorder::Counts;

/// What takes longer is not in time. One of the bounds of `playhouse_command_duration_seconds`, so that rules can say the same.
pub(crate) const LATENCY_MAX: Duration = Duration::from_millis(250);
/// The windows in seconds, the shortest first.
pub(crate) const WINDOWS_S: [u32; 3] = [300, 3_600, 21_600];
/// One place of the ring.
const SLOT_MS: u64 = 10_000;
/// Places that are kept: those of the longest window.
const SLOTS: u64 = WINDOWS_S[2] as u64 * 1000 / SLOT_MS;
/// From this burn rate on in the shortest and in the next window an objective counts as burning. So fast a thirty days' budget is
/// gone in two.
const BURNING: f64 = 14.4;

/// An objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Availability,
    Latency,
}

impl Name {
    pub(crate) const ALL: [Self; 2] = [Self::Availability, Self::Latency];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency => "latency",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Availability => "commands of clients that were answered, with a reply or with the domain's no",
            Self::Latency => "answered commands that took at most the threshold",
        }
    }

    /// The part that is to be good.
    pub(crate) fn target(self) -> f64 {
        match self {
            Self::Availability => 0.999,
            Self::Latency => 0.99,
        }
    }

    pub(crate) fn threshold_ms(self) -> u32 {
        match self {
            Self::Availability => 0,
            Self::Latency => LATENCY_MAX.as_millis() as u32,
        }
    }
}

/// How much of something was good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) good: u64,
    pub(crate) total: u64,
}

impl Part {
    pub(crate) fn add(&mut self, other: Self) {
        self.good += other.good;
        self.total += other.total;
    }

    /// How many times faster than it may the error budget is used up.
    pub(crate) fn burn_rate(self, target: f64) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        (self.total - self.good.min(self.total)) as f64 / self.total as f64 / (1.0 - target)
    }
}

/// In words how an objective stands, by its windows, the shortest first.
pub(crate) fn state(target: f64, windows: &[Part]) -> &'static str {
    let rates: Vec<f64> = windows.iter().map(|part| part.burn_rate(target)).collect();
    match (rates.first(), rates.get(1), rates.last()) {
        _ if windows.iter().all(|part| part.total == 0) => "idle",
        (Some(shortest), Some(next), _) if *shortest >= BURNING && *next >= BURNING => "burning",
        (_, _, Some(longest)) if *longest > 1.0 => "exhausted",
        _ => "met",
    }
}

/// The counts of one place, by [`Name`].
type Slot = [Part; 2];

/// What was good in the last hours.
#[derive(Debug, Default)]
pub(crate) struct Objectives(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    /// By the number of the place since 1970.
    slots: VecDeque<(u64, Slot)>,
    /// Counts at the last look.
    last: Option<Slot>,
    began_ms: Option<u64>,
}

impl Objectives {
    /// Takes the counts of a look in.
    pub(super) fn take(&self, now_ms: u64, counts: &Counts) {
        let (total, errors) = counts.commands();
        let answered = total - errors;
        let availability = Part { good: answered, total };
        let latency = Part {
            good: counts.in_time.min(answered),
            total: answered,
        };
        self.0.lock().take(now_ms, [availability, latency]);
    }

    /// How good each objective was in each window, and since how many seconds there are figures.
    pub(crate) fn windows(&self, now_ms: u64) -> (BTreeMap<Name, [Part; 3]>, u32) {
        self.0.lock().windows(now_ms)
    }
}

impl Ring {
    fn take(&mut self, now_ms: u64, counts: Slot) {
        self.began_ms.get_or_insert(now_ms);
        let last = self.last.replace(counts).unwrap_or_default();
        let number = now_ms / SLOT_MS;
        if self.slots.back().is_none_or(|(newest, _)| *newest < number) {
            self.slots.push_back((number, Slot::default()));
        }
        while self.slots.front().is_some_and(|(oldest, _)| oldest + SLOTS <= number) {
            self.slots.pop_front();
        }
        if let Some((_, slot)) = self.slots.back_mut() {
            for (at, part) in slot.iter_mut().enumerate() {
                part.add(Part {
                    good: counts[at].good.saturating_sub(last[at].good),
                    total: counts[at].total.saturating_sub(last[at].total),
                });
            }
        }
    }

    fn windows(&self, now_ms: u64) -> (BTreeMap<Name, [Part; 3]>, u32) {
        let number = now_ms / SLOT_MS;
        let mut sums: BTreeMap<Name, [Part; 3]> = Name::ALL.map(|name| (name, Default::default())).into();
        for (at, slot) in &self.slots {
            for (window, length_s) in WINDOWS_S.into_iter().enumerate() {
                if at + u64::from(length_s) * 1000 / SLOT_MS > number {
                    for name in Name::ALL {
                        if let Some(parts) = sums.get_mut(&name) {
                            parts[window].add(slot[name as usize]);
                        }
                    }
                }
            }
        }
        let covered_ms = self.began_ms.map_or(0, |began_ms| now_ms.saturating_sub(began_ms));
        (sums, u32::try_from(covered_ms / 1000).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(good: u64, total: u64) -> Slot {
        [Part { good, total }; 2]
    }

    #[test]
    fn a_window_has_what_is_not_older_than_it() {
        let mut ring = Ring::default();
        ring.take(0, counts(90, 100));
        ring.take(200_000, counts(190, 200));
        let (windows, covered_s) = ring.windows(299_000);
        assert_eq!(covered_s, 299);
        assert_eq!(windows[&Name::Availability], [Part { good: 190, total: 200 }; 3]);
        let (windows, _) = ring.windows(300_000);
        let (short, long) = (Part { good: 100, total: 100 }, Part { good: 190, total: 200 });
        assert_eq!(windows[&Name::Latency], [short, long, long]);
        let (windows, _) = ring.windows(21_800_000);
        assert_eq!(
            windows[&Name::Latency][2],
            Part::default(),
            "all of it is older than six hours"
        );
    }

    #[test]
    fn the_ring_stays_as_long_as_the_longest_window() {
        let mut ring = Ring::default();
        for n in 0..SLOTS * 2 {
            ring.take(n * SLOT_MS, counts(n, n));
        }
        assert_eq!(ring.slots.len() as u64, SLOTS);
    }

    #[test]
    fn the_state_follows_the_burn_rates() {
        let part = |bad: u64, total: u64| Part {
            good: total - bad,
            total,
        };
        assert_eq!(state(0.999, &[Part::default(); 3]), "idle");
        assert_eq!(state(0.999, &[part(0, 100_000); 3]), "met");
        assert_eq!(state(0.999, &[part(10, 10_000); 3]), "met", "just all of the budget");
        assert_eq!(
            state(0.999, &[part(20, 1_000), part(0, 100_000), part(20, 101_000)]),
            "met",
            "a short blip"
        );
        assert_eq!(
            state(0.999, &[part(20, 1_000), part(20, 1_000), part(20, 100_000)]),
            "burning"
        );
        assert_eq!(
            state(0.999, &[part(0, 1_000), part(5, 1_000), part(5, 2_000)]),
            "exhausted"
        );
        let rate = part(1, 100).burn_rate(0.99);
        assert!((rate - 1.0).abs() < 1e-9, "{rate}");
    }
}
