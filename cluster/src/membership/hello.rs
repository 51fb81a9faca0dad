//! Who is there. Before a node with a new folder takes part, it introduces itself to its peers: one of them may know it
//! under another nonce, and then the folder was lost and the node must come back with new replicas. A node that has begun
//! goes on introducing itself, and hears from its peers whether they are well.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use proto::cluster::v1 as pb;
use tokio::time::{sleep, timeout};

use crate::{
    codec,
    config::NodeId,
    engine::schema::card_of,
    schema::card::Card,
    store::identity::Identity,
    transport::links::{Links, Peer},
};

/// Time between two rounds of introductions, at the start and later.
const FIRST_ROUND_INTERVAL: Duration = Duration::from_millis(100);
const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// How long a peer may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Whether a folder is the first of its kind.
pub(crate) enum First {
    Yes {
        /// What the peers' builds can read.
        cards: BTreeMap<NodeId, Arc<Card>>,
    },
    No,
}

/// Introduces a node with a new folder, until it is known whether the folder is the first of its kind. Says whether it is.
///
/// A first folder needs the word of every peer: the one that does not answer may be the one that knows. A lost folder is
/// known by the word of one.
pub(crate) async fn introduce_first(identity: &Identity, links: &Links, card: &Card) -> Result<First, String> {
    let mut rounds = 0_u32;
    loop {
        let answers = introduce(identity, links, codec::encode(card)).await;
        let (mut silent, mut cards) = (Vec::new(), BTreeMap::new());
        for (node, _, answer) in answers {
            match answer {
                Some(Ok(hello)) if hello.known_under_other_nonce => return Ok(First::No),
                Some(Ok(hello)) => cards.extend(card_of(&hello.schema)?.map(|card| (node, Arc::new(card)))),
                Some(Err(reason)) => return Err(format!("node {node} refuses this node: {reason}")),
                None => silent.push(node),
            }
        }
        if silent.is_empty() {
            return Ok(First::Yes { cards });
        }
        rounds += 1;
        if rounds.is_multiple_of(50) {
            tracing::info!(?silent, "waiting for all nodes of the new cluster to answer");
        }
        sleep(FIRST_ROUND_INTERVAL).await;
    }
}

/// Introduces a node that was here before with another build; or says which peer refuses it, and why.
pub(crate) async fn introduce_build(identity: &Identity, links: &Links, card: &Card) -> Result<(), String> {
    for (node, _, answer) in introduce(identity, links, codec::encode(card)).await {
        if let Some(Err(reason)) = answer {
            return Err(format!("node {node} refuses this node: {reason}"));
        }
    }
    Ok(())
}

/// Introduces this node for as long as it runs.
pub(crate) async fn keep_introducing(identity: Arc<Identity>, links: Arc<Links>) {
    loop {
        for (_, peer, answer) in introduce(&identity, &links, Bytes::new()).await {
            if let Some(Ok(hello)) = answer {
                peer.set_unwell(hello.is_unwell);
            }
        }
        sleep(ROUND_INTERVAL).await;
    }
}

type Answer = Option<Result<pb::HelloResponse, String>>;

/// One round: what each peer answers; `None` for one that does not.
async fn introduce(identity: &Identity, links: &Links, schema: Bytes) -> Vec<(NodeId, Arc<Peer>, Answer)> {
    let request = pb::HelloRequest {
        node: u32::from(identity.node()),
        nonce: identity.nonce(),
        has_begun: identity.is_begun(),
        schema,
    };
    join_all(links.all().into_iter().map(|(node, peer)| {
        let (mut client, request) = (peer.client.clone(), request.clone());
        async move {
            let answer = match timeout(ANSWER_MAX, client.hello(request)).await {
                Ok(Ok(response)) => Some(Ok(response.into_inner())),
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    Some(Err(status.message().to_owned()))
                }
                Ok(Err(_)) | Err(_) => None,
            };
            (node, peer, answer)
        }
    }))
    .await
}
