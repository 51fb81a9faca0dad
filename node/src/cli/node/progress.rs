//! How far a change of the nodes has come: how many shards are not yet where they are to be.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use proto::cluster::v1::{NodeStatus, ShardStatus, StatusRequest, StatusResponse};
use tokio::time::{Instant, sleep};

use crate::cli::{Client, Failure};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A replica that is so many entries behind is as good as one that is not.
const LAG_MAX: u64 = 64;

/// All shards, the one with the roster too.
pub(super) fn shards(status: &StatusResponse) -> impl Iterator<Item = &ShardStatus> {
    status.shards.iter().chain(&status.system)
}

/// Whether a shard lives where it is to live, is led from there, and has no replica far behind.
pub(super) fn is_at_home(shard: &ShardStatus) -> bool {
    let home: BTreeSet<u32> = shard.home.iter().copied().collect();
    home == shard.replicas.iter().copied().collect()
        && shard.home.first() == Some(&shard.leader)
        && shard.lag.values().all(|lag| *lag <= LAG_MAX)
}

/// Whether every node is there and every shard at home. A node that is unwell leads nothing for a while: that is waited
/// for.
pub(crate) fn is_settled(status: &StatusResponse) -> bool {
    status.nodes.iter().all(|node| node.up) && shards(status).all(is_at_home)
}

/// Whether every node is there and every shard lives where it is to live, and is led by whichever of its nodes.
pub(crate) fn is_led(status: &StatusResponse) -> bool {
    let is_well = |shard: &ShardStatus| {
        let leads = ShardStatus {
            home: std::iter::once(shard.leader)
                .chain(shard.home.iter().copied().filter(|node| *node != shard.leader))
                .collect(),
            ..shard.clone()
        };
        is_at_home(&leads)
    };
    status.nodes.iter().all(|node| node.up) && shards(status).all(is_well)
}

/// How many shards a node is still part of.
pub(super) fn shards_on(status: &StatusResponse, node: u32) -> usize {
    shards(status)
        .filter(|shard| shard.home.contains(&node) || shard.replicas.contains(&node))
        .count()
}

/// A node of the cluster.
pub(super) fn node(status: &StatusResponse, node: u32) -> Option<&NodeStatus> {
    status.nodes.iter().find(|other| other.id == node)
}

/// Looks again and again until `left` says that nothing is left, and shows how many there are meanwhile. Says what to do if
/// that takes longer than `limit`.
pub(crate) async fn until(
    client: &Client,
    limit: Duration,
    what: impl AsRef<str>,
    mut left: impl FnMut(&StatusResponse) -> usize,
) -> Result<(), Failure> {
    let what = what.as_ref();
    let bar = bar(what);
    let deadline = Instant::now() + limit;
    let mut most = 0;
    loop {
        let count = client.status(StatusRequest {}).await.ok().map(|status| left(&status));
        match count {
            Some(0) => {
                bar.finish_and_clear();
                return Ok(());
            }
            Some(count) => {
                most = most.max(count);
                bar.set_length(most as u64);
                bar.set_position((most - count) as u64);
            }
            None => bar.tick(),
        }
        if Instant::now() > deadline {
            bar.finish_and_clear();
            let left = count.map_or_else(String::new, |count| format!(" ({count} left)"));
            return Err(
                Failure::no(format!("{what}: not done after {} s{left}", limit.as_secs()))
                    .help("it goes on by itself; `playhouse status` shows what moves, and whether a node is down"),
            );
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn bar(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {bar:30} {pos}/{len}")
        .expect("the template is a constant and well formed");
    ProgressBar::new(0).with_style(style).with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(leader: u32, replicas: &[u32], home: &[u32]) -> ShardStatus {
        ShardStatus {
            leader,
            replicas: replicas.to_vec(),
            home: home.to_vec(),
            ..ShardStatus::default()
        }
    }

    #[test]
    fn a_shard_is_at_home_once_it_lives_and_is_led_there() {
        assert!(is_at_home(&shard(2, &[1, 2, 3], &[2, 3, 1])));
        assert!(!is_at_home(&shard(1, &[1, 2, 3], &[2, 3, 1])), "led from elsewhere");
        assert!(!is_at_home(&shard(2, &[1, 2, 3, 4], &[2, 3, 4])), "on its way");
        let elsewhere = |leader| StatusResponse {
            shards: vec![shard(leader, &[1, 2, 3], &[2, 3, 1])],
            ..StatusResponse::default()
        };
        assert!(is_led(&elsewhere(1)) && !is_settled(&elsewhere(1)));
        assert!(!is_led(&elsewhere(0)) && !is_led(&elsewhere(4)));
        assert!(!is_at_home(&shard(0, &[1, 2, 3], &[2, 3, 1])), "without a leader");
    }

    #[test]
    fn a_node_is_empty_once_it_neither_has_nor_is_to_have_anything() {
        let status = StatusResponse {
            shards: vec![shard(2, &[2, 3], &[2, 3]), shard(2, &[1, 2], &[2, 3])],
            system: Some(shard(2, &[2, 3], &[2, 1])),
            ..StatusResponse::default()
        };
        assert_eq!(shards_on(&status, 1), 2);
        assert_eq!(shards_on(&status, 4), 0);
    }
}
