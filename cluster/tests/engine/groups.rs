//! Consumer groups on three engines: members that share the shards, and what they put aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{
    Services,
    feed::{Batch, ConsumeOptions, Consumer, FeedEvent, FeedFilter, Handed},
};
use tokio::time::{sleep, timeout};

use crate::{
    engines::{free_addresses, start_all},
    streams::{IDS, SHARDS, SOON, registry, write, written},
};

async fn handed(consumer: &mut Consumer) -> Handed {
    let next = timeout(SOON, consumer.next()).await.expect("something comes");
    next.expect("the member goes on").expect("no error")
}

async fn batch(consumer: &mut Consumer) -> Batch {
    loop {
        if let Handed::Batch(batch) = handed(consumer).await {
            return batch;
        }
    }
}

fn member(name: &str) -> ConsumeOptions {
    ConsumeOptions {
        filter: FeedFilter::of_kinds(["counter"]),
        attempts_max: 2,
        lease: Duration::from_secs(2),
        batch_events_max: 8,
        ..ConsumeOptions::new("audit", name)
    }
}

/// Reads until every entity is whole; members may see some twice when shards move, and never a gap.
async fn read_all(consumer: &mut Consumer, seen: &mut BTreeMap<String, u64>, versions: u64) {
    let says = consumer.acknowledger();
    while seen.len() < IDS as usize || seen.values().any(|version| *version < versions) {
        let batch = batch(consumer).await;
        for event in &batch.events {
            let before = seen.entry(event.id.clone()).or_default();
            assert!(event.version <= *before + 1, "{} has no gap", event.id);
            *before = (*before).max(event.version);
        }
        says.done(batch.shard, batch.position).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_shards_and_put_aside_what_they_cannot_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    let cluster = &nodes[0].cluster;
    write(cluster, 0, 4).await;

    let mut ann = nodes[0].cluster.consume(member("ann")).await.expect("joined");
    let Handed::Shards(all) = handed(&mut ann).await else {
        panic!("first it is told its shards")
    };
    assert_eq!(all, [0, 1, 2, 3]);
    let mut seen = BTreeMap::new();
    read_all(&mut ann, &mut seen, written(4)).await;

    // A second member gets half of them, on another node.
    let mut bob = nodes[1].cluster.consume(member("bob")).await.expect("joined");
    let shards = |group: cluster::feed::groups::GroupView| -> BTreeMap<String, BTreeSet<u32>> {
        let mut shards: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for partition in group.partitions {
            shards
                .entry(partition.owner.unwrap_or_default())
                .or_default()
                .insert(partition.shard);
        }
        shards
    };
    let view = || async { cluster.group("audit").await.expect("readable").expect("it is there") };
    timeout(SOON, async {
        loop {
            let shards = shards(view().await);
            if shards.get("ann").map(BTreeSet::len) == Some(2) && shards.get("bob").map(BTreeSet::len) == Some(2) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("each has two");
    let fresh = nodes[2].cluster.clone();
    let writing = tokio::spawn(async move { write(&fresh, 4, 8).await });
    let mut whole = seen.clone();
    let (mut by_ann, mut by_bob) = (seen.clone(), seen.clone());
    while whole.values().any(|version| *version < written(8)) {
        let (consumer_batch, seen, says) = tokio::select! {
            batch = batch(&mut ann) => (batch, &mut by_ann, ann.acknowledger()),
            batch = batch(&mut bob) => (batch, &mut by_bob, bob.acknowledger()),
        };
        for event in &consumer_batch.events {
            let before = seen.entry(event.id.clone()).or_default();
            assert!(event.version <= *before + 1, "{} has no gap", event.id);
            *before = (*before).max(event.version);
            let all = whole.entry(event.id.clone()).or_default();
            *all = (*all).max(event.version);
        }
        says.done(consumer_batch.shard, consumer_batch.position).await;
    }
    writing.await.expect("written");

    // Another one under ann's name: the first is out.
    let mut second = nodes[2].cluster.consume(member("ann")).await.expect("joined");
    let error = timeout(SOON, async {
        loop {
            match ann.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it ends with an error"),
            }
        }
    })
    .await
    .expect("it is told");
    assert!(error.to_string().contains("no member any more"), "{error}");

    // Bob goes; all is for the one that is left. It refuses one record until that is put aside, and the others go on.
    drop(bob);
    timeout(SOON, async {
        while shards(view().await).get("ann").map(BTreeSet::len) != Some(4) {
            // The acknowledgements make it hear of its new shards.
            tokio::select! {
                batch = batch(&mut second) => second.acknowledger().done(batch.shard, batch.position).await,
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
    })
    .await
    .expect("it has all four");
    write(cluster, 8, 9).await;
    let mut attempts = Vec::new();
    let mut done = BTreeSet::new();
    while done.len() < IDS as usize {
        let batch = batch(&mut second).await;
        let says = second.acknowledger();
        let poison = batch
            .events
            .iter()
            .find(|event| event.id == "c3" && event.version > written(8));
        let before: Vec<&FeedEvent> = match poison {
            Some(poison) => batch
                .events
                .iter()
                .take_while(|event| event.position < poison.position)
                .collect(),
            None => batch.events.iter().collect(),
        };
        done.extend(
            before
                .iter()
                .filter(|event| event.version > written(8))
                .map(|event| event.id.clone()),
        );
        match poison {
            Some(poison) => {
                let is_first = batch.events[0].position == poison.position;
                attempts.push(if is_first { batch.attempt } else { 1 });
                done.insert(poison.id.clone());
                says.refuse(batch.shard, poison.position, "no address").await;
            }
            None => says.done(batch.shard, batch.position).await,
        }
    }
    let letters = timeout(SOON, async {
        loop {
            let letters = cluster
                .dead_letters("audit")
                .await
                .expect("readable")
                .expect("it is there");
            if !letters.is_empty() {
                break letters;
            }
            if let Ok(batch) = timeout(Duration::from_millis(100), batch(&mut second)).await {
                let says = second.acknowledger();
                match batch.events.iter().find(|event| event.id == "c3") {
                    Some(poison) => {
                        attempts.push(batch.attempt);
                        says.refuse(batch.shard, poison.position, "no address").await;
                    }
                    None => says.done(batch.shard, batch.position).await,
                }
            }
        }
    })
    .await
    .expect("it is put aside");
    assert_eq!(attempts, [1, 2]);
    assert_eq!(
        (letters.len(), &*letters[0].reason, letters[0].attempts),
        (1, "no address", 2)
    );
    let shown = cluster
        .dead_letter("audit", letters[0].id)
        .await
        .expect("readable")
        .expect("there");
    assert_eq!((&*shown.events[0].id, shown.events[0].version), ("c3", written(8) + 1));

    // Retried and refused, retried and done.
    for refused in [true, false] {
        cluster
            .lift_dead_letter("audit", letters[0].id, false)
            .await
            .expect("to be retried");
        let retried = timeout(SOON, async {
            loop {
                let batch = batch(&mut second).await;
                match batch.dead_letter {
                    Some(id) => break (id, batch),
                    None => second.acknowledger().done(batch.shard, batch.position).await,
                }
            }
        });
        let (id, batch) = retried.await.expect("it comes again");
        assert_eq!((id, batch.events[0].version), (letters[0].id, written(8) + 1));
        if refused {
            second.acknowledger().dead_refused(id, "still none").await;
            timeout(SOON, async {
                while cluster.dead_letters("audit").await.expect("readable").expect("there")[0].reason != "still none" {
                    sleep(Duration::from_millis(50)).await;
                }
            })
            .await
            .expect("it is put aside again");
        } else {
            second.acknowledger().dead_done(id).await;
        }
    }
    timeout(SOON, async {
        while view().await.dead_letters > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is gone");

    let error = cluster.delete_group("audit").await.expect_err("it has a member");
    assert!(error.to_string().contains("1 members; stop them first"), "{error}");
    drop(second);
    timeout(SOON, async {
        while cluster.delete_group("audit").await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("a group without members can be deleted");
    assert!(cluster.groups().await.expect("readable").is_empty());
    for node in nodes {
        node.stop().await;
    }
}
