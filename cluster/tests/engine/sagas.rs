//! Declared sagas over three engines: they end through a failover, and one that cannot be undone is found, explained and nudged.

use std::{collections::BTreeSet, time::Duration};

use crate::engines::{Node, free_addresses, request, start_all};
use cluster::{
    Answer, AskError, Cluster, Context, Decision, Entity, EntityKey, NoToken, Outcome, ReadOptions, Registry, Services,
    saga::{Action, Command, Known, NoSignal, Phase, Rejection, Retry, STUCK_AFTER, Saga, Stage, Verdict, Work},
};
use proto::saga::v1::{ListSagasRequest, ShowSagaResponse};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// A house with rooms that trips hold.
struct House;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Rooms {
    held: BTreeSet<String>,
    is_jammed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Ask {
    Hold(String),
    Drop(String),
    /// Nobody comes out of it any more, or again.
    Jam(bool),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum No {
    Closed,
    Jammed,
}

impl Entity for House {
    const KIND: &'static str = "house";
    type State = Rooms;
    type Command = Ask;
    type Event = Ask;
    type Reply = ();
    type Rejection = No;
    type Token = NoToken;

    fn decide(state: &Rooms, ask: Ask, context: &Context) -> Result<Decision<Self>, No> {
        match ask {
            Ask::Hold(_) if context.key.id.starts_with("closed") => Err(No::Closed),
            Ask::Drop(_) if state.is_jammed => Err(No::Jammed),
            ask => Ok(Decision::reply(()).event(ask)),
        }
    }

    fn evolve(state: &mut Rooms, event: &Ask) {
        match event {
            Ask::Hold(trip) => drop(state.held.insert(trip.clone())),
            Ask::Drop(trip) => drop(state.held.remove(trip)),
            Ask::Jam(is_jammed) => state.is_jammed = *is_jammed,
        }
    }

    fn resume(token: NoToken, _: Outcome) -> Ask {
        match token {}
    }
}

/// Holds a room in each house, and one in the last house when it has all others.
struct Trip;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wanted {
    houses: Vec<String>,
    last: String,
}

impl Saga for Trip {
    const NAME: &'static str = "trip";
    const TABLE: &'static [Stage<Self>] = &[
        Stage::new("hold", hold)
            .each(houses)
            .undo(leave)
            .retry(Retry::times(3, 20, 60_000)),
        Stage::new("last", last)
            .point_of_no_return()
            .judge(|step, outcome| match outcome.answer::<House>() {
                Answer::Rejected(No::Closed) => Verdict::Refused("closed: the last house".to_owned()),
                _ => Verdict::usual(step, outcome),
            }),
    ];
    type Input = Wanted;
    type Fact = ();
    type Signal = NoSignal;
}

fn houses(known: &Known<'_, Trip>) -> Vec<String> {
    known.input().houses.clone()
}

fn hold(work: &Work<'_, Trip>) -> Action {
    Action::ask::<House>(work.key(), &Ask::Hold(work.id().to_owned()))
}

fn leave(work: &Work<'_, Trip>) -> Action {
    Action::ask::<House>(work.key(), &Ask::Drop(work.id().to_owned()))
}

fn last(work: &Work<'_, Trip>) -> Action {
    Action::ask::<House>(&work.input().last, &Ask::Hold(work.id().to_owned()))
}

fn wanted(houses: &[&str], last: &str) -> Wanted {
    Wanted {
        houses: houses.iter().map(|house| (*house).to_owned()).collect(),
        last: last.to_owned(),
    }
}

fn registry() -> Registry {
    Registry::new().with::<House>().with::<Trip>()
}

async fn held(cluster: &Cluster, house: &str) -> BTreeSet<String> {
    let read = cluster
        .read::<House>(house, ReadOptions::default(), &request("look"))
        .await;
    read.expect("the house is there").state.held
}

/// Runs a trip to its end, asking again while engines come and go.
async fn to_the_end(cluster: &Cluster, id: &str, wanted: &Wanted) -> Phase {
    loop {
        match cluster
            .run_saga::<Trip>(id, wanted.clone(), &request(&format!("start {id}")))
            .await
        {
            Ok(state) => return state.phase,
            Err(AskError::Engine(error)) if error.is_retryable() => sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{id}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sagas_end_through_a_failover_and_are_listed_page_by_page() {
    const TRIPS: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path(), 4, &registry(), |_| Services::new()).await;
    let gone = nodes.remove(0);
    let cluster = nodes[0].cluster.clone();
    let trips: Vec<_> = (0..TRIPS)
        .map(|n| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let last = if n % 2 == 0 { "open" } else { "closed" };
                sleep(Duration::from_millis(10 * n as u64)).await;
                let wanted = wanted(&["a", "b", "c"], last);
                (n, to_the_end(&cluster, &format!("t-{n}"), &wanted).await)
            })
        })
        .collect();
    sleep(Duration::from_millis(150)).await;
    Node::stop(gone).await;
    for trip in trips {
        let (n, phase) = trip.await.expect("no panic");
        let expected = if n % 2 == 0 { Phase::Completed } else { Phase::Undone };
        assert_eq!(phase, expected, "t-{n}");
    }
    let completed: BTreeSet<String> = (0..TRIPS).step_by(2).map(|n| format!("t-{n}")).collect();
    for house in ["a", "b", "c", "open"] {
        assert_eq!(held(&cluster, house).await, completed, "{house}");
    }

