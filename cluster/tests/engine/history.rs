//! What three engines tell of what they have recorded: at any time, after any change of leaders; and that what is forgotten is gone from
//! all of them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::engines::{Node, free_addresses, request, start, start_all, start_with};
use cluster::{
    Answer, Caller, Context, Decision, Effect, Entity, EntityKey, Error, Outcome, ReadOptions, Registry, Request,
    Services,
    config::Limits,
    history::{Cause, HistoryError, HistoryFault, Point, Retention, replay},
};
use serde::{Deserialize, Serialize};

const SHARDS: u32 = 2;
const SECRET: &str = "third house on the left, ring twice";

/// A note book: keeps what it is told, and can tell others.
struct Book<const FEE: u64>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    notes: Vec<String>,
    paid: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Note(String),
    Tell { to: String, text: String },
    Told(bool),
    Remind { after_ms: u64 },
    Reminded,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Noted { text: String, fee: u64 },
    Told,
    Reminded { at_ms: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Rejection {
    Empty,
}

impl<const FEE: u64> Entity for Book<FEE> {
    const KIND: &'static str = "book";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = Rejection;
    type Token = bool;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        let count = state.notes.len() as u64;
        match command {
            Command::Note(text) if text.is_empty() => Err(Rejection::Empty),
            Command::Note(text) => Ok(Decision::reply(count + 1).event(Event::Noted { text, fee: FEE })),
            Command::Tell { to, text } => {
                Ok(Decision::reply(count).effect(Effect::ask::<Self>(&to, &Command::Note(text), true)))
            }
            Command::Told(_) => Ok(Decision::reply(count).event(Event::Told)),
            Command::Remind { after_ms } => {
                Ok(Decision::reply(count).effect(Effect::set_timer("remind", context.now_ms + after_ms, false)))
            }
            Command::Reminded => Ok(Decision::reply(count).event(Event::Reminded { at_ms: context.now_ms })),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Noted { text, fee } => {
                state.notes.push(text.clone());
                state.paid += fee;
            }
            Event::Told | Event::Reminded { .. } => {}
        }
    }

    fn resume(_: bool, outcome: Outcome) -> Command {
        match outcome {
            Outcome::Fired { .. } => Command::Reminded,
            outcome => Command::Told(matches!(outcome.answer::<Self>(), Answer::Replied(_))),
        }
    }
}

type Plain = Book<0>;

fn key(id: &str) -> EntityKey {
    EntityKey::new("book", id).expect("a key")
}

fn by(id: &str, caller: &str) -> Request {
    Request {
        caller: Caller::new(caller).expect("a name"),
        ..request(id)
    }
}

async fn note(node: &Node, book: &str, text: &str, request: &Request) -> Result<u64, Error> {
    let command = Command::Note(text.to_owned());
    match node.cluster.ask::<Plain>(book, &command, request).await {
        Ok(count) => Ok(count),
        Err(cluster::AskError::Rejected(rejection)) => panic!("{rejection:?}"),
        Err(cluster::AskError::Engine(error)) => Err(error),
    }
}

