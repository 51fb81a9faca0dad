//! Log lines over gRPC: read the latest, follow those that come, set which are written; of all nodes.
//!
//! A stream that follows all nodes has one task for each of them. What they send waits for a moment and leaves by its time;
//! a node that is away is tried again, and goes on behind the last line that was seen of it.

use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use cluster::config::NodeId;
use futures::{Stream, StreamExt as _};
use proto::telemetry::v1::{self as pb, follow_logs_response::Said, logs_client::LogsClient};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{members, request::Edge, status::Fault};
use crate::telemetry::logs::{self, line};

/// Lines of one answer, if nobody says and at most.
const READ_DEFAULT: u32 = 200;
const READ_MAX: u32 = 5_000;
/// Lines that may wait for the reader of a stream.
const WAITING_MAX: usize = 1_024;
/// A line waits so long for earlier ones of other nodes.
const SETTLE: Duration = Duration::from_millis(150);
/// Between two attempts to follow a node that is away, and between two looks at who belongs to the cluster.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A node that sends nothing for so long is looked at; its connection may be dead.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The logs service.
#[derive(Clone)]
pub(crate) struct Logs {
    edge: Edge,
}

type Lines = Pin<Box<dyn Stream<Item = Result<pb::FollowLogsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::logs_server::Logs for Logs {
    async fn read(&self, request: Request<pb::ReadLogsRequest>) -> Result<Response<pb::ReadLogsResponse>, Status> {
        let (call, request) = self.edge.receive("Logs/Read", request)?;
        call.answer(self.latest(request).await)
    }

    type FollowStream = Lines;

    async fn follow(&self, request: Request<pb::FollowLogsRequest>) -> Result<Response<Lines>, Status> {
        let (call, request) = self.edge.receive("Logs/Follow", request)?;
        call.answer(self.begin(request))
    }

    async fn set_level(&self, request: Request<pb::SetLevelRequest>) -> Result<Response<pb::SetLevelResponse>, Status> {
        let (call, request) = self.edge.receive("Logs/SetLevel", request)?;
        let set = self.set(&request).await;
        if !request.own_only {
            self.edge
                .did(&call, "set log level", &request.directives, set.as_ref().err())
                .await;
        }
        call.answer(set)
    }
}

/// The latest lines that match, of all nodes, by time; and the nodes that did not answer.
pub(super) async fn lines(edge: &Edge, filter: pb::LogFilter, limit: u32) -> (Vec<pb::LogEntry>, Vec<u32>) {
    let own = filter.clone();
    let here = async { Ok(own_lines(&own, limit)) };
    let is_meant = |node: NodeId| filter.nodes.is_empty() || filter.nodes.contains(&u32::from(node));
    let there = |_, channel| {
        let request = pb::ReadLogsRequest {
            filter: Some(filter.clone()),
            limit,
            own_only: true,
        };
        async move {
            Ok(LogsClient::new(channel)
                .read(members::request(request))
                .await?
                .into_inner()
                .lines)
        }
    };
    let said = members::ask(&edge.cluster, is_meant, members::ANSWER_MAX, here, there).await;
    let unavailable = said.unavailable();
    let mut lines: Vec<pb::LogEntry> = said.answers.into_iter().flat_map(|(_, lines)| lines).collect();
    lines.sort_by_key(|line| (line.at_unix_ns, line.node, line.number));
    let over = lines.len().saturating_sub(limit as usize);
    lines.drain(..over);
    (lines, unavailable)
}

/// A line in fewer words.
pub(super) fn brief(entry: pb::LogEntry) -> pb::LogLine {
    let text = line::human(&entry);
    let start = text.find(": ").map_or(0, |place| place + 2);
    pb::LogLine {
        node: entry.node,
        at_unix_ns: entry.at_unix_ns,
        text: text[start..].to_owned(),
        level: entry.level,
        target: entry.target,
    }
}

fn own_lines(filter: &pb::LogFilter, limit: u32) -> Vec<pb::LogEntry> {
    let Some(log) = logs::log() else { return Vec::new() };
    let lines = log.ring().lines();
    let wanted = lines.iter().filter(|entry| line::is_wanted(entry, filter));
    let mut lines: Vec<pb::LogEntry> = wanted
        .rev()
        .take(limit as usize)
        .map(|entry| (**entry).clone())
        .collect();
    lines.reverse();
    lines
}

impl Logs {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn latest(&self, request: pb::ReadLogsRequest) -> Result<pb::ReadLogsResponse, Fault> {
        let filter = checked(request.filter)?;
        let limit = match request.limit {
            0 => READ_DEFAULT,
            limit => limit.min(READ_MAX),
        };
        if request.own_only {
            return Ok(pb::ReadLogsResponse {
                lines: own_lines(&filter, limit),
                unavailable_nodes: Vec::new(),
            });
        }
        let (lines, unavailable_nodes) = lines(&self.edge, filter, limit).await;
        Ok(pb::ReadLogsResponse {
            lines,
            unavailable_nodes,
        })
    }

