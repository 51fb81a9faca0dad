//! Following the feed of one shard from whichever replica can be reached: this node's own first, then those of others. A replica
//! that ends, stands still or moves away is left for another, and nothing is missed or repeated, because positions are the same
//! on all of them.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{FeedFilter, FeedPage, PageMax, Position, cursor::CursorError, read::NoPage};
use crate::{config::NodeId, engine::Engine};

/// A replica that does not know that it is so new is not believed to have everything.
const AGE_MAX: Duration = Duration::from_secs(2);
/// How long a replica that was no good is left alone.
const AVOIDED: Duration = Duration::from_secs(3);
/// Time between two rounds in which nobody could answer.
pub(crate) const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How long replicas that have everything may say that they have not come to a position before it is called foreign.
const NEVER_REACHED: Duration = Duration::from_secs(5);

/// What is asked of a replica's feed, on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Question {
    /// What comes after a position; waits so long for something.
    Page {
        after: Position,
        filter: FeedFilter,
        records: u32,
        bytes: u32,
        wait_ms: u32,
    },
    /// The position right before the first record that is not older than this.
    Since(u64),
    /// How far it has come.
    End,
    /// A position that has everything behind it which was acknowledged before the question. Only the leader can say one.
    Committed,
}

/// What a replica answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Told {
    Page(FeedPage),
    Position(Position),
    NoPage(NoPage),
    /// There is none on this node.
    NotHere,
}

/// Why a shard cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("{0}")]
    BeginsLater(String),
}

/// Follows one shard.
pub(crate) struct Follower {
    engine: Arc<Engine>,
    pub(crate) shard: u32,
    filter: Arc<FeedFilter>,
    max: PageMax,
    pub(crate) after: Position,
    /// The journal's mark, once it is known.
    pub(crate) mark: u64,
    /// A replica that was no good, and until when it is left alone.
    avoided: Option<(NodeId, Instant)>,
    /// Since when replicas that have everything have not come to `after`.
    ahead_since: Option<Instant>,
}

impl Follower {
    pub(crate) fn new(
        engine: Arc<Engine>,
        shard: u32,
        filter: Arc<FeedFilter>,
        max: PageMax,
        (after, mark): (Position, u64),
    ) -> Self {
        Self {
            engine,
            shard,
            filter,
            max,
            after,
            mark,
            avoided: None,
            ahead_since: None,
        }
    }

    /// What comes next; nothing if there is nothing within `wait`, or nobody can be asked just now. Then the page does not say
    /// that it is the end.
    pub(crate) async fn next(&mut self, wait: Duration) -> Result<FeedPage, FollowError> {
        let mut begins_later = None;
        for node in self.order() {
            let question = Question::Page {
                after: self.after,
                filter: (*self.filter).clone(),
                records: self.max.records as u32,
                bytes: self.max.bytes as u32,
                wait_ms: wait.as_millis() as u32,
            };
            match self.engine.feed_at(node, self.shard, question).await {
                Ok(Told::Page(page)) => return self.take(node, page),
                Ok(Told::NoPage(reason @ NoPage::BeginsLater { .. })) => begins_later = Some(reason.to_string()),
                Ok(Told::NoPage(NoPage::Failed(reason))) => {
                    tracing::warn!(shard = self.shard, node, reason, "a feed cannot be read there");
                }
                Ok(Told::NotHere | Told::Position(_)) => {}
                Err(reason) => tracing::debug!(shard = self.shard, node, reason, "a feed is not answered"),
            }
            self.avoided = Some((node, Instant::now() + AVOIDED));
        }
        if let Some(reason) = begins_later {
            return Err(FollowError::BeginsLater(reason));
        }
        sleep(ROUND_PAUSE).await;
        Ok(FeedPage {
            next: self.after,
            ..FeedPage::default()
        })
    }

    fn order(&self) -> Vec<NodeId> {
        let mut order = self.engine.feed_order(self.shard, false);
        if let Some((node, until)) = self.avoided
            && Instant::now() < until
        {
            // Asked last, if all others are no better.
            order.sort_by_key(|other| *other == node);
        }
        order
    }

    fn take(&mut self, node: NodeId, mut page: FeedPage) -> Result<FeedPage, FollowError> {
        if self.mark != 0 && page.mark != 0 && self.mark != page.mark {
            return Err(CursorError::Foreign(format!("shard {} has another journal", self.shard)).into());
        }
        self.mark = self.mark.max(page.mark);
        let is_new = page.age().is_some_and(|age| age <= AGE_MAX);
        if page.applied < self.after.index {
            let since = *self.ahead_since.get_or_insert_with(Instant::now);
            if is_new && since.elapsed() > NEVER_REACHED {
                return Err(CursorError::Foreign(format!(
                    "shard {} has never come to position {}, or was restored since",
                    self.shard, self.after
                ))
                .into());
            }
        } else {
            self.ahead_since = None;
        }
        if page.records.is_empty() && !is_new && page.next <= self.after {
            // It may be cut off. The others are asked from now on; it is told, too, that it is not at the end.
            self.avoided = Some((node, Instant::now() + AVOIDED));
            page.is_end = false;
        }
        page.is_end &= is_new;
        self.after = self.after.max(page.next);
        Ok(page)
    }
}
