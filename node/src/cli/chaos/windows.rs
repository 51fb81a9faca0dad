//! How long which shards did not answer, as the clients saw it. Pure.
//!
//! A window is a time in which somebody waited for a shard and nobody got an answer from it: it begins with the last answer before it, or with the first
//! question that waits if that came later, and ends with the next answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    history::History,
    kind::{Act, Kind},
};

/// Shorter ones are no interruption.
const WINDOW_US_MIN: u64 = 100_000;
/// Where more than one fault was at work.
const TWO: &str = "two at once";
/// Where none was.
const NONE: &str = "(no fault)";

/// A time in which a shard did not answer. Microseconds since the trial began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) shard: u32,
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

impl Window {
    pub(super) fn ms(&self) -> u64 {
        (self.to_us - self.from_us) / 1_000
    }
}

/// A round of faults as it was done. Microseconds since the trial began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) acts: Vec<(Kind, Act)>,
    pub(super) from_us: u64,
    pub(super) healed_us: u64,
    /// When every node was there again and every shard led and whole.
    pub(super) settled_us: u64,
}

impl Done {
    /// What its windows are counted under.
    pub(super) fn label(&self) -> &'static str {
        match &self.acts[..] {
            [(kind, _)] => kind.name(),
            _ => TWO,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// How often the fault was there.
    pub(super) times: usize,
    pub(super) shards: BTreeSet<u32>,
    /// How long the windows were, in milliseconds, the shortest first.
    pub(super) windows_ms: Vec<u64>,
}

impl Line {
    /// So many of a hundred windows were no longer than this.
    pub(super) fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.windows_ms.len() * percent).div_ceil(100);
        self.windows_ms.get(rank.saturating_sub(1)).copied()
    }
}

/// All windows, in the order of the shards and of time.
pub(super) fn all(history: &History) -> Vec<Window> {
    let mut by_shard: BTreeMap<u32, Vec<(u64, u64, bool)>> = BTreeMap::new();
    for operation in history
        .operations
        .iter()
        .filter(|operation| operation.end_us <= history.worked_us)
    {
        let asked = (operation.start_us, operation.end_us, operation.seen.is_some());
        by_shard
            .entry(history.items[operation.item].shard)
            .or_default()
            .push(asked);
    }
    by_shard
        .into_iter()
        .flat_map(|(shard, asked)| of_shard(shard, asked))
        .collect()
}

/// `asked`: when each question came, when its answer (or until when it was waited for), and whether there was one.
fn of_shard(shard: u32, mut asked: Vec<(u64, u64, bool)>) -> Vec<Window> {
    asked.sort_unstable_by_key(|(_, end, _)| *end);
    // From each place on: when the first of those that are still open began.
    let mut waits_since = vec![u64::MAX; asked.len() + 1];
    for at in (0..asked.len()).rev() {
        waits_since[at] = asked[at].0.min(waits_since[at + 1]);
    }
    let mut windows = Vec::new();
    let (mut last_answer, mut next) = (0, 0);
    let mut add = |from_us: u64, to_us: u64| {
        if to_us.saturating_sub(from_us) >= WINDOW_US_MIN {
            windows.push(Window { shard, from_us, to_us });
        }
    };
    for (at, (_, end, is_answered)) in asked.iter().enumerate() {
        if *is_answered {
            add(waits_since[next].max(last_answer), *end);
            (last_answer, next) = (*end, at + 1);
        }
    }
    if let Some((_, end, _)) = asked[next..].last() {
        add(waits_since[next].max(last_answer), *end);
    }
    windows
}

/// Which round a window belongs to: the first that had begun when it ended, and after which no other had begun when it began.
pub(super) fn round_of(window: &Window, rounds: &[Done]) -> Option<usize> {
    let has_begun = rounds.iter().take_while(|round| round.from_us <= window.to_us).count();
    let later = rounds
        .iter()
        .take_while(|round| round.from_us <= window.from_us)
        .count();
    (has_begun > 0).then(|| later.clamp(1, has_begun) - 1)
}

