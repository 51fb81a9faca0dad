//! How a node asks to be let in: a new one, or one that lost its folder.

use std::{net::SocketAddr, time::Duration};

use proto::cluster::v1 as pb;
use tokio::time::{sleep, timeout};

use super::map::Map;
use crate::{codec, schema::card::Card, store::identity::Identity, transport::links::client};

/// How long a member may take to answer: it asks the roster.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Time between two rounds of asking.
const ROUND_INTERVAL: Duration = Duration::from_millis(200);

/// Asks the nodes at these addresses, one after another and again, until one of them has let this node in or refuses it for
/// good. Answers with the cluster's map and its version.
pub(crate) async fn join(
    identity: &Identity,
    own: SocketAddr,
    seeds: &[SocketAddr],
    is_lost: bool,
    card: &Card,
) -> Result<(u64, Map), String> {
    let request = pb::JoinRequest {
        node: u32::from(identity.node()),
        address: own.to_string(),
        nonce: identity.nonce(),
        is_lost,
        schema: codec::encode(card),
    };
    let mut rounds = 0_u32;
    loop {
        let mut last = String::new();
        for seed in seeds {
            let mut client = client(*seed);
            match timeout(ANSWER_MAX, client.join(request.clone())).await {
                Ok(Ok(response)) => {
                    let pb::JoinResponse { map, version } = response.into_inner();
                    let map = codec::decode(&map)
                        .map_err(|error| format!("{seed} runs another version of this program: {error}"))?;
                    return Ok((version, map));
                }
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    return Err(status.message().to_owned());
                }
                Ok(Err(status)) => last = format!("{seed}: {}", status.message()),
                Err(_) => last = format!("{seed} does not answer"),
            }
        }
        rounds += 1;
        if rounds.is_multiple_of(25) {
            tracing::warn!(
                reason = last,
                "waiting for a member of the cluster that lets this node in"
            );
        }
        sleep(ROUND_INTERVAL).await;
    }
}
