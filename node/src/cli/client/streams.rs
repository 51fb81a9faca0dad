//! Streams that outlive the node that serves them: begun anew where they were, until they end or a node says that they never will.

use std::time::Duration;

use proto::cluster::v1::{ScanEntitiesRequest, ScannedEntity, admin_client::AdminClient};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};

use super::{CallError, Client, MESSAGE_BYTES_MAX};
use crate::cli::failure::{Failure, refusal_text};

/// Streams that may break in a row without anything new between them.
const BROKEN_MAX: u32 = 40;
/// The pause before the next stream.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the stream of a scan may stand still.
const ITEM_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one stream after the other until one ends by itself. `place` is where the reader is: what the last stream has brought
/// counts if it has moved on.
pub(crate) async fn follow<P: Clone + PartialEq>(
    place: &mut P,
    read: impl AsyncFnMut(&mut P) -> Result<(), Status>,
) -> Result<(), Failure> {
    follow_after(PAUSE, place, read).await
}

async fn follow_after<P: Clone + PartialEq>(
    pause: Duration,
    place: &mut P,
    mut read: impl AsyncFnMut(&mut P) -> Result<(), Status>,
) -> Result<(), Failure> {
    let mut broken = 0;
    loop {
        let before = place.clone();
        let status = match read(place).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        if is_final(&status) {
            return Err(Failure::no(refusal_text(&status)));
        }
        broken = if *place == before { broken + 1 } else { 0 };
        if broken >= BROKEN_MAX {
            let (after, last) = (pause * broken, Some(status));
            return Err(CallError::Unknown { after, last }.into());
        }
        sleep(pause).await;
    }
}

/// The entities of a shard, of one kind or (empty) of all, at most so many. Read from the start again when the leader
/// changes or a node dies meanwhile.
pub(crate) async fn scan(client: &Client, shard: u32, kind: &str, limit: usize) -> Result<Vec<ScannedEntity>, Failure> {
    let mut tries = 0;
    loop {
        let status = match scan_once(client, shard, kind, limit).await {
            Ok(entities) => return Ok(entities),
            Err(status) => status,
        };
        tries += 1;
        if tries == BROKEN_MAX || is_final(&status) {
            let reason = refusal_text(&status);
            return Err(Failure::unreachable(format!("shard {shard} cannot be read: {reason}"))
                .help("look for shards without a leader with `playhouse status`"));
        }
        sleep(PAUSE).await;
    }
}

async fn scan_once(client: &Client, shard: u32, kind: &str, limit: usize) -> Result<Vec<ScannedEntity>, Status> {
    let late = |_| Status::deadline_exceeded("the node stopped answering");
    let mut request = Request::new(ScanEntitiesRequest {
        shard,
        kind: kind.to_owned(),
    });
    client.tell_caller(request.metadata_mut());
    let mut admin = AdminClient::new(client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let stream = timeout(ITEM_TIMEOUT, admin.scan_entities(request)).await;
    let mut stream = stream.map_err(late)??.into_inner();
    let mut entities = Vec::new();
    while entities.len() < limit
        && let Some(entity) = timeout(ITEM_TIMEOUT, stream.message()).await.map_err(late)??
    {
        entities.push(entity);
    }
    Ok(entities)
}

/// Whether a stream that ended so would end so again.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_goes_on_where_it_broke_and_is_given_up_when_nothing_comes() {
        let mut place = 0;
        let ended = follow_after(Duration::ZERO, &mut place, async |place: &mut u32| {
            *place += 1;
            if *place < 100 {
                return Err(Status::unavailable("the node is gone"));
            }
            Ok(())
        });
        ended.await.expect("each stream has brought something");
        assert_eq!(place, 100);

        let mut streams = 0;
        let ended = follow_after(Duration::ZERO, &mut place, async |_: &mut u32| {
            streams += 1;
            Err(Status::unavailable("the node is gone"))
        });
        ended.await.expect_err("nothing came");
        assert_eq!(streams, BROKEN_MAX);

        streams = 0;
        let ended = follow_after(Duration::ZERO, &mut place, async |_: &mut u32| {
            streams += 1;
            Err(Status::not_found("there is no order 42"))
        });
        ended.await.expect_err("it never will");
        assert_eq!(streams, 1);
    }
}
