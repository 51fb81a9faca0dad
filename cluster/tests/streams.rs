//! Event streams on three engines: what a subscriber and a consumer group see while everything around them changes.

mod engines;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{
    Cluster, Context, Decision, Entity, EntityKey, Error, NoToken, Outcome, Registry, Services,
    feed::{
        Batch, ConsumeOptions, Consumer, Cursor, Delivery, FeedEvent, FeedFilter, Handed, Start, SubscribeOptions,
        Subscription,
    },
};
use engines::{free_addresses, request, start, start_all, start_with};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

/// Counts; each of its commands has as many events as it says.
struct Counter;
/// The same under another name.
struct Other;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Count(u64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Counted { to: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Rejection {
    Nothing,
}

macro_rules! counts {
    ($name:ident, $kind:literal) => {
        impl Entity for $name {
            const KIND: &'static str = $kind;
            type State = State;
            type Command = Command;
            type Event = Event;
            type Reply = u64;
            type Rejection = Rejection;
            type Token = NoToken;

            fn decide(state: &State, Command::Count(n): Command, _: &Context) -> Result<Decision<Self>, Rejection> {
                if n == 0 {
                    return Err(Rejection::Nothing);
                }
                let mut decision = Decision::reply(state.count + n);
                for n in 1..=n {
                    decision = decision.event(Event::Counted { to: state.count + n });
                }
                Ok(decision)
            }

            fn evolve(state: &mut State, Event::Counted { to }: &Event) {
                state.count = *to;
            }

            fn resume(token: NoToken, _: Outcome) -> Command {
                match token {}
            }
        }
    };
}
counts!(Counter, "counter");
counts!(Other, "other");

const SHARDS: u32 = 4;
const IDS: u64 = 12;
/// What is expected comes within this time, or never.
const SOON: Duration = Duration::from_secs(30);

fn registry() -> Registry {
    Registry::new().with::<Counter>().with::<Other>()
}

/// So many commands for each of the entities, in turn.
async fn write(cluster: &Cluster, from: u64, to: u64) {
    for n in from..to {
        let writes = (0..IDS).map(|id| {
            let name = format!("c{id}");
            let cluster = cluster.clone();
            async move {
                let count = Command::Count(1 + n % 2);
                let told = cluster
                    .ask::<Counter>(&name, &count, &request(&format!("w-{n}-{id}")))
                    .await;
                told.expect("counted");
            }
        });
        futures::future::join_all(writes).await;
    }
}

/// How many events that was for each entity.
fn written(to: u64) -> u64 {
    (0..to).map(|n| 1 + n % 2).sum()
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let next = timeout(SOON, subscription.next()).await.expect("something comes");
    next.expect("the subscription goes on").expect("no error")
}

/// What a subscriber keeps: how far it is with each entity. Every event must be the next one.
#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn take(&mut self, events: &[FeedEvent]) {
        for event in events {
            let before = self.0.entry(format!("{}/{}", event.kind, event.id)).or_default();
            assert_eq!(
                event.version,
                *before + 1,
                "{}/{} without gap or repeat",
                event.kind,
                event.id
            );
            assert_eq!(
                (&*event.name, event.json["to"].as_u64()),
                ("Counted", Some(event.version))
            );
            *before = event.version;
        }
    }

    fn is_whole(&self, ids: u64, versions: u64) -> bool {
        self.0.len() as u64 == ids && self.0.values().all(|version| *version == versions)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_exactly_behind_what_was_seen_on_any_node_while_nodes_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    let writer = nodes[1].cluster.clone();
    let writing = tokio::spawn(async move { write(&writer, 0, 60).await });
    let (mut seen, mut from) = (Seen::default(), Start::Beginning);
    for round in 0.. {
        // One that leads is stopped and comes back; the others serve meanwhile.
        if round == 4 {
            nodes.remove(0).stop().await;
        }
        if round == 12 {
            let node = start(1, &addresses, folder.path(), SHARDS, registry(), Services::new()).await;
            nodes.insert(0, node);
        }
        let options = SubscribeOptions {
            from: from.clone(),
            filter: FeedFilter::of_kinds(["counter"]),
            batch_events_max: 1 + round % 40,
            // Rounds that find nothing new are short.
            heartbeat: Duration::from_millis(50),
            ..SubscribeOptions::default()
        };
        let node = &nodes[round % nodes.len()];
        let mut subscription = node.cluster.subscribe(options).await.expect("subscribed");
        for _ in 0..=(round % 7) {
            let delivery = next(&mut subscription).await;
            seen.take(&delivery.events);
            let text = delivery.cursor.to_string();
            from = Start::Cursor(text.parse().expect("a cursor reads back"));
        }
        if round > 12 && seen.is_whole(IDS, written(60)) {
            break;
        }
    }
    writing.await.expect("all was written");
    // Whoever begins now sees the same from the beginning, on each node; what is older than the tail comes from the store.
    for node in &nodes {
        let options = SubscribeOptions {
            from: Start::Beginning,
            stop_at_end: true,
            ..SubscribeOptions::default()
        };
        let mut subscription = node.cluster.subscribe(options).await.expect("subscribed");
        let mut again = Seen::default();
        while let Some(delivery) = timeout(SOON, subscription.next()).await.expect("it ends") {
            again.take(&delivery.expect("no error").events);
        }
        assert!(again.is_whole(IDS, written(60)), "{:?}", again.0);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_what_they_ask_for_and_are_told_what_they_cannot_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(1);
    let other_folder = tempfile::tempdir().expect("a folder");
    let others = start_all(&free_addresses(1), other_folder.path(), SHARDS, &registry(), |_| {
        Services::new()
    })
    .await;
    let limited = start_with(1, &addresses, folder.path(), SHARDS, registry(), &|limits| {
        limits.subscriptions_max = 3;
        limits.checkpoint_interval_ms = 200;
    })
    .await;
    let cluster = &limited.cluster;
    cluster.ready(SOON).await.expect("it has leaders");
    write(cluster, 0, 2).await;
    sleep(Duration::from_millis(20)).await;
    let noon_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    let now = cluster.subscribe(SubscribeOptions::default()).await;
    let mut now = now.expect("subscribed");
    cluster
        .ask::<Other>("c1", &Command::Count(2), &request("o-1"))
        .await
        .expect("counted");
    cluster
        .ask::<Counter>("c1", &Command::Count(1), &request("c-1"))
        .await
        .expect("counted");

    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivery = next(&mut now).await;
        seen.extend(delivery.events);
    }
    let names: Vec<(String, u64)> = seen.iter().map(|event| (event.kind.clone(), event.version)).collect();
    assert_eq!(
        names,
        [
            ("other".to_owned(), 1),
            ("other".to_owned(), 2),
            ("counter".to_owned(), 4)
        ],
        "entities with one id share a shard, so their events have an order"
    );
    assert_eq!((&*seen[0].request_id, seen[0].position), ("o-1", seen[1].position));
    drop(now);

    let whole = |from: Start, filter: FeedFilter| {
        let options = SubscribeOptions {
            from,
            filter,
            stop_at_end: true,
            ..SubscribeOptions::default()
        };
        async move {
            let mut events = Vec::new();
            let mut subscription = cluster.subscribe(options).await.expect("subscribed");
            while let Some(delivery) = timeout(SOON, subscription.next()).await.expect("it ends") {
                events.extend(delivery.expect("no error").events);
            }
            events
        }
    };
    assert_eq!(
        whole(Start::Time(noon_ms), FeedFilter::default()).await,
        seen,
        "since that time"
    );
    assert_eq!(
        whole(Start::Beginning, FeedFilter::of_kinds(["other"])).await,
        seen[..2]
    );
    let one = FeedFilter::of_entity(EntityKey::new("counter", "c1").expect("a key"));
    assert_eq!(whole(Start::Beginning, one).await.len(), 4);

    let refused = |options: SubscribeOptions| async move {
        match cluster.subscribe(options).await {
            Err(error) => error,
            Ok(mut subscription) => match timeout(SOON, subscription.next()).await.expect("it says so") {
                Some(Err(error)) => error,
                other => panic!("{other:?}"),
            },
        }
    };
    let with_kind = SubscribeOptions {
        filter: FeedFilter::of_kinds(["tea"]),
        ..SubscribeOptions::default()
    };
    assert!(
        refused(with_kind)
            .await
            .to_string()
            .contains("no kind of entity; there are")
    );
    let of_another = others[0].cluster.subscribe(SubscribeOptions {
        from: Start::Beginning,
        stop_at_end: true,
        ..SubscribeOptions::default()
    });
    let foreign: Cursor = next(&mut of_another.await.expect("subscribed")).await.cursor;
    let with_cursor = SubscribeOptions {
        from: Start::Cursor(foreign),
        ..SubscribeOptions::default()
    };
    let text = refused(with_cursor).await.to_string();
    assert!(text.starts_with("cursor is a cursor of another cluster"), "{text}");

    // A slow reader holds up nobody, and takes no more than its place.
    let slow = SubscribeOptions {
        from: Start::Beginning,
        batch_events_max: 1,
        ..SubscribeOptions::default()
    };
    let mut places = Vec::new();
    for _ in 0..3 {
        places.push(cluster.subscribe(slow.clone()).await.expect("there is room"));
    }
    let error = cluster.subscribe(slow.clone()).await.expect_err("all are taken");
    assert!(matches!(error, Error::Overloaded { .. }), "{error}");
    write(cluster, 2, 60).await;
    let mut late = Seen::default();
    while late.0.values().sum::<u64>() < IDS * written(60) {
        let delivery = next(&mut places[0]).await;
        late.take(
            &delivery
                .events
                .into_iter()
                .filter(|event| event.id != "c1")
                .collect::<Vec<_>>(),
        );
        if late.is_whole(IDS - 1, written(60)) {
            break;
        }
    }
    places.pop();
    timeout(SOON, async {
        while cluster.subscribe(slow.clone()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a place that is left is free again");
    limited.stop().await;
    for node in others {
        node.stop().await;
    }
}

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
