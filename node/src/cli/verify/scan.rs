//! Reads every entity of every shard.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::cluster::v1::{ScanEntitiesRequest, ScannedEntity, StatusRequest, admin_client::AdminClient};
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::checks::Seen;
use crate::cli::{
    client::{Client, MESSAGE_BYTES_MAX},
    failure::{Failure, refusal_text},
};

/// Shards read at once.
const SHARDS_IN_FLIGHT_MAX: usize = 4;
/// How often a shard is read from its start, when its leader changes or a node dies meanwhile.
const TRIES_MAX: u32 = 40;
/// Before the next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long a stream may stand still.
const ITEM_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything of every shard.
pub(super) async fn everything(client: &Client) -> Result<Seen, Failure> {
    let shards = client.status(StatusRequest {}).await?.shards;
    let mut reads =
        stream::iter(shards.iter().map(|shard| whole_shard(client, shard.id))).buffer_unordered(SHARDS_IN_FLIGHT_MAX);
    let mut seen = Seen::default();
    while let Some(entities) = reads.try_next().await? {
        for entity in entities {
            seen.add(&entity)?;
        }
    }
    Ok(seen)
}

async fn whole_shard(client: &Client, shard: u32) -> Result<Vec<ScannedEntity>, Failure> {
    let mut tries = 0;
    loop {
        match read(client, shard).await {
            Ok(entities) => return Ok(entities),
            Err(status) => {
                tries += 1;
                if tries == TRIES_MAX {
                    let reason = refusal_text(&status);
                    return Err(Failure::unreachable(format!("shard {shard} cannot be read: {reason}"))
                        .help("look for shards without a leader with `playhouse status`"));
                }
                sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

async fn read(client: &Client, shard: u32) -> Result<Vec<ScannedEntity>, Status> {
    let late = |_| Status::deadline_exceeded("the node stopped answering");
    let mut admin = AdminClient::new(client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = ScanEntitiesRequest {
        shard,
        kind: String::new(),
    };
    let mut stream = timeout(ITEM_TIMEOUT, admin.scan_entities(request))
        .await
        .map_err(late)??
        .into_inner();
    let mut entities = Vec::new();
    while let Some(entity) = timeout(ITEM_TIMEOUT, stream.message()).await.map_err(late)?? {
        entities.push(entity);
    }
    Ok(entities)
}
