//! Reading the events of a shard in the order in which they were decided, from any replica.
//!
//! The order and where it is stored are the journal's (`journal/feed`). What stands here is the reading: [`filter`] (which
//! entities are wanted), [`read`] (pages of one replica's feed, beside everything else that the node does), [`follow`] (one shard from
//! whichever replica can be reached), [`cursor`] (how far somebody has read), [`event`] (what a
//! subscriber gets), [`subscription`] (all shards merged for one reader), [`group`] (consumer groups:
//! who reads which shard, and how far), [`consumer`] (a member of one at work), [`groups`] (what people see of them).
//!
//! A replica's feed has what the replica has applied, so nothing in it can be taken back. Reading never runs on the driver's
//! thread or in an activation's way: the shard is held for as long as it takes to copy some pointers, and the store is read on
//! threads of its own, [`FEED_READS_MAX`] at a time for each shard.

pub mod consumer;
pub mod cursor;
pub mod event;
pub mod filter;
pub(crate) mod follow;
pub mod group;
pub mod groups;
pub(crate) mod read;
pub mod subscription;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

pub use crate::journal::feed::{FeedRecord, Position};
pub use consumer::{Acknowledger, Batch, ConsumeOptions, Consumer, Handed};
pub use cursor::{Cursor, CursorError};
pub use event::FeedEvent;
pub use filter::{FeedFilter, FilterError};
pub(crate) use read::{FeedPage, PageMax};
pub use subscription::{Delivery, Start, SubscribeOptions, Subscription};

/// Reads of the store under way for the feed of one shard.
pub(crate) const FEED_READS_MAX: usize = 2;

/// What a replica keeps for those who read its feed.
pub(crate) struct FeedSource {
    /// The position of the last applied entry that had events, as far as somebody waits for it.
    newer: watch::Sender<u64>,
    reads: Arc<Semaphore>,
}

impl Default for FeedSource {
    fn default() -> Self {
        Self {
            newer: watch::Sender::new(0),
            reads: Arc::new(Semaphore::new(FEED_READS_MAX)),
        }
    }
}

impl FeedSource {
    /// An entry with events was applied, or a snapshot was installed.
    pub(crate) fn applied(&self, index: u64) {
        // Called for each entry: nothing is done where nobody waits. Who begins to wait looks at the feed after that.
        if self.newer.receiver_count() > 0 {
            self.newer.send_replace(index);
        }
    }

    /// Changes whenever there may be something newer. Read the feed after subscribing, then wait: so nothing is missed.
    pub(crate) fn newer(&self) -> watch::Receiver<u64> {
        self.newer.subscribe()
    }
}
