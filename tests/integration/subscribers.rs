//! A subscriber that stores its cursor with its work is killed again and again while events flow and a node dies: it sees each
//! event once, in order. And the command line's view of the same events.

use std::{collections::BTreeMap, time::Duration};

use harness::{Finished, Subscriber, TestCluster};
use proto::{
    catalog::v1::{ReceiveStockRequest, StockItem, stock_client::StockClient},
    events::v1::{
        ConsumeRequest, ConsumeResponse, Done, Filter, Join, Refuse, Settle, Start, SubscribeRequest, Work,
        consume_request::Say, consume_response::Handed, events_client::EventsClient, start::At,
    },
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

const ITEMS: u64 = 20;
const KILLS: u64 = 20;
/// What is expected comes within this time, or never.
const SOON: Duration = Duration::from_mins(1);

async fn channel(address: &str) -> Option<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.ok()
}

/// Receives one piece, asking one node after the other under the same request id until it is done.
async fn receive(nodes: &[String], item: u64, n: u64) -> StockItem {
    for node in nodes.iter().cycle().skip((item % nodes.len() as u64) as usize) {
        if let Some(channel) = channel(node).await {
            let mut request = Request::new(ReceiveStockRequest {
                sku: format!("s{item}"),
                quantity: 1,
            });
            request.set_timeout(Duration::from_secs(2));
            let id = format!("r-{item}-{n}");
            request
                .metadata_mut()
                .insert("x-request-id", id.parse().expect("ASCII"));
            if let Ok(received) = StockClient::new(channel).receive_stock(request).await {
                return received.into_inner();
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the nodes are asked in turn for ever")
}

/// Writes until told to stop; gives the version of each item.
async fn write(nodes: Vec<String>, mut stop: mpsc::Receiver<()>) -> BTreeMap<String, u64> {
    let mut versions = BTreeMap::new();
    for n in 0.. {
        let writes = (0..ITEMS).map(|item| receive(&nodes, item, n));
        for item in futures::future::join_all(writes).await {
            versions.insert(format!("stock/{}", item.sku), item.version);
        }
        if stop.try_recv().is_ok() {
            break;
        }
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_killed_again_and_again_sees_each_event_once_in_order() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let nodes: Vec<String> = cluster.node_ids().map(|node| cluster.grpc(node)).collect();
    let (stop, stopped) = mpsc::channel(1);
    let writing = tokio::spawn(write(nodes.clone(), stopped));
    let mut subscriber = Subscriber::new(harness::subscriber!(), &cluster.scratch("events.txt"), "stock", &nodes);
    let mut killed = None;
    while subscriber.kills() < KILLS {
        subscriber.start();
        sleep(Duration::from_millis(rand::random_range(20..350))).await;
        subscriber.kill().await;
        subscriber.seen().expect("each once, in order");
        match subscriber.kills() {
            5 => {
                let leader = cluster.busiest_leader().await;
                cluster.kill_9(leader);
                killed = Some(leader);
            }
            12 => cluster.restart(killed.expect("it was killed")).await,
            _ => {}
        }
    }
    stop.send(()).await.expect("it writes");
    let expected = writing.await.expect("all was written");
    subscriber.start();
    let whole = timeout(SOON, async {
        while subscriber.seen().expect("each once, in order") != expected {
            sleep(Duration::from_millis(100)).await;
        }
    });
    if whole.await.is_err() {
        assert_eq!(subscriber.seen().expect("each once, in order"), expected);
    }
    subscriber.kill().await;

    on_the_command_line(&cluster, &expected).await;
    wrong_subscriptions_are_told(&nodes[0]).await;
    a_group_puts_aside_what_it_refuses(&cluster, &nodes, &expected).await;
    a_reader_that_is_to_end_has_the_last_write(&nodes).await;
    cluster.verify().await;
}

/// Lines of JSON.
fn lines(finished: &Finished) -> Vec<Value> {
    let parsed = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"));
    parsed.collect()
}

async fn on_the_command_line(cluster: &TestCluster, expected: &BTreeMap<String, u64>) {
    let all: u64 = expected.values().sum();
    let printed = lines(&cluster.run("events --kind stock --json").await.ok());
    let events: Vec<_> = printed.iter().filter(|line| line.get("event").is_some()).collect();
    assert_eq!(events.len() as u64, all);
    let cursor = printed.last().expect("there is a last line")["cursor"]
        .as_str()
        .expect("it is a cursor")
        .to_owned();
    assert_eq!(printed.last().expect("there is a last line")["caught_up"], true);
    let after = cluster
        .run_words(&["events", "--kind", "stock", "--json", "--from", &cursor])
        .await;
    let after = lines(&after.ok());
    assert!(
        after.iter().all(|line| line.get("event").is_none()),
        "nothing comes twice: {after:?}"
    );
    let one = cluster.run("events --entity stock/s3").await.ok();
    let text = one.stdout;
    let received = text
        .lines()
        .filter(|line| line.contains("stock/s3") && line.contains("Received"));
    assert_eq!(received.count() as u64, expected["stock/s3"]);
    assert!(
        text.lines().last().expect("a line").starts_with("go on with --from "),
        "{text}"
    );
}

/// At every node, right behind the answer to a write.
async fn a_reader_that_is_to_end_has_the_last_write(nodes: &[String]) {
    for n in 0..10 {
        let item = receive(nodes, ITEMS, n).await;
        for node in nodes {
            let request = SubscribeRequest {
                start: Some(Start {
                    at: Some(At::Beginning(true)),
                }),
                filter: Some(Filter {
                    entity: format!("stock/{}", item.sku),
                    ..Filter::default()
                }),
                stop_at_end: true,
                ..SubscribeRequest::default()
            };
            let channel = channel(node).await.expect("it listens");
            let batches = EventsClient::new(channel).subscribe(request).await;
            let mut batches = batches.expect("subscribed").into_inner();
            let (mut last, mut is_over) = (0, false);
            while let Some(batch) = batches.message().await.expect("no error") {
                last = batch.events.last().map_or(last, |event| event.version);
                is_over = batch.caught_up;
            }
            assert_eq!((last, is_over), (item.version, true), "node {node}");
        }
    }
}

async fn wrong_subscriptions_are_told(node: &str) {
    let mut events = EventsClient::new(channel(node).await.expect("it listens"));
    let with = |kind: &str, at: Option<At>| SubscribeRequest {
        start: at.map(|at| Start { at: Some(at) }),
        filter: Some(Filter {
            kinds: vec![kind.to_owned()],
            ..Filter::default()
        }),
        ..SubscribeRequest::default()
    };
    for (request, says) in [
        (with("tea", None), "kinds names \"tea\", which is no kind"),
        (
            with("stock", Some(At::Cursor("tea".to_owned()))),
            "start.cursor is no cursor",
        ),
    ] {
        let status = events.subscribe(request).await.expect_err("it is wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{}", status.message());
    }
    let status = events
        .consume(futures::stream::iter([ConsumeRequest::default()]))
        .await
        .expect_err("nobody joins");
    assert!(
        status.message().contains("must be the first message"),
        "{}",
        status.message()
    );
}

/// A member over gRPC.
struct Member {
    says: mpsc::Sender<ConsumeRequest>,
    handed: Streaming<ConsumeResponse>,
}

impl Member {
    async fn join(node: &str, name: &str) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(16);
        let join = Join {
            group: "audit".to_owned(),
            member: name.to_owned(),
            filter: Some(Filter {
                entity: "stock/s3".to_owned(),
                ..Filter::default()
            }),
            attempts_max: 2,
            lease_ms: 2_000,
            batch_events_max: 1,
            ..Join::default()
        };
        let join = ConsumeRequest {
            say: Some(Say::Join(join)),
        };
        says.send(join).await.expect("there is room");
        let said = futures::stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        let mut events = EventsClient::new(channel(node).await.expect("it listens"));
        let handed = events.consume(said).await?.into_inner();
        Ok(Self { says, handed })
    }

    async fn say(&self, say: Say) {
        self.says
            .send(ConsumeRequest { say: Some(say) })
            .await
            .expect("it is heard");
    }

    async fn work(&mut self) -> Work {
        loop {
            let next = timeout(SOON, self.handed.message()).await.expect("something comes");
            match next.expect("the stream stands").expect("it goes on").handed {
                Some(Handed::Work(work)) => return work,
                Some(Handed::Shards(_)) | None => {}
            }
        }
    }
}

async fn a_group_puts_aside_what_it_refuses(cluster: &TestCluster, nodes: &[String], expected: &BTreeMap<String, u64>) {
    let mut member = Member::join(&nodes[1], "ann").await.expect("joined");
    let last = expected["stock/s3"];
    let mut versions = Vec::new();
    while versions.last() != Some(&last) {
        let work = member.work().await;
        let (shard, position, version) = (work.shard, work.position, work.events[0].version);
        if version == 2 {
            assert_eq!(
                work.attempt as usize,
                versions.iter().filter(|version| **version == 2).count() + 1
            );
            let reason = "no address".to_owned();
            member
                .say(Say::Refuse(Refuse {
                    shard,
                    position,
                    reason,
                }))
                .await;
        } else {
            member.say(Say::Done(Done { shard, position })).await;
        }
        versions.push(version);
    }
    let wanted: Vec<u64> = [1, 2, 2].into_iter().chain(3..=last).collect();
    assert_eq!(versions, wanted);

    let listed = cluster.run("dead-letter list audit --json").await.ok().json();
    let letter = &listed["dead_letters"][0];
    assert_eq!(
        (&letter["entity"], &letter["reason"]),
        (&"stock/s3".into(), &"no address".into())
    );
    let id = letter["id"].as_u64().expect("it has a number");
    let shown = cluster.run(&format!("dead-letter show audit {id}")).await.ok();
    assert!(shown.stdout.contains("refused 2 times"), "{}", shown.stdout);
    let _ = cluster.run(&format!("dead-letter retry audit {id}")).await.ok();
    let again = member.work().await;
    assert_eq!((again.dead_letter, again.events[0].version), (id, 2));
    let settle = Settle {
        dead_letter: id,
        refused: String::new(),
    };
    member.say(Say::Settle(settle)).await;
    timeout(SOON, async {
        while cluster.run("group show audit --json").await.ok().json()["dead_letters"] != 0 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it is done");
    assert!(cluster.run("group list").await.ok().stdout.contains("stock/s3"));

    // Going back to the beginning hands everything out once more.
    let _ = cluster.run("group reset audit --to beginning").await.ok();
    assert_eq!(member.work().await.events[0].version, 1);
    drop(member);
    timeout(SOON, async {
        while cluster.run("group delete audit").await.code != 0 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("its member has left");
}
