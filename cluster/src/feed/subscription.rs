//! Subscriptions: the events of all shards, merged, for one reader.
//!
//! Each shard is followed on its own and has at most one page on its way, so what waits for a slow reader is bounded, and a shard
//! never waits for anyone. Of one shard, and so of one entity, events come in order; of different shards as they come.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    Cursor, FeedEvent, FeedFilter, FeedPage, PageMax, Position,
    cursor::Place,
    follow::{FollowError, Follower, Question},
};
use crate::{engine::Engine, entity::Entity as _, error::Error, membership::Roster, shard::shard_of};

/// Events of one delivery at most, unless one decision alone had more.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Deliveries that wait for one reader.
const AHEAD_LEN_MAX: usize = 4;
/// Bytes of the pages that are on their way for one subscription, shared by its shards; each has at least the smallest page.
const PAGES_BYTES_MAX: usize = 2 << 20;
const PAGE_BYTES_MIN: usize = 16 << 10;
const PAGE_BYTES_MAX: usize = 256 << 10;
const PAGE_RECORDS_MAX: usize = 256;
/// How long a shard in which nothing happens is waited for before it is asked again.
pub(super) const WAIT: Duration = Duration::from_secs(1);
/// The same for a reader that is to end, and knows that there is more: only a replica that lags has nothing for it.
const WAIT_TO_END: Duration = Duration::from_millis(50);
/// How long positions are looked for at the start.
const SEEK_MAX: Duration = Duration::from_secs(5);
/// What callers are told to wait when a node has all subscriptions it may have.
const RETRY_OVERLOADED: Duration = Duration::from_secs(1);

/// Where a subscription begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first event that is kept.
    Beginning,
    /// With what is decided from now on.
    #[default]
    Now,
    /// With the first record of each shard that was decided at this time or later, in milliseconds since 1970.
    Time(u64),
    /// Right behind a cursor.
    Cursor(Cursor),
}

impl Start {
    /// Reads `beginning`, `now` or a cursor.
    pub fn parse(text: &str) -> Result<Self, super::CursorError> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "now" => Ok(Self::Now),
            text => Cursor::from_str(text).map(Self::Cursor),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::Now => f.write_str("now"),
            Self::Time(at_ms) => write!(f, "{at_ms}"),
            Self::Cursor(cursor) => fmt::Display::fmt(cursor, f),
        }
    }
}

/// What is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Where it begins.
    pub from: Start,
    /// Whose events.
    pub filter: FeedFilter,
    /// Only these shards; none for all.
    pub shards: Vec<u32>,
    /// So many events are delivered at once at most, from 1 to [`BATCH_EVENTS_MAX`]; those that were decided together are never
    /// parted.
    pub batch_events_max: usize,
    /// After so long without an event the cursor is delivered alone, at least a second.
    pub heartbeat: Duration,
    /// Ends once everything has been delivered that was acknowledged before it began; some of what came later may be with it.
    pub stop_at_end: bool,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            from: Start::Now,
            filter: FeedFilter::default(),
            shards: Vec::new(),
            batch_events_max: 256,
            heartbeat: Duration::from_secs(5),
            stop_at_end: false,
        }
    }
}

/// What a subscriber gets at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// All of one shard; none where only the cursor moved on.
    pub events: Vec<FeedEvent>,
    /// Behind these events. Stored with what they brought about, each is seen once.
    pub cursor: Cursor,
    /// Everything that was committed some moments ago has been delivered. Of a reader that is to end, the last one says so.
    pub caught_up: bool,
}

/// A subscription; it ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    deliveries: mpsc::Receiver<Result<Delivery, Error>>,
}

impl Subscription {
    /// What comes next; `None` after an error, at the end where that was asked for, or when the node stops. Goes on by itself
    /// when replicas fail or move. Nothing is read ahead beyond a few pages: who does not call this holds up nobody.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        self.deliveries.recv().await
    }
}