    // Started again with the same input it says how it ended; another input is refused.
    assert_eq!(
        to_the_end(&cluster, "t-1", &wanted(&["a", "b", "c"], "closed")).await,
        Phase::Undone
    );
    let other = cluster
        .run_saga::<Trip>("t-1", wanted(&["a"], "open"), &request("other"))
        .await;
    assert!(
        matches!(other, Err(AskError::Rejected(Rejection::AlreadyStarted))),
        "{other:?}"
    );

    let mut listed = Vec::new();
    let mut wanted = ListSagasRequest {
        state: "undone".to_owned(),
        limit: 7,
        ..ListSagasRequest::default()
    };
    loop {
        let page = cluster.sagas(&wanted).await.expect("a page");
        assert!(page.sagas.len() <= 7);
        listed.extend(page.sagas.into_iter().map(|saga| saga.key));
        if page.next_page.is_empty() {
            break;
        }
        wanted.page = page.next_page;
    }
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    let expected: BTreeSet<_> = (1..TRIPS).step_by(2).map(|n| format!("trip/t-{n}")).collect();
    assert_eq!((unique, listed.len()), (expected, TRIPS / 2));
    for (field, wrong) in [
        (
            "kind",
            ListSagasRequest {
                kind: "house".to_owned(),
                ..Default::default()
            },
        ),
        (
            "state",
            ListSagasRequest {
                state: "lost".to_owned(),
                ..Default::default()
            },
        ),
        (
            "page",
            ListSagasRequest {
                page: "9 9".to_owned(),
                ..Default::default()
            },
        ),
    ] {
        let error = cluster.sagas(&wrong).await.expect_err("it is wrong");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Asks until the answer is as it should be.
async fn until(cluster: &Cluster, key: &EntityKey, is_there: impl Fn(&ShowSagaResponse) -> bool) -> ShowSagaResponse {
    let ends = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = cluster.show_saga(key, &request("show")).await;
        match shown {
            Ok(Some(shown)) if is_there(&shown) => return shown,
            other => assert!(Instant::now() < ends, "{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn state(shown: &ShowSagaResponse) -> &str {
    &shown.saga.as_ref().expect("it has a summary").state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_cannot_be_undone_is_found_and_explained_and_nudged() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let nodes = start_all(&addresses, folder.path(), 4, &registry(), |_| Services::new()).await;
    let cluster = nodes[0].cluster.clone();
    let jam = |jammed| {
        let cluster = cluster.clone();
        async move {
            let id = request(&format!("jam {jammed}"));
            cluster
                .ask::<House>("b", &Ask::Jam(jammed), &id)
                .await
                .expect("it is taken");
        }
    };
    jam(true).await;
    let start = Command::Start(wanted(&["a", "b"], "closed"));
    cluster
        .ask::<Trip>("7", &start, &request("start"))
        .await
        .expect("it starts");

    let key = cluster
        .saga_named("7", &request("name"))
        .await
        .expect("asked")
        .expect("there is one");
    assert_eq!(key.to_string(), "trip/7");
    let stuck = until(&cluster, &key, |shown| state(shown) == "stuck").await;
    assert_eq!(
        stuck.saga.as_ref().map(|saga| saga.reason.as_str()),
        Some("closed: the last house")
    );
    let of = |state: &str| ListSagasRequest {
        state: state.to_owned(),
        ..ListSagasRequest::default()
    };
    assert_eq!(cluster.sagas(&of("stuck")).await.expect("a list").sagas.len(), 1);
    assert_eq!(cluster.sagas(&of("undoing")).await.expect("a list").sagas.len(), 0);

    let explained = cluster.explain_saga(&key, &request("explain")).await;
    let explained = explained
        .expect("asked")
        .expect("there is one")
        .saga
        .expect("it is told");
    let [step] = explained.waiting.as_slice() else {
        panic!("it waits for one undo: {explained:#?}")
    };
    assert_eq!(
        (step.step.as_str(), step.target.as_str(), step.undo),
        ("hold/b", "house/b", true)
    );
    assert!(step.attempt > STUCK_AFTER && step.attempts_max == 0, "{step:?}");
    assert!(step.failure.contains("Jammed"), "{step:?}");

    jam(false).await;
    // It may just be trying by itself.
    let mut tries = 0;
    while state(&until(&cluster, &key, |_| true).await) != "undone" {
        tries += 1;
        let nudged = cluster.nudge_saga(&key, &request(&format!("nudge {tries}"))).await;
        let nothing = matches!(nudged, Err(AskError::Rejected(Rejection::NothingToRetry { .. })));
        assert!(nudged.is_ok() || nothing, "{nudged:?}");
        sleep(Duration::from_millis(20)).await;
        assert!(tries < 200, "it does not end");
    }
    assert!(held(&cluster, "a").await.is_empty() && held(&cluster, "b").await.is_empty());
    let again = cluster.nudge_saga(&key, &request("nudge the ended")).await;
    assert!(
        matches!(again, Err(AskError::Rejected(Rejection::NothingToRetry { .. }))),
        "{again:?}"
    );
    let unknown = EntityKey::new("trip", "8").expect("a key");
    assert!(
        cluster
            .show_saga(&unknown, &request("unknown"))
            .await
            .expect("asked")
            .is_none()
    );
    let unknown = cluster.nudge_saga(&unknown, &request("nudge the unknown")).await;
    assert!(
        matches!(unknown, Err(AskError::Rejected(Rejection::NotStarted))),
        "{unknown:?}"
    );
    let no_saga = cluster
        .saga_named("house/a", &request("no saga"))
        .await
        .expect_err("a house is no saga");
    assert!(no_saga.to_string().contains("sagas are: trip"), "{no_saga}");
    for node in nodes {
        node.stop().await;
    }
}
