//! The same question to members of the cluster, this node included.

use std::time::Duration;

use cluster::{Cluster, config::NodeId};
use futures::future::join_all;
use tokio::time::timeout;
use tonic::{Request, Status, transport::Channel};

/// How long a member may take to look something up.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What each member has said, and why the others have not; both by their numbers.
pub(super) struct Said<T> {
    pub(super) answers: Vec<(NodeId, T)>,
    pub(super) unanswered: Vec<(NodeId, String)>,
}

impl<T> Said<T> {
    /// The members that have not answered.
    pub(super) fn unavailable(&self) -> Vec<u32> {
        self.unanswered.iter().map(|(node, _)| u32::from(*node)).collect()
    }
}

/// Asks all members at once, as [`ask`] does.
pub(super) async fn ask_all<T, W>(
    cluster: &Cluster,
    here: impl Future<Output = Result<T, Status>>,
    there: impl Fn(NodeId, Channel) -> W,
) -> Said<T>
where
    W: Future<Output = Result<T, Status>>,
{
    ask(cluster, |_| true, ANSWER_MAX, here, there).await
}

/// Asks the members that are meant, at once, and waits so long for each. `here` answers for this node.
pub(super) async fn ask<T, W>(
    cluster: &Cluster,
    is_meant: impl Fn(NodeId) -> bool,
    within: Duration,
    here: impl Future<Output = Result<T, Status>>,
    there: impl Fn(NodeId, Channel) -> W,
) -> Said<T>
where
    W: Future<Output = Result<T, Status>>,
{
    let own = cluster.node();
    let peers = cluster.peers().into_iter().filter(|(node, _)| is_meant(*node));
    let others = join_all(peers.map(|(node, channel)| {
        let asked = timeout(within, there(node, channel));
        async move {
            let late = |_| {
                let ms = within.as_millis();
                Err(Status::deadline_exceeded(format!("no answer within {ms} ms")))
            };
            (node, asked.await.unwrap_or_else(late))
        }
    }));
    let here = async { if is_meant(own) { Some((own, here.await)) } else { None } };
    let (here, others) = tokio::join!(here, others);
    let mut all: Vec<_> = here.into_iter().chain(others).collect();
    all.sort_by_key(|(node, _)| *node);
    let mut said = Said {
        answers: Vec::new(),
        unanswered: Vec::new(),
    };
    for (node, answer) in all {
        match answer {
            Ok(answer) => said.answers.push((node, answer)),
            Err(status) => said.unanswered.push((node, status.message().to_owned())),
        }
    }
    said
}

/// A message for one member.
pub(super) fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    request
}