impl Engine {
    /// Begins a subscription.
    pub(crate) async fn subscribe(self: &Arc<Self>, options: SubscribeOptions) -> Result<Subscription, Error> {
        let permit = self.subscription_permit()?;
        check_batch(options.batch_events_max)?;
        let shards = self.subscribed_shards(&options.filter, &options.shards)?;
        let max = PageMax {
            records: PAGE_RECORDS_MAX.min(options.batch_events_max.max(16)),
            ..page_max(shards.len())
        };
        let places = self.places(&options.from, &shards).await?;
        let ends = if options.stop_at_end {
            let ends = self.positions(&Question::Committed, &shards).await?;
            Some(shards.iter().copied().zip(ends).collect())
        } else {
            None
        };
        let filter = Arc::new(options.filter.clone());
        let cursor = Cursor {
            shards: self.shards(),
            places: shards.iter().copied().zip(places.iter().copied()).collect(),
        };
        let followers = shards.iter().zip(places).map(|(shard, place)| {
            let at = (place.position, place.mark);
            Follower::new(Arc::clone(self), *shard, Arc::clone(&filter), max, at)
        });
        let (sender, deliveries) = mpsc::channel(AHEAD_LEN_MAX);
        let wait = if ends.is_some() { WAIT_TO_END } else { WAIT };
        let merger = Merger {
            engine: Arc::clone(self),
            followed: followers.map(|follower| begin(follower, wait)).collect(),
            wait,
            ends,
            at_end: vec![false; self.shards() as usize + 1],
            waiting: shards.len(),
            cursor,
            options,
            sender,
            last: Instant::now(),
            told_end: false,
        };
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = merger.run() => {}
                () = engine.until_stopping() => {}
            }
            drop(permit);
        });
        Ok(Subscription { deliveries })
    }

    pub(super) fn subscription_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(self.subscriptions()).try_acquire_owned();
        permit.map_err(|_| Error::Overloaded {
            what: format!(
                "subscriptions_max of node {}: {} subscriptions",
                self.node(),
                self.limits().subscriptions_max
            ),
            retry_after: RETRY_OVERLOADED,
        })
    }

    /// The shards that a subscription reads; what is wrong with its options otherwise.
    pub(super) fn subscribed_shards(&self, filter: &FeedFilter, chosen: &[u32]) -> Result<Vec<u32>, Error> {
        let invalid = |field: &str, reason: String| Error::Invalid {
            field: field.to_owned(),
            reason,
        };
        (filter.check()).map_err(|error| invalid("filter", error.to_string()))?;
        for kind in &filter.kinds {
            if self.registry().get(kind).is_none() {
                let known: Vec<_> = self.registry().names().collect();
                return Err(invalid(
                    "kinds",
                    format!(
                        "names {kind:?}, which is no kind of entity; there are {}",
                        known.join(", ")
                    ),
                ));
            }
        }
        let with_own = filter.kinds.iter().any(|kind| kind == Roster::KIND);
        let all = 0..self.shards() + u32::from(with_own);
        if let Some(shard) = chosen.iter().find(|shard| !all.contains(shard)) {
            return Err(invalid(
                "shards",
                format!(
                    "names shard {shard}; this cluster has those from 0 to {}",
                    self.shards() - 1
                ),
            ));
        }
        let of_entity = filter.entity.as_ref().map(|entity| shard_of(entity, self.shards()));
        let is_read = |shard: &u32| chosen.is_empty() || chosen.contains(shard);
        match of_entity {
            Some(shard) if !is_read(&shard) => {
                Err(invalid("shards", format!("do not hold the entity: shard {shard} does")))
            }
            Some(shard) => Ok(vec![shard]),
            None => Ok(all.filter(is_read).collect()),
        }
    }

    /// Where the shards are read from.
    pub(crate) async fn places(self: &Arc<Self>, from: &Start, shards: &[u32]) -> Result<Vec<Place>, Error> {
        let question = match from {
            Start::Beginning => return Ok(vec![Place::default(); shards.len()]),
            Start::Cursor(cursor) => {
                cursor
                    .check(self.shards(), shards)
                    .map_err(|error| cursor_error(&error))?;
                return Ok(shards.iter().map(|shard| cursor.places[shard]).collect());
            }
            Start::Now => Question::End,
            Start::Time(at_ms) => Question::Since(*at_ms),
        };
        let found = self.positions(&question, shards).await?;
        let place = |position| Place { position, mark: 0 };
        Ok(found.into_iter().map(place).collect())
    }

    /// What each shard answers.
    async fn positions(self: &Arc<Self>, question: &Question, shards: &[u32]) -> Result<Vec<Position>, Error> {
        let found = shards
            .iter()
            .map(|shard| self.feed_position(*shard, question, SEEK_MAX));
        futures::future::join_all(found).await.into_iter().collect()
    }
}

/// How much is read of each of so many shards at one time.
pub(super) fn page_max(shards: usize) -> PageMax {
    PageMax {
        records: PAGE_RECORDS_MAX,
        bytes: (PAGES_BYTES_MAX / shards.max(1)).clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX),
    }
}

/// Whether so many events can be delivered at once.
pub(super) fn check_batch(events_max: usize) -> Result<(), Error> {
    if (1..=BATCH_EVENTS_MAX).contains(&events_max) {
        return Ok(());
    }
    Err(Error::Invalid {
        field: "batch_events_max".to_owned(),
        reason: format!("is {events_max}; must be between 1 and {BATCH_EVENTS_MAX}"),
    })
}

