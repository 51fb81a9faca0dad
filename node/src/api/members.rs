//! The same question to every member of the cluster, this node included.

use std::{net::SocketAddr, time::Duration};

use cluster::{Cluster, config::NodeId};
use futures::future::join_all;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// How long a member may take to be reached, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What each member has said, and the members that have not.
pub(super) struct Said<T> {
    pub(super) answers: Vec<(NodeId, T)>,
    pub(super) unavailable: Vec<u32>,
}

/// A connection to a member, made with its first use.
pub(super) fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address is a URL")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect_lazy()
}

/// Asks all members at once. `here` answers for this node.
pub(super) async fn ask_all<T, H, F, W>(cluster: &Cluster, here: H, there: F) -> Said<T>
where
    H: Future<Output = Result<T, Status>>,
    F: Fn(NodeId, Channel) -> W,
    W: Future<Output = Result<T, Status>>,
{
    let own = cluster.node();
    let members = cluster.members().into_iter().filter(|(node, _)| *node != own);
    let others = join_all(members.map(|(node, address)| {
        let asked = there(node, channel(address));
        async move {
            let answer = tokio::time::timeout(ANSWER_MAX, asked).await;
            (
                node,
                answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
            )
        }
    }));
    let (here, others) = tokio::join!(here, others);
    let mut said = Said {
        answers: Vec::new(),
        unavailable: Vec::new(),
    };
    for (node, answer) in std::iter::once((own, here)).chain(others) {
        match answer {
            Ok(answer) => said.answers.push((node, answer)),
            Err(_) => said.unavailable.push(u32::from(node)),
        }
    }
    said.unavailable.sort_unstable();
    said
}

/// A message for one member.
pub(super) fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    request
}