    async fn set(&self, request: &pb::SetLevelRequest) -> Result<pb::SetLevelResponse, Fault> {
        let own = u32::from(self.edge.cluster.node());
        let is_meant = |node: u32| request.nodes.is_empty() || request.nodes.contains(&node);
        let here = || -> Result<Vec<pb::NodeLevel>, String> {
            let Some(log) = logs::log().filter(|_| request.own_only || is_meant(own)) else {
                return Ok(Vec::new());
            };
            let before = log.set(&request.directives)?;
            tracing::info!(
                before,
                now = request.directives,
                "which log lines are written was changed"
            );
            Ok(vec![pb::NodeLevel {
                node: own,
                before,
                now: request.directives.clone(),
            }])
        };
        if request.own_only {
            let nodes = here().map_err(|reason| Fault::invalid("directives", reason))?;
            return Ok(pb::SetLevelResponse {
                nodes,
                unavailable_nodes: Vec::new(),
            });
        }
        logs::check(&request.directives).map_err(|reason| Fault::invalid("directives", reason))?;
        let members: Vec<u32> = self
            .edge
            .cluster
            .members()
            .iter()
            .map(|(node, _)| u32::from(*node))
            .collect();
        if let Some(unknown) = request.nodes.iter().find(|node| !members.contains(node)) {
            return Err(Fault::invalid(
                "nodes",
                format!("has {unknown}, which is no member; there are {members:?}"),
            ));
        }
        let there = |_, channel| {
            let asked = pb::SetLevelRequest {
                own_only: true,
                ..request.clone()
            };
            async move {
                Ok(LogsClient::new(channel)
                    .set_level(members::request(asked))
                    .await?
                    .into_inner()
                    .nodes)
            }
        };
        let here = async { here().map_err(Status::internal) };
        let is_meant = |node: NodeId| is_meant(u32::from(node));
        let said = members::ask(&self.edge.cluster, is_meant, members::ANSWER_MAX, here, there).await;
        Ok(pb::SetLevelResponse {
            unavailable_nodes: said.unavailable(),
            nodes: said.answers.into_iter().flat_map(|(_, nodes)| nodes).collect(),
        })
    }

    fn begin(&self, request: pb::FollowLogsRequest) -> Result<Lines, Fault> {
        let filter = checked(request.filter)?;
        let last = request.last.min(READ_MAX);
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        if request.own_only {
            let after = (request.after_run, request.after_number);
            tokio::spawn(follow_own(filter, last, after, sender));
        } else {
            tokio::spawn(follow_all(self.edge.clone(), filter, last, sender));
        }
        Ok(ReceiverStream::new(receiver).map(Ok).boxed())
    }
}

fn checked(filter: Option<pb::LogFilter>) -> Result<pb::LogFilter, Fault> {
    let filter = filter.unwrap_or_default();
    match line::fault(&filter) {
        None => Ok(filter),
        Some((field, reason)) => Err(Fault::invalid(field, reason)),
    }
}

fn said_line(entry: pb::LogEntry) -> pb::FollowLogsResponse {
    pb::FollowLogsResponse {
        said: Some(Said::Line(entry)),
    }
}

fn notice(node: u32, what: &str, dropped: u64, reason: &str) -> pb::FollowLogsResponse {
    pb::FollowLogsResponse {
        said: Some(Said::Notice(pb::FollowNotice {
            node,
            what: what.to_owned(),
            dropped,
            reason: reason.to_owned(),
        })),
    }
}

/// Sends this node's lines until nobody reads them.
async fn follow_own(
    filter: pb::LogFilter,
    last: u32,
    (after_run, after_number): (u64, u64),
    sender: mpsc::Sender<pb::FollowLogsResponse>,
) {
    let Some(log) = logs::log() else { return };
    let (kept, mut news) = log.ring().follow();
    let mut wanted: Vec<Arc<pb::LogEntry>> = kept
        .into_iter()
        .filter(|entry| line::is_wanted(entry, &filter))
        .collect();
    if after_run == 0 {
        let over = wanted.len().saturating_sub(last as usize);
        wanted.drain(..over);
    } else if after_run == log.ring().run() {
        wanted.retain(|entry| entry.number > after_number);
    }
    for entry in wanted {
        if sender.send(said_line((*entry).clone())).await.is_err() {
            return;
        }
    }
    let node = log.ring().node();
    loop {
        let said = tokio::select! {
            news = news.recv() => match news {
                Ok(entry) if line::is_wanted(&entry, &filter) => said_line((*entry).clone()),
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(dropped)) => notice(node, "dropped", dropped, ""),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = sender.closed() => return,
            // An empty message: whoever reads knows that this node is there.
            () = sleep(KEEP_ALIVE / 2) => pb::FollowLogsResponse { said: None },
        };
        if sender.send(said).await.is_err() {
            return;
        }
    }
}