/// Tries until it holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn version(node: &Node, book: &str) -> u64 {
    let look = request("look");
    let read = node.cluster.read::<Plain>(book, ReadOptions::default(), &look);
    read.await.expect("read").version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_past_is_told_by_any_node_wherever_its_records_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let registry = Registry::new().with::<Plain>();
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry, |_| Services::new()).await;
    for n in 0..40 {
        note(&nodes[n % 3], "a", &format!("note {n}"), &by(&format!("n-{n}"), "ann"))
            .await
            .expect("noted");
        if n == 20 {
            // Some of it reaches the store before the rest is decided.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let refused = nodes[0]
        .cluster
        .ask::<Plain>("a", &Command::Note(String::new()), &request("empty"))
        .await;
    assert!(matches!(refused, Err(cluster::AskError::Rejected(Rejection::Empty))));
    let tell = Command::Tell {
        to: "b".to_owned(),
        text: "hello".to_owned(),
    };
    nodes[0]
        .cluster
        .ask::<Plain>("a", &tell, &request("tell"))
        .await
        .expect("taken");
    let remind = Command::Remind { after_ms: 1 };
    nodes[0]
        .cluster
        .ask::<Plain>("a", &remind, &request("remind"))
        .await
        .expect("taken");
    until("told and reminded", || async { version(&nodes[1], "a").await == 42 }).await;
    let a = key("a");

    for node in &nodes {
        let history = node.cluster.history(&a, 0, &request("h")).await.expect("a history");
        let history = history.whole(1_000).await.expect("all of it");
        assert_eq!(history.records.len(), 45);
        assert!(history.records.iter().zip(1..).all(|(record, seq)| record.seq == seq));
        assert_eq!(
            (
                history.records[0].asked_by.as_str(),
                history.records[0].request_id.as_str()
            ),
            ("ann", "n-0")
        );
        let causes: Vec<_> = history.records[43..].iter().map(|record| &record.cause).collect();
        assert!(
            causes
                .iter()
                .any(|cause| matches!(cause, Cause::Outcome(effect) if effect == "book/a#42.0")),
            "{causes:?}"
        );
        assert!(
            causes
                .iter()
                .any(|cause| matches!(cause, Cause::Timer { name, .. } if name == "remind")),
            "{causes:?}"
        );

        // The same build decides all of it as it was, effects and firings too; another one does not.
        let replayed = replay::<Plain>(&history).expect("readable");
        assert!(replayed.is_equal() && replayed.without_effects == 0, "{replayed}");
        let replayed = replay::<Book<1>>(&history).expect("readable");
        assert_eq!((replayed.decisions, replayed.differing), (45, 40));
        assert_eq!(replayed.differences[3].differs, ["events", "state"]);

        let look = by("look", "bob");
        let at = |point| node.cluster.state_at(&a, point, &look);
        let tenth = at(Point::Version(10)).await.expect("told");
        assert_eq!(
            (tenth.version, tenth.state["notes"].as_array().map(Vec::len)),
            (10, Some(10))
        );
        let same = at(Point::Time(tenth.at_ms)).await.expect("told");
        assert!(same.version >= 10);
        let beyond = at(Point::Version(43)).await.expect_err("not yet");
        assert!(
            matches!(beyond, HistoryFault::History(HistoryError::Beyond { head: 42, .. })),
            "{beyond}"
        );
        let before = at(Point::Time(5)).await.expect_err("long ago");
        assert!(
            matches!(before, HistoryFault::History(HistoryError::BeforeFirst { .. })),
            "{before}"
        );
        let (_, _, changes) = (node
            .cluster
            .diff(&a, (Point::Version(3), Point::Version(5)), &request("d"))
            .await)
            .expect("told");
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, [r#"+ notes[3]: "note 3""#, r#"+ notes[4]: "note 4""#]);
    }
    let told = nodes[2]
        .cluster
        .history(&key("b"), 0, &request("h"))
        .await
        .expect("a history");
    let told = told.whole(10).await.expect("all of it");
    assert_eq!(
        (&told.records[0].cause, told.records[0].asked_by.as_str()),
        (&Cause::Effect, "")
    );
    let too_long = nodes[0]
        .cluster
        .history(&a, 0, &request("h"))
        .await
        .expect("a history")
        .whole(10)
        .await;
    assert!(matches!(too_long, Err(Error::Invalid { .. })));
    for node in nodes {
        node.stop().await;
    }
}

/// Which files below a folder hold the secret.
fn holding(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(holding(&path));
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

async fn is_left(node: &Node, key: &EntityKey, with_files: bool) -> Option<String> {
    let remains = node.cluster.remains(key).await;
    let left = remains.nodes.iter().find(|node| {
        !node.error.is_empty()
            || node.receipt.is_none()
            || node.in_memory + node.rows + node.log_entries > 0
            || (with_files && node.files_to_rewrite)
    });
    left.map(|left| format!("{left:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_forgotten_is_on_no_replica_and_in_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let registry = Registry::new().with::<Plain>();
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &registry, |_| Services::new()).await;
    let ann = key("ann");
    for n in 0..30 {
        let text = format!("{SECRET} {n}");
        note(&nodes[0], "ann", &text, &request(&format!("s-{n}")))
            .await
            .expect("noted");
        note(&nodes[0], "other", "stays", &request(&format!("o-{n}")))
            .await
            .expect("noted");
    }
    // An effect that nobody takes, and a timer that is far away: both hold on to it.
    let remind = Command::Remind { after_ms: 86_400_000 };
    nodes[0]
        .cluster
        .ask::<Plain>("ann", &remind, &request("remind"))
        .await
        .expect("taken");
    until("a checkpoint", || async {
        holding(folder.path()).iter().any(|path| path.contains("state"))
    })
    .await;
    assert!(is_left(&nodes[0], &ann, false).await.is_some());
    let kept = nodes[1]
        .cluster
        .read::<Plain>("ann", ReadOptions::default(), &request("r"))
        .await
        .expect("read");
    assert_eq!(kept.state.notes.len(), 30);

    let receipt = nodes[1]
        .cluster
        .forget(&ann, "she asked for it", &by("f-1", "clerk"))
        .await
        .expect("forgotten");
    let receipt = receipt.expect("there was something");
    assert_eq!(
        (receipt.asked_by.as_str(), receipt.reason.as_str()),
        ("clerk", "she asked for it")
    );
    // Once more, by another node and for another reason: what was forgotten stays as it was.
    let again = nodes[2]
        .cluster
        .forget(&ann, "other", &by("f-2", "other"))
        .await
        .expect("known");
    assert_eq!(again.as_ref(), Some(&receipt));
    assert_eq!(
        nodes[0].cluster.forget(&key("nobody"), "", &request("f-3")).await,
        Ok(None)
    );

    // Nobody is told anything of it, and nobody brings it back.
    for node in &nodes {
        let read = node
            .cluster
            .read::<Plain>("ann", ReadOptions::default(), &request("r"))
            .await;
        assert!(
            matches!(&read, Err(Error::Forgotten { reason, .. }) if reason.contains("clerk")),
            "{read:?}"
        );
        let repeated = note(node, "ann", &format!("{SECRET} 0"), &request("s-0")).await;
        assert!(matches!(repeated, Err(Error::Forgotten { .. })), "{repeated:?}");
        let history = node.cluster.history(&ann, 0, &request("h")).await.map(|_| ());
        assert!(matches!(history, Err(Error::Forgotten { .. })), "{history:?}");
    }
    // One that tells it something hears that it is gone.
    let tell = Command::Tell {
        to: "ann".to_owned(),
        text: "hello".to_owned(),
    };
    nodes[0]
        .cluster
        .ask::<Plain>("teller", &tell, &request("tell"))
        .await
        .expect("taken");
    until("the teller has its answer", || async {
        version(&nodes[0], "teller").await == 1
    })
    .await;

    until("memory, rows and log are clean", || async {
        is_left(&nodes[0], &ann, false).await.is_none()
    })
    .await;
    assert!(
        is_left(&nodes[0], &ann, true).await.is_some(),
        "files are only written anew at a start"
    );
    // Each node starts again, as in a rolling restart.
    for number in 1..=3_u16 {
        nodes.remove(0).stop().await;
        let node = start(
            number,
            &addresses,
            folder.path(),
            SHARDS,
            registry.clone(),
            Services::new(),
        )
        .await;
        node.cluster
            .ready(Duration::from_secs(20))
            .await
            .expect("every shard has a leader");
        nodes.push(node);
    }
    until("every file is clean", || async {
        is_left(&nodes[0], &ann, true).await.is_none()
    })
    .await;
    assert_eq!(holding(folder.path()), Vec::<String>::new());

    // The rest is as it was, and all replicas hold the same.
    assert_eq!(version(&nodes[0], "other").await, 30);
    let read = nodes[2]
        .cluster
        .read::<Plain>("ann", ReadOptions::default(), &request("r"))
        .await;
    assert!(matches!(read, Err(Error::Forgotten { .. })));
    until("replicas hold the same", || async { are_equal(&nodes[1]).await }).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_kind_does_not_keep_is_let_go_on_every_replica_alike() {
    const NOTES: u64 = 300;
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let few = Retention {
        records_max: Some(50),
        age_max_ms: None,
    };
    let registry = Registry::new().with::<Plain>().with_retention::<Plain>(few);
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let soon = |limits: &mut Limits| {
            limits.retention_interval_ms = 100;
            // Nobody repeats anything here.
            limits.requests_kept_ms = 0;
        };
        nodes.push(start_with(number, &addresses, folder.path(), SHARDS, registry.clone(), &soon).await);
    }
    for node in &nodes {
        let ready = node.cluster.ready(Duration::from_secs(20)).await;
        ready.expect("every shard has a leader");
    }
    let a = key("a");
    for n in 0..NOTES {
        let asked = request(&format!("n-{n}"));
        note(&nodes[0], "a", &format!("note {n}"), &asked).await.expect("noted");
    }
    let look = request("look");
    // Less than a quarter of what is kept is not worth a record of its own: from then on nothing more goes.
    let is_done = async |node: &Node| {
        let history = node.cluster.history(&a, 0, &look).await.expect("a history");
        history.base().seq > NOTES - 50 - 50 / 4
    };
    for node in &nodes {
        until("all that is worth while has gone", || is_done(node)).await;
    }
    for node in &nodes {
        let history = node.cluster.history(&a, 0, &look).await.expect("a history");
        let history = history.whole(1_000).await.expect("what is kept");
        let (from, kept) = (history.base.seq, history.records.len() as u64);
        assert_eq!((history.base.version, from + kept), (from, NOTES));
        assert!((50..50 + 50 / 4).contains(&kept), "{kept}");
        // A replay begins at the state that is kept.
        assert!(replay::<Plain>(&history).expect("readable").is_equal());
        assert_eq!(replay::<Book<1>>(&history).expect("readable").differing, kept);
        let at = |version| node.cluster.state_at(&a, Point::Version(version), &look);
        assert_eq!(at(from).await.expect("kept").version, from);
        let gone = at(1).await.expect_err("let go");
        assert!(
            matches!(gone, HistoryFault::History(HistoryError::NotKept { .. })),
            "{gone}"
        );
        // The state is whole all the same, and events have the numbers that they had.
        let options = ReadOptions {
            events_after: Some(NOTES - 2),
            ..ReadOptions::default()
        };
        let read = node.cluster.read::<Plain>("a", options, &look).await.expect("read");
        assert_eq!((read.version, read.state.notes.len() as u64), (NOTES, NOTES));
        let events: Vec<_> = read.events.iter().map(|event| event.version).collect();
        assert_eq!(events, [NOTES - 1, NOTES]);
    }
    until("replicas hold the same", || async { are_equal(&nodes[1]).await }).await;
    // One that comes back finds the same in its own folder.
    nodes.remove(0).stop().await;
    let node = start(1, &addresses, folder.path(), SHARDS, registry.clone(), Services::new()).await;
    node.cluster
        .ready(Duration::from_secs(20))
        .await
        .expect("every shard has a leader");
    assert_eq!(version(&node, "a").await, NOTES);
    note(&node, "a", "one more", &request("more")).await.expect("noted");
    until("replicas hold the same", || async { are_equal(&node).await }).await;
    node.stop().await;
    for node in nodes {
        node.stop().await;
    }
}

/// Whether all replicas of each shard hold the same.
async fn are_equal(node: &Node) -> bool {
    let digests = node.cluster.digests().await;
    digests.shards.iter().all(|shard| {
        let first = &shard.replicas[0];
        let is_same =
            |replica: &proto::cluster::v1::ReplicaDigest| replica.error.is_empty() && replica.digest == first.digest;
        shard.replicas.iter().all(is_same)
    })
}
