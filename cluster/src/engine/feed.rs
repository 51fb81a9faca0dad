//! The feeds of shards: this node's own replica answers, or another node is asked.

use std::{sync::Arc, time::Duration};

use proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep, timeout};

use super::Engine;
use crate::{
    codec,
    config::NodeId,
    error::Error,
    feed::{
        PageMax, Position,
        follow::{Question, ROUND_PAUSE, Told},
        read::NoPage,
    },
    replication::node_of,
};

/// Records and bytes of one page that another node is asked for, at most.
const PAGE_RECORDS_MAX: u32 = 1_000;
const PAGE_BYTES_MAX: u32 = 1 << 20;
/// How long a question for news waits at most.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long another node may take beyond what it was asked to wait.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Before a busy shard is looked at again, so that it is read in pages and not in single records.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// How long an answer to that is waited for.
const ASK_MAX: Duration = Duration::from_millis(500);
/// From this age on a replica asks for what is new.
const AGE_ASK: Duration = Duration::from_millis(500);

impl Engine {
    /// Answers from this node's own replica.
    pub(crate) async fn feed_here(self: &Arc<Self>, shard: u32, question: Question) -> Told {
        let Some(replica) = self.replica(shard) else {
            return Told::NotHere;
        };
        let told = match question {
            Question::Page {
                after,
                filter,
                records,
                bytes,
                wait_ms,
            } => {
                if let Err(error) = filter.check() {
                    return Told::NoPage(NoPage::Failed(error.to_string()));
                }
                let max = PageMax {
                    records: records.min(PAGE_RECORDS_MAX) as usize,
                    bytes: bytes.min(PAGE_BYTES_MAX) as usize,
                };
                let until = Instant::now() + Duration::from_millis(u64::from(wait_ms)).min(WAIT_MAX);
                let filter = Arc::new(filter);
                let follow = async {
                    let page = replica.follow_feed(after, &filter, max, (LOOK_PAUSE, until)).await?;
                    if !page.is_end || page.age().is_some_and(|age| age <= AGE_ASK) {
                        return Ok(page);
                    }
                    // An end is worth as much as it is new. Nothing else makes an idle replica's state new, and a reader that
                    // is turned away here would find all the others just as old.
                    let until = Instant::now() + ASK_MAX;
                    let is_new = replica.freshness().within(AGE_ASK, until, || replica.ask_for_all());
                    if !is_new.await || !page.records.is_empty() {
                        return Ok(page);
                    }
                    replica.read_feed(page.next.max(after), &filter, max).await
                };
                let page = tokio::select! {
                    page = follow => page,
                    () = self.until_stopping() => return Told::NotHere,
                };
                page.map(Told::Page)
            }
            Question::Since(at_ms) => replica.seek_feed(at_ms).await.map(Told::Position),
            Question::End => Ok(Told::Position(Position::end_of(replica.applied()))),
            Question::Committed => match timeout(ASK_MAX, replica.confirm()).await {
                Ok(Ok(())) => Ok(Told::Position(Position::end_of(replica.applied()))),
                Ok(Err(_)) => Ok(Told::NotHere),
                Err(_) => Err(NoPage::Failed(format!(
                    "node {} finds no majority that follows it",
                    self.node()
                ))),
            },
        };
        told.unwrap_or_else(Told::NoPage)
    }

    /// Asks a node.
    pub(crate) async fn feed_at(
        self: &Arc<Self>,
        node: NodeId,
        shard: u32,
        question: Question,
    ) -> Result<Told, String> {
        if node == self.node() {
            return Ok(self.feed_here(shard, question).await);
        }
        let peer = self.links.peer(node).filter(|peer| peer.is_up());
        let peer = peer.ok_or_else(|| format!("node {node} cannot be reached"))?;
        let wait = match &question {
            Question::Page { wait_ms, .. } => Duration::from_millis(u64::from(*wait_ms)),
            Question::Since(_) | Question::End | Question::Committed => Duration::ZERO,
        };
        let request = pb::ReadFeedRequest {
            shard,
            question: codec::encode(&question),
        };
        match timeout(wait + ANSWER_MAX, peer.client.clone().read_feed(request)).await {
            Ok(Ok(answer)) => codec::decode(&answer.into_inner().answer).map_err(|error| error.to_string()),
            Ok(Err(status)) => Err(format!("node {node}: {}", status.message())),
            Err(_) => Err(format!("node {node} does not answer")),
        }
    }

    /// A position of a shard's feed, from whoever can say it, the leader first where it is the end.
    pub(crate) async fn feed_position(
        self: &Arc<Self>,
        shard: u32,
        question: &Question,
        within: Duration,
    ) -> Result<Position, Error> {
        let until = Instant::now() + within;
        let mut last = match question {
            Question::Committed => "nobody leads it".to_owned(),
            Question::Page { .. } | Question::Since(_) | Question::End => "nobody has a replica of it".to_owned(),
        };
        loop {
            for node in self.feed_order(shard, matches!(question, Question::End | Question::Committed)) {
                match self.feed_at(node, shard, question.clone()).await {
                    Ok(Told::Position(position)) => return Ok(position),
                    Ok(Told::NoPage(reason)) => last = reason.to_string(),
                    Ok(Told::NotHere | Told::Page(_)) => {}
                    Err(reason) => last = reason,
                }
            }
            if Instant::now() >= until {
                return Err(Error::Unavailable {
                    reason: format!("the feed of shard {shard} cannot be read: {last}"),
                    retry_after: ROUND_PAUSE,
                });
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    /// The nodes that may have the feed of a shard, in the order in which they are asked: this one, the leader, the others.
    pub(crate) fn feed_order(&self, shard: u32, leader_first: bool) -> Vec<NodeId> {
        let own = self.replica(shard).map(|_| self.node());
        let leader = self.routes[shard as usize].borrow().leader;
        let (first, second) = if leader_first { (leader, own) } else { (own, leader) };
        let map = self.map();
        let home = map.home(shard).iter().map(|id| node_of(*id));
        let mut order: Vec<NodeId> = Vec::new();
        for node in first.into_iter().chain(second).chain(home) {
            if !order.contains(&node) {
                order.push(node);
            }
        }
        order
    }
}