fn cursor_error(error: &dyn fmt::Display) -> Error {
    Error::Invalid {
        field: "cursor".to_owned(),
        reason: error.to_string(),
    }
}

type Followed = BoxFuture<'static, (Follower, Result<FeedPage, FollowError>)>;

fn begin(mut follower: Follower, wait: Duration) -> Followed {
    async move {
        let page = follower.next(wait).await;
        (follower, page)
    }
    .boxed()
}

/// Merges the pages of all shards.
struct Merger {
    engine: Arc<Engine>,
    followed: FuturesUnordered<Followed>,
    /// How long a shard is waited for in which nothing happens.
    wait: Duration,
    /// Of a reader that is to end: how far each shard is read still. One that has been read so far is followed no more.
    ends: Option<HashMap<u32, Position>>,
    /// By shard: whether its last page was the end.
    at_end: Vec<bool>,
    /// Shards whose last page was not the end.
    waiting: usize,
    cursor: Cursor,
    options: SubscribeOptions,
    sender: mpsc::Sender<Result<Delivery, Error>>,
    /// When something was delivered last.
    last: Instant,
    /// The last delivery said that everything had been seen.
    told_end: bool,
}

impl Merger {
    async fn run(mut self) {
        let heartbeat = self.options.heartbeat.max(WAIT);
        loop {
            let (follower, page) = tokio::select! {
                next = self.followed.next() => next.expect("each shard that was taken out is put back"),
                () = self.sender.closed() => return,
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    // Whoever waits for it may have gone.
                    let _ = self.sender.send(Err(cursor_error(&error))).await;
                    return;
                }
            };
            let place = Place {
                position: follower.after,
                mark: follower.mark,
            };
            if !self.deliver(follower.shard, &page, place).await {
                return;
            }
            self.note_end(follower.shard, page.is_end);
            if !self.is_read_to_its_end(&follower) {
                self.followed.push(begin(follower, self.wait));
            }
            if self.ends.is_some() && self.is_caught_up() {
                // The cursor has moved on in shards that had nothing to deliver. Nobody need be there any more.
                let _ = self.send(Vec::new()).await;
                return;
            }
            let is_news = self.is_caught_up() && !self.told_end;
            if (is_news || self.last.elapsed() >= heartbeat) && !self.send(Vec::new()).await {
                return;
            }
        }
    }

    fn is_read_to_its_end(&mut self, follower: &Follower) -> bool {
        let Some(ends) = &mut self.ends else {
            return false;
        };
        let is_read = ends.get(&follower.shard).is_none_or(|end| *end <= follower.after);
        if is_read {
            ends.remove(&follower.shard);
        }
        is_read
    }

    fn note_end(&mut self, shard: u32, is_end: bool) {
        let before = std::mem::replace(&mut self.at_end[shard as usize], is_end);
        match (before, is_end) {
            (false, true) => self.waiting -= 1,
            (true, false) => self.waiting += 1,
            _ => {}
        }
    }

    /// Delivers a page in parts; the cursor goes with them. Says whether anybody still reads.
    async fn deliver(&mut self, shard: u32, page: &FeedPage, behind: Place) -> bool {
        let registry = self.engine.registry().clone();
        let mut records: VecDeque<_> = page.records.iter().collect();
        while let Some(first) = records.pop_front() {
            let mut events: Vec<FeedEvent> = FeedEvent::of(&registry, shard, first).collect();
            let mut position = first.position;
            while let Some(next) = records.front()
                && events.len() + next.events.len() <= self.options.batch_events_max
            {
                events.extend(FeedEvent::of(&registry, shard, next));
                position = next.position;
                records.pop_front();
            }
            let place = if records.is_empty() {
                behind
            } else {
                Place { position, ..behind }
            };
            self.cursor.places.insert(shard, place);
            self.told_end = false;
            self.note_end(shard, false);
            if !self.send(events).await {
                return false;
            }
        }
        self.cursor.places.insert(shard, behind);
        true
    }

    /// A reader that is to end ends with the first delivery that says so.
    fn is_caught_up(&self) -> bool {
        match &self.ends {
            Some(ends) => ends.is_empty(),
            None => self.waiting == 0,
        }
    }

    async fn send(&mut self, events: Vec<FeedEvent>) -> bool {
        self.last = Instant::now();
        self.told_end = self.is_caught_up();
        let delivery = Delivery {
            events,
            cursor: self.cursor.clone(),
            caught_up: self.told_end,
        };
        self.sender.send(Ok(delivery)).await.is_ok()
    }
}