/// Follows every member, and those that come, and sends what they say by its time.
async fn follow_all(edge: Edge, filter: pb::LogFilter, last: u32, sender: mpsc::Sender<pb::FollowLogsResponse>) {
    let (news, mut queue) = mpsc::channel(WAITING_MAX);
    let mut followed: HashSet<NodeId> = HashSet::new();
    let mut waiting: BTreeMap<(u64, u32, u64), (Instant, pb::FollowLogsResponse)> = BTreeMap::new();
    let mut look_at = Instant::now();
    // The latest lines of all nodes, so many in all.
    let (first, _) = if last == 0 {
        (Vec::new(), Vec::new())
    } else {
        lines(&edge, filter.clone(), last).await
    };
    let mut seen: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for entry in first {
        seen.insert(entry.node, (entry.run, entry.number));
        if sender.send(said_line(entry)).await.is_err() {
            return;
        }
    }
    loop {
        if Instant::now() >= look_at {
            look_at = Instant::now() + LOOK_EVERY;
            for (node, _) in edge.cluster.peers() {
                let is_meant = filter.nodes.is_empty() || filter.nodes.contains(&u32::from(node));
                if is_meant && followed.insert(node) {
                    let seen = seen.get(&u32::from(node)).copied();
                    tokio::spawn(follow_member(edge.clone(), node, filter.clone(), seen, news.clone()));
                }
            }
        }
        let next = waiting
            .values()
            .map(|(at, _)| *at)
            .min()
            .unwrap_or(look_at)
            .min(look_at);
        tokio::select! {
            Some(said) = queue.recv() => match &said.said {
                Some(Said::Line(entry)) => {
                    let key = (entry.at_unix_ns, entry.node, entry.number);
                    waiting.insert(key, (Instant::now() + SETTLE, said));
                }
                Some(Said::Notice(_)) => {
                    let sent = sender.send(said).await;
                    if sent.is_err() {
                        return;
                    }
                }
                None => {}
            },
            () = sleep_until(next) => {}
            () = sender.closed() => return,
        }
        // What is due, and what is earlier than that.
        let now = Instant::now();
        let due = waiting
            .iter()
            .filter(|(_, (at, _))| *at <= now || waiting.len() > WAITING_MAX)
            .map(|(key, _)| *key)
            .next_back();
        while let Some(entry) = waiting.first_entry().filter(|entry| Some(*entry.key()) <= due) {
            let (_, said) = entry.remove();
            if sender.send(said).await.is_err() {
                return;
            }
        }
    }
}

/// Follows one member until nobody reads, through its restarts.
async fn follow_member(
    edge: Edge,
    node: NodeId,
    filter: pb::LogFilter,
    seen: Option<(u64, u64)>,
    lines: mpsc::Sender<pb::FollowLogsResponse>,
) {
    let (mut run, mut number) = seen.unwrap_or_default();
    let mut is_away = false;
    while !lines.is_closed() {
        let peer = edge.cluster.peers().into_iter().find(|(id, _)| *id == node);
        // It has left the cluster.
        let Some((_, channel)) = peer else { return };
        let request = pb::FollowLogsRequest {
            filter: Some(filter.clone()),
            last: 0,
            own_only: true,
            after_run: run,
            after_number: number,
        };
        let opened = tokio::time::timeout(KEEP_ALIVE, LogsClient::new(channel).follow(request)).await;
        let reason = match opened {
            Ok(Ok(stream)) => {
                if std::mem::take(&mut is_away) && lines.send(notice(u32::from(node), "back", 0, "")).await.is_err() {
                    return;
                }
                let mut stream = stream.into_inner();
                loop {
                    match tokio::time::timeout(KEEP_ALIVE, stream.next()).await {
                        Ok(Some(Ok(said))) => {
                            if let Some(Said::Line(entry)) = &said.said {
                                (run, number) = (entry.run, entry.number);
                            }
                            if lines.send(said).await.is_err() {
                                return;
                            }
                        }
                        Ok(Some(Err(status))) => break status.message().to_owned(),
                        Ok(None) => break "it has ended the stream".to_owned(),
                        Err(_) => break "it is silent".to_owned(),
                    }
                }
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "it does not answer".to_owned(),
        };
        // A node that starts anew is followed from its first line on.
        run = run.max(1);
        if !std::mem::replace(&mut is_away, true)
            && lines.send(notice(u32::from(node), "away", 0, &reason)).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = sleep(AGAIN_AFTER) => {}
            () = lines.closed() => return,
        }
    }
}
