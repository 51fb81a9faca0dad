//! Pages of one replica's feed.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::{FeedFilter, FeedRecord, Position};
pub(crate) use crate::journal::feed::read::PageMax;
use crate::{
    journal::feed::read::{FeedError, Page, Reading},
    shard::replica::Replica,
};

/// What is read of a feed at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedPage {
    pub(crate) records: Vec<FeedRecord>,
    /// Everything up to here has been looked at: what is read next comes after it.
    pub(crate) next: Position,
    /// There was nothing newer on this replica.
    pub(crate) is_end: bool,
    /// Everything that was committed so long ago, or longer, has been looked at if this is the end; `None` where that is not
    /// known.
    pub(crate) age_us: Option<u64>,
    /// How far the replica had come, and the journal's mark.
    pub(crate) applied: u64,
    pub(crate) mark: u64,
}

impl FeedPage {
    /// How old the replica was at most.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.age_us.map(Duration::from_micros)
    }
}

/// Why a replica does not give a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum NoPage {
    /// The replica's feed does not go back so far: what came before was written by a build without feeds.
    #[error("the feed of shard {shard} begins at {begins}; what came before is in the histories of the entities only")]
    BeginsLater { shard: u32, begins: Position },
    /// The store cannot be read.
    #[error("{0}")]
    Failed(String),
}

impl Replica {
    /// What comes after a position, as far as this replica has applied it. Never waits for something newer.
    pub(crate) async fn read_feed(
        self: &Arc<Self>,
        after: Position,
        filter: &Arc<FeedFilter>,
        max: PageMax,
    ) -> Result<FeedPage, NoPage> {
        // Before anything is looked at: what is applied meanwhile makes it newer, never older.
        let proof = self.freshness().proof();
        let page = loop {
            let reading = self.state().begin_feed(after, &|key| filter.wants(key), max);
            let (store, outcome) = match reading {
                Reading::Tail(page) => break page.finish(max),
                Reading::Stored(stored) => {
                    let store = Arc::clone(&stored.store);
                    let filter = Arc::clone(filter);
                    let read = move || stored.finish(&|key| filter.wants(key), max);
                    (store, self.beside(read).await?)
                }
            };
            // A snapshot that was installed meanwhile takes the rows of the store before it away.
            if Arc::ptr_eq(self.state().store(), &store) {
                break outcome.map_err(|error| self.no_page(error))?;
            }
        };
        let Page { records, next, is_end } = page;
        Ok(FeedPage {
            records,
            next,
            is_end,
            applied: self.applied(),
            mark: self.mark(),
            age_us: proof.map(|proof| u64::try_from(proof.age().as_micros()).unwrap_or(u64::MAX)),
        })
    }

    /// The same; if there is nothing, waits for something newer until `until`, and for at least `pause` before it looks again,
    /// so that a busy shard is read in pages and not in single records.
    pub(crate) async fn follow_feed(
        self: &Arc<Self>,
        mut after: Position,
        filter: &Arc<FeedFilter>,
        max: PageMax,
        (pause, until): (Duration, Instant),
    ) -> Result<FeedPage, NoPage> {
        let mut newer = self.feed.newer();
        loop {
            newer.borrow_and_update();
            let page = self.read_feed(after, filter, max).await?;
            // One that looked at much and found nothing goes on later; one that has not come so far yet waits.
            let has_more = !page.is_end && page.next > after;
            if !page.records.is_empty() || has_more || Instant::now() >= until {
                return Ok(page);
            }
            after = after.max(page.next);
            // The sender lives as long as the replica.
            if timeout_at(until, newer.changed()).await.is_ok() {
                tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
            }
        }
    }

    /// The position right before the first record that was decided at a time or later, by the clocks of the leaders; that of
    /// the end if there is none.
    pub(crate) async fn seek_feed(self: &Arc<Self>, at_ms: u64) -> Result<Position, NoPage> {
        loop {
            let seeking = self.state().begin_seek(at_ms);
            let store = Arc::clone(&seeking.store);
            let found = self.beside(move || seeking.finish()).await?;
            if Arc::ptr_eq(self.state().store(), &store) {
                return found.map_err(|error| self.no_page(error));
            }
        }
    }

    /// Reads the store on a thread that nobody waits for, so many at once as are allowed.
    async fn beside<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, NoPage> {
        // In a task of its own: whoever asked may be a subscription that nobody reads just now, which would keep its place from
        // all others, or wait in front of them for one.
        let reads = Arc::clone(&self.feed.reads);
        let reading = tokio::spawn(async move {
            let _permit = reads.acquire_owned().await;
            tokio::task::spawn_blocking(read).await
        });
        let read = reading.await.ok().and_then(Result::ok);
        read.ok_or_else(|| NoPage::Failed("the node is stopping".to_owned()))
    }

    fn no_page(&self, error: FeedError) -> NoPage {
        match error {
            FeedError::BeginsLater(begins) => NoPage::BeginsLater {
                shard: self.shard(),
                begins,
            },
            FeedError::Store(error) => NoPage::Failed(error.to_string()),
        }
    }
}