/// The table: a line for each kind of fault that was there, and for windows that belong to none.
pub(super) fn table(windows: &[Window], rounds: &[Done]) -> BTreeMap<&'static str, Line> {
    let mut lines: BTreeMap<&'static str, Line> = BTreeMap::new();
    for round in rounds {
        lines.entry(round.label()).or_default().times += 1;
    }
    for window in windows {
        let label = round_of(window, rounds).map_or(NONE, |round| rounds[round].label());
        let line = lines.entry(label).or_default();
        line.shards.insert(window.shard);
        line.windows_ms.push(window.ms());
    }
    for line in lines.values_mut() {
        line.windows_ms.sort_unstable();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    fn windows(asked: &[(u64, u64, bool)]) -> Vec<(u64, u64)> {
        let asked = asked
            .iter()
            .map(|(start, end, ok)| (start * MS, end * MS, *ok))
            .collect();
        let windows = of_shard(1, asked);
        windows
            .iter()
            .map(|window| (window.from_us / MS, window.to_us / MS))
            .collect()
    }

    #[test]
    fn a_window_is_waiting_without_an_answer() {
        assert_eq!(windows(&[]), []);
        assert_eq!(windows(&[(0, 5, true), (1_000, 1_010, true)]), [], "nobody asked");
        assert_eq!(windows(&[(0, 5, true), (50, 700, true)]), [(50, 700)]);
        assert_eq!(windows(&[(0, 300, true), (50, 700, true)]), [(0, 300), (300, 700)]);
        assert_eq!(
            windows(&[(0, 700, true), (600, 610, true), (620, 690, true)]),
            [(0, 610)]
        );
    }

    #[test]
    fn who_gives_up_has_waited_too() {
        assert_eq!(
            windows(&[(0, 5, true), (50, 400, false), (450, 600, true)]),
            [(50, 600)]
        );
        assert_eq!(windows(&[(0, 5, true), (50, 400, false)]), [(50, 400)]);
        assert_eq!(windows(&[(50, 400, false)]), [(50, 400)]);
    }

    fn round(kind: Kind, from_ms: u64) -> Done {
        Done {
            acts: vec![(kind, Act::ProviderDown)],
            from_us: from_ms * MS,
            healed_us: 0,
            settled_us: 0,
        }
    }

    #[test]
    fn a_window_belongs_to_the_fault_in_whose_time_it_began() {
        let rounds = [round(Kind::Kill, 1_000), round(Kind::Pause, 5_000)];
        let of = |from_ms, to_ms| {
            let window = Window {
                shard: 1,
                from_us: from_ms * MS,
                to_us: to_ms * MS,
            };
            round_of(&window, &rounds)
        };
        assert_eq!(of(100, 300), None);
        assert_eq!(of(900, 1_500), Some(0), "the fault came while somebody asked");
        assert_eq!(of(1_200, 1_500), Some(0));
        assert_eq!(of(4_900, 5_500), Some(0));
        assert_eq!(of(5_100, 5_500), Some(1));
        assert_eq!(of(900, 5_500), Some(0));
    }

    #[test]
    fn the_table_counts_faults_that_nobody_noticed_too() {
        let mut two = round(Kind::Pause, 5_000);
        two.acts.push((Kind::Clock, Act::ProviderDown));
        let rounds = [round(Kind::Kill, 1_000), two, round(Kind::Kill, 9_000)];
        let window = |shard, from_ms: u64, ms: u64| Window {
            shard,
            from_us: from_ms * MS,
            to_us: (from_ms + ms) * MS,
        };
        let seen: Vec<Window> = (1..=100).map(|ms| window(ms as u32 % 4, 2_000, 100 + ms)).collect();
        let table = table(&seen, &rounds);
        let kill = &table["kill"];
        assert_eq!((kill.times, kill.shards.len(), kill.windows_ms.len()), (2, 4, 100));
        assert_eq!(
            [0, 50, 99, 100].map(|p| kill.percentile(p)),
            [101, 150, 199, 200].map(Some)
        );
        assert_eq!((table[TWO].times, table[TWO].percentile(50)), (1, None));
    }
}
