//! Reads every entity of every shard.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::cluster::v1::StatusRequest;

use super::checks::Seen;
use crate::cli::{
    client::{Client, streams::scan},
    failure::Failure,
};

/// Shards read at once.
const SHARDS_IN_FLIGHT_MAX: usize = 4;

/// Everything of every shard.
pub(super) async fn everything(client: &Client) -> Result<Seen, Failure> {
    let shards = client.status(StatusRequest {}).await?.shards;
    let reads = shards.iter().map(|shard| scan(client, shard.id, "", usize::MAX));
    let mut reads = stream::iter(reads).buffer_unordered(SHARDS_IN_FLIGHT_MAX);
    let mut seen = Seen::default();
    while let Some(entities) = reads.try_next().await? {
        for entity in entities {
            seen.add(&entity)?;
        }
    }
    Ok(seen)
}
