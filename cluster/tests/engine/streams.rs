//! Event streams on three engines: what a subscriber and a consumer group see while everything around them changes.

use std::{collections::BTreeMap, time::Duration};

use crate::engines::{free_addresses, request, start, start_all, start_with};
use cluster::{
    Cluster, Context, Decision, Entity, EntityKey, Error, NoToken, Outcome, Registry, Services,
    feed::{Cursor, Delivery, FeedEvent, FeedFilter, Start, SubscribeOptions, Subscription},
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

/// Counts; each of its commands has as many events as it says. [`Other`] does the same under another name.
struct Counter;
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

pub(crate) const SHARDS: u32 = 4;
pub(crate) const IDS: u64 = 12;
/// What is expected comes within this time, or never.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn registry() -> Registry {
    Registry::new().with::<Counter>().with::<Other>()
}

/// So many commands for each of the entities, in turn.
pub(crate) async fn write(cluster: &Cluster, from: u64, to: u64) {
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
pub(crate) fn written(to: u64) -> u64 {
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

    /// What a reader sees that begins with the first event and ends by itself.
    async fn by_its_end(cluster: &Cluster, filter: FeedFilter) -> Self {
        let options = SubscribeOptions {
            from: Start::Beginning,
            filter,
            stop_at_end: true,
            ..SubscribeOptions::default()
        };
        let mut subscription = cluster.subscribe(options).await.expect("subscribed");
        let mut seen = Self::default();
        let reading = async {
            let mut is_over = false;
            while let Some(delivery) = subscription.next().await {
                let delivery = delivery.expect("no error");
                assert!(!is_over, "what says that all has come is the last");
                is_over = delivery.caught_up;
                seen.take(&delivery.events);
            }
            assert!(is_over);
        };
        timeout(SOON, reading).await.expect("it ends");
        seen
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
        let again = Seen::by_its_end(&node.cluster, FeedFilter::default()).await;
        assert!(again.is_whole(IDS, written(60)), "{:?}", again.0);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_is_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    write(&nodes[0].cluster, 0, 1).await;
    for node in &nodes {
        let seen = Seen::by_its_end(&node.cluster, FeedFilter::default()).await;
        assert!(seen.is_whole(IDS, written(1)), "{:?}", seen.0);
        // By now all replicas are as old as they become while nothing happens.
        sleep(Duration::from_secs(3)).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_to_end_gets_what_was_acknowledged_before_and_ends_under_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    let busy = nodes[0].cluster.clone();
    // There is no moment at which nothing is newer than what has been read.
    let writing = tokio::spawn(async move { write(&busy, 0, u64::MAX).await });
    for version in 1..=20 {
        let request = request(&format!("one-{version}"));
        let told = nodes[0].cluster.ask::<Other>("one", &Command::Count(1), &request).await;
        told.expect("counted");
        for node in &nodes {
            let seen = Seen::by_its_end(&node.cluster, FeedFilter::default()).await;
            assert_eq!(seen.0.get("other/one"), Some(&version));
        }
    }
    writing.abort();
    // Its node may have a command of the writer's under way, which fails with it.
    let _ = writing.await;
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
    // Those that were left a moment ago may have their places still.
    timeout(SOON, async {
        while places.len() < 3 {
            match cluster.subscribe(slow.clone()).await {
                Ok(place) => places.push(place),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
    .expect("there is room");
    let error = cluster.subscribe(slow.clone()).await.expect_err("all are taken");
    assert!(matches!(error, Error::Overloaded { .. }), "{error}");
    write(cluster, 2, 60).await;
    let mut late = Seen::default();
    let until = tokio::time::Instant::now() + SOON * 2;
    while late.0.values().sum::<u64>() < IDS * written(60) {
        let delivery = next(&mut places[0]).await;
        assert!(tokio::time::Instant::now() < until, "it gets no further: {:?}", late.0);
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
