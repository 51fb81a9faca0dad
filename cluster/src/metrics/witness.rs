//! Shows a meter the events of the shards that this node leads, each once: from the feed, apart from the work of the shards.
//!
//! What a leader has decided is its to show: the entries from the first of its term up to the first of the next one. So a move of
//! a leadership shows nothing twice and leaves nothing out, and what is applied again after a restart, or taken over from another
//! leader, is not shown again. A node that is killed takes with it what it has not shown yet: at most what came in one
//! [`LOOK_INTERVAL`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::{Meter, Meters};
use crate::{
    engine::Engine,
    feed::{FeedFilter, PageMax},
    journal::feed::Position,
    projection::ProjectedEvent,
    shard::replica::Replica,
};

/// Time between two looks at what is new.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Records and bytes that are read at one time.
const PAGE_MAX: PageMax = PageMax {
    records: 512,
    bytes: 1 << 20,
};
/// Pages of one shard that are read at one look; the rest follows at the next one, after the other shards.
const PAGES_MAX: usize = 16;

/// How far the events of a leadership have been shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    term: u64,
    upto: Position,
}

impl Shown {
    /// Where showing goes on, given which term this node leads and where the present one began: behind what has been shown, or
    /// at the beginning of a new leadership. None where there is nothing to show. `end` is the last entry that is this
    /// leadership's; none while it goes on.
    fn next(before: Option<Self>, leads: Option<u64>, (term, began): (u64, u64)) -> Option<(Self, Option<u64>)> {
        match before {
            // There is no other leader's entry yet, whoever leads.
            Some(shown) if term == shown.term => Some((shown, None)),
            // Another leader's entries come behind the first one of its term.
            Some(shown) if term > shown.term && shown.upto < Position::end_of(began) => Some((shown, Some(began))),
            // A new leadership, whose first entry is applied.
            _ => leads.filter(|leads| *leads == term).map(|term| {
                let upto = Position::end_of(began);
                (Self { term, upto }, None)
            }),
        }
    }
}

impl Engine {
    /// Shows its meter what is decided, for as long as there is an engine.
    pub(crate) async fn keep_witnessing(engine: Weak<Self>, meters: Meters) {
        let Some(meter) = meters.0 else { return };
        let filter = Arc::new(FeedFilter::default());
        let mut shown: BTreeMap<u32, Shown> = BTreeMap::new();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // Held no longer than it takes: the folder can be opened again once the engine is gone.
            let Some(engine) = engine.upgrade() else { return };
            for replica in engine
                .replicas()
                .iter()
                .filter(|replica| replica.shard() != engine.shards())
            {
                let before = shown.remove(&replica.shard());
                if let Some(now) = show(&replica, &filter, &*meter, before).await {
                    shown.insert(replica.shard(), now);
                }
            }
        }
    }
}

async fn show(
    replica: &Arc<Replica>,
    filter: &Arc<FeedFilter>,
    meter: &dyn Meter,
    before: Option<Shown>,
) -> Option<Shown> {
    let (mut shown, end) = Shown::next(before, replica.leads_term(), replica.meter().term())?;
    for _ in 0..PAGES_MAX {
        let Ok(page) = replica.read_feed(shown.upto, filter, PAGE_MAX).await else {
            // The next look tries again.
            return Some(shown);
        };
        let is_ours = |position: Position| end.is_none_or(|end| position <= Position::end_of(end));
        for record in page.records.iter().filter(|record| is_ours(record.position)) {
            for event in ProjectedEvent::of_record(record) {
                meter.saw(&event);
            }
        }
        // What comes behind the end is another leader's.
        shown.upto = match end {
            Some(end) => shown.upto.max(page.next.min(Position::end_of(end))),
            None => shown.upto.max(page.next),
        };
        if page.is_end || !is_ours(page.next) {
            break;
        }
        tokio::task::yield_now().await;
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> Shown {
        Shown {
            term,
            upto: Position::end_of(index),
        }
    }

    #[test]
    fn a_leadership_shows_what_comes_behind_its_first_entry() {
        assert_eq!(Shown::next(None, Some(3), (3, 10)), Some((at(3, 10), None)));
        assert_eq!(Shown::next(None, None, (3, 10)), None, "another one leads");
        assert_eq!(
            Shown::next(None, Some(4), (3, 10)),
            None,
            "its first entry is not applied yet"
        );
    }

    #[test]
    fn it_goes_on_where_it_was_and_ends_where_the_next_term_begins() {
        let shown = at(3, 12);
        assert_eq!(Shown::next(Some(shown), Some(3), (3, 10)), Some((shown, None)));
        assert_eq!(
            Shown::next(Some(shown), None, (3, 10)),
            Some((shown, None)),
            "still its own entries"
        );
        assert_eq!(Shown::next(Some(shown), None, (4, 20)), Some((shown, Some(20))));
        assert_eq!(Shown::next(Some(at(3, 20)), None, (4, 20)), None, "all of it was shown");
    }

    #[test]
    fn one_that_leads_again_shows_the_rest_of_its_former_term_first() {
        let shown = at(3, 12);
        assert_eq!(Shown::next(Some(shown), Some(5), (5, 30)), Some((shown, Some(30))));
        assert_eq!(Shown::next(Some(at(3, 30)), Some(5), (5, 30)), Some((at(5, 30), None)));
    }
}
