//! Durable timers over three engines: they outlive their leader and the whole cluster, and fire once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::engines::request;
use cluster::{
    AskError, Cluster, Context, Decision, Effect, Entity, EntityKey, Error, LocalBuilder, LocalCluster, Outcome,
    ReadOptions, Registry, Services, SpanRecord, SpanSink, supervision::Policy,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// An alarm clock that takes note of each time it rings.
struct Alarm;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    rung: Vec<Rung>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rung {
    label: String,
    due_ms: u64,
    missed: u64,
    at_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Set {
        name: String,
        in_ms: u64,
    },
    Repeat {
        name: String,
        in_ms: u64,
        every_ms: u64,
    },
    Cancel {
        name: String,
    },
    Ring {
        label: String,
        due_ms: u64,
        missed: u64,
    },
    /// More timers than an entity may have.
    SetTooMany,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Rang(Rung),
}

impl Entity for Alarm {
    const KIND: &'static str = "alarm";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = ();
    type Token = String;

    fn decide(_: &State, command: Command, context: &Context) -> Result<Decision<Self>, ()> {
        // An alarm whose name begins with `stuck` fails whenever it is to ring.
        Ok(match command {
            Command::Set { name, in_ms } => {
                let due_ms = context.now_ms + in_ms;
                Decision::reply(due_ms).effect(Effect::set_timer(&name, due_ms, name.clone()))
            }
            Command::Repeat { name, in_ms, every_ms } => {
                let due_ms = context.now_ms + in_ms;
                Decision::reply(due_ms).effect(Effect::repeat_timer(&name, due_ms, every_ms, name.clone()))
            }
            Command::Cancel { name } => Decision::reply(0).effect(Effect::cancel_timer(&name)),
            Command::Ring { .. } if context.key.id.starts_with("stuck") => panic!("cannot ring"),
            Command::Ring { label, due_ms, missed } => Decision::reply(0).event(Event::Rang(Rung {
                label,
                due_ms,
                missed,
                at_ms: context.now_ms,
            })),
            Command::SetTooMany => Decision::reply(0)
                .effects((0..1_000).map(|n| Effect::set_timer(&n.to_string(), context.now_ms, String::new()))),
        })
    }

    fn evolve(state: &mut State, Event::Rang(rung): &Event) {
        state.rung.push(rung.clone());
    }

    fn resume(label: String, outcome: Outcome) -> Command {
        let Outcome::Fired { due_ms, missed } = outcome else {
            panic!("it wants nothing but timers: {outcome:?}")
        };
        Command::Ring { label, due_ms, missed }
    }
}

struct Three {
    nodes: LocalCluster,
    spans: Arc<Spans>,
}

/// Spans of all nodes.
#[derive(Default)]
struct Spans(Mutex<Vec<SpanRecord>>);

impl SpanSink for Spans {
    fn record(&self, span: SpanRecord) {
        self.0.lock().expect("nobody panics while holding it").push(span);
    }
}

impl Three {
    async fn start() -> Self {
        Self::start_with(Policy::ENTITY).await
    }

    async fn start_with(policy: Policy) -> Self {
        let spans: Arc<Spans> = Arc::default();
        let sink = Arc::clone(&spans) as Arc<dyn SpanSink>;
        let builder = LocalBuilder::new(Registry::new().with_policy::<Alarm>(policy))
            .services(move |_| Services::new().with_spans(Some(Arc::clone(&sink))))
            .limits(|_, limits| (limits.checkpoint_interval_ms, limits.idle_ms) = (200, 200));
        let nodes = builder.start().await.expect("the engines start");
        Self { nodes, spans }
    }

    /// Starts all at the same time: no shard has a leader before most of them are up.
    async fn start_all(&mut self) {
        self.nodes.restart_all().await.expect("the engines start");
    }

    async fn stop_all(&mut self) {
        self.nodes.stop_all().await;
    }

    fn any(&self) -> &Cluster {
        self.nodes.any()
    }

    async fn ask(&self, id: &str, command: Command) -> Result<u64, AskError<()>> {
        let request = request(&format!("{id} {command:?}"));
        loop {
            match self.any().ask::<Alarm>(id, &command, &request).await {
                // It restarts after a failure, and says how long that takes.
                Err(AskError::Engine(Error::Unavailable { retry_after, .. })) => sleep(retry_after).await,
                answer => return answer,
            }
        }
    }

    async fn rung(&self, id: &str) -> Vec<Rung> {
        let request = request("read");
        let read = self.any().read::<Alarm>(id, ReadOptions::default(), &request);
        read.await.expect("it can be read").state.rung
    }

    async fn rings(&self, id: &str, times: usize) -> Vec<Rung> {
        for _ in 0..600 {
            let rung = self.rung(id).await;
            if rung.len() >= times {
                return rung;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{id} did not ring {times} times: {:?}", self.rung(id).await);
    }
}

fn set(name: &str, in_ms: u64) -> Command {
    let name = name.to_owned();
    Command::Set { name, in_ms }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_once_on_the_next_leader_and_those_that_were_cancelled_do_not() {
    let mut three = Three::start().await;
    let ids: Vec<String> = (0..12).map(|n| format!("a{n}")).collect();
    for id in &ids {
        three.ask(id, set("wake", 1_500)).await.expect("set");
        three.ask(id, set("cancelled", 1_500)).await.expect("set");
        three.ask(id, set("moved", 100_000)).await.expect("set");
        three.ask(id, set("moved", 1_400)).await.expect("replaced");
        let cancel = Command::Cancel {
            name: "cancelled".to_owned(),
        };
        three.ask(id, cancel).await.expect("cancelled");
    }
    // Each node leads some of the shards.
    three.nodes.kill(1).await;
    for id in &ids {
        let rung = three.rings(id, 2).await;
        let labels: Vec<_> = rung.iter().map(|rung| rung.label.as_str()).collect();
        assert_eq!(labels, ["moved", "wake"], "{id}");
        assert!(
            rung.iter().all(|rung| rung.at_ms >= rung.due_ms && rung.missed == 0),
            "{rung:?}"
        );
    }
    // Whatever comes now comes after them.
    for id in &ids {
        three.ask(id, set("last", 0)).await.expect("set");
        let rung = three.rings(id, 3).await;
        assert_eq!((rung.len(), rung[2].label.as_str()), (3, "last"), "{rung:?}");
    }
    three.stop_all().await;
}

/// dotnet/orleans #1298: a missed reminder is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_all_nodes_were_down_is_made_up_for() {
    let mut three = Three::start().await;
    for n in 0..6 {
        let id = format!("b{n}");
        let repeat = Command::Repeat {
            name: "tick".to_owned(),
            in_ms: 100,
            every_ms: 100,
        };
        three.ask(&id, repeat).await.expect("set");
        three.ask(&id, set("late", 700)).await.expect("set");
        three.ask(&id, set("soon", 600)).await.expect("set");
        assert!(!three.rings(&id, 1).await.is_empty());
    }
    three.stop_all().await;
    sleep(Duration::from_millis(800)).await;
    three.start_all().await;
    for n in 0..6 {
        let id = format!("b{n}");
        let mut rung = three.rings(&id, 6).await;
        let at = |rung: &[Rung], label: &str| {
            let mut places = rung.iter().enumerate().filter(|(_, rung)| rung.label == label);
            let place = places.next().map(|(place, _)| place);
            assert!(places.next().is_none(), "{label} rang twice: {rung:?}");
            place
        };
        // What rang before the stop says nothing of what was missed.
        let is_there = |rung: &[Rung]| at(rung, "late").is_some() && rung.iter().any(|rung| rung.missed >= 5);
        let begun = Instant::now();
        while !is_there(&rung) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{rung:?}");
            sleep(Duration::from_millis(25)).await;
            rung = three.rung(&id).await;
        }
        assert!(
            at(&rung, "soon") < at(&rung, "late"),
            "in the order in which they were due: {rung:?}"
        );
        let ticks: Vec<_> = rung.iter().filter(|rung| rung.label == "tick").collect();
        // Each occurrence is either a firing or told by one.
        for pair in ticks.windows(2) {
            assert_eq!(pair[1].due_ms, pair[0].due_ms + 100 * (pair[0].missed + 1), "{ticks:?}");
        }
    }
    three.stop_all().await;
}

/// dapr 1.18.2: one slow timer delays all. Here an entity that fails whenever its timer fires, beside others.
#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_cannot_take_its_timers_delays_no_other() {
    // Neither quarantine nor a breaker ends it.
    let policy = Policy {
        quarantine_after: 0,
        breaker_failures_max: u32::MAX,
        intensity_max: 0,
        ..Policy::ENTITY
    };
    let mut three = Three::start_with(policy).await;
    for n in 0..40 {
        let id = format!("stuck{n}");
        for timer in 0..5 {
            three.ask(&id, set(&timer.to_string(), 0)).await.expect("set");
        }
    }
    for n in 0..12 {
        let id = format!("c{n}");
        three.ask(&id, set("wake", 50)).await.expect("set");
        assert_eq!(three.rings(&id, 1).await.len(), 1);
    }
    assert!(three.rung("stuck0").await.is_empty());
    three.stop_all().await;
}

/// A firing that its entity fails at again and again is put aside like any other command: skipped, it counts as fired.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_its_entity_fails_at_is_quarantined_and_can_be_skipped() {
    let mut three = Three::start().await;
    three.ask("stuck", set("wake", 0)).await.expect("set");
    let key = EntityKey::new("alarm", "stuck").expect("a key");
    let quarantined = loop {
        let shown = three.any().show_quarantine(&key, &request("show")).await;
        if let Some(shown) = shown.expect("answered") {
            break shown.entity.expect("told");
        }
        sleep(Duration::from_millis(25)).await;
    };
    assert!(quarantined.request_id.starts_with("timer wake#1@"), "{quarantined:?}");
    assert_eq!(three.any().timers(0).await.timers.len(), 1, "it waits");
    let retried = three.any().retry_quarantined(&key, &request("retry")).await;
    assert!(!retried.expect("answered").expect("quarantined").lifted);
    let skipped = three.any().skip_quarantined(&key, &request("skip")).await;
    assert!(skipped.expect("answered").expect("quarantined").skipped);
    assert!(three.any().timers(0).await.timers.is_empty(), "it counts as fired");
    three.ask("stuck", set("later", 100_000)).await.expect("it goes on");
    three.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_with_too_many_timers_fails_its_command_and_leaves_no_trace() {
    let mut three = Three::start().await;
    let refused = three.ask("d", Command::SetTooMany).await.expect_err("too many");
    assert!(refused.to_string().contains("more than 64 timers"), "{refused}");
    three.ask("d", set("wake", 0)).await.expect("it goes on");
    assert_eq!(three.rings("d", 1).await[0].label, "wake");
    three.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_which_timers_are_set_and_which_are_late() {
    let mut three = Three::start().await;
    let mut due = Vec::new();
    for n in 0..6 {
        let id = format!("e{n}");
        due.push(three.ask(&id, set("later", 100_000 - n)).await.expect("set"));
        three.ask(&id, set("gone", 90_000)).await.expect("set");
        let cancel = Command::Cancel {
            name: "gone".to_owned(),
        };
        three.ask(&id, cancel).await.expect("cancelled");
    }
    three.ask("stuck", set("late", 0)).await.expect("set");
    sleep(Duration::from_millis(20)).await;
    due.sort_unstable();
    for node in three.nodes.up() {
        let listed = three.nodes.on(node).timers(0).await;
        assert!(listed.unavailable_shards.is_empty());
        let (late, later) = listed.timers.split_first().expect("timers");
        assert_eq!((late.entity.as_str(), late.name.as_str()), ("alarm/stuck", "late"));
        assert!(late.overdue_ms > 0, "{late:?}");
        assert_eq!(later.iter().map(|timer| timer.due_unix_ms).collect::<Vec<_>>(), due);
        assert_eq!(three.nodes.on(node).timers(2).await.timers.len(), 2);
        let key = EntityKey::new("alarm", "e3").expect("a key");
        let shown = three
            .nodes
            .on(node)
            .show(&key, &request("show"))
            .await
            .expect("shown")
            .timers;
        assert_eq!(
            (shown.len(), shown[0].name.as_str(), shown[0].set_by_record),
            (1, "later", 1)
        );
        let status = three.nodes.on(node).status().await;
        assert_eq!(status.shards.iter().map(|shard| shard.timers).sum::<u64>(), 7);
        let late: Vec<_> = status
            .shards
            .iter()
            .filter(|shard| shard.timers_overdue_ms > 0)
            .collect();
        assert_eq!(late.len(), 1);
    }
    three.stop_all().await;
}

/// A firing may come long after what set the timer: it is a trace of its own, with a link.
#[tokio::test(flavor = "multi_thread")]
async fn a_firing_is_a_trace_of_its_own_that_links_to_the_one_that_set_the_timer() {
    let mut three = Three::start().await;
    let command = set("wake", 0);
    let asked = request("set");
    let set = three.any().ask::<Alarm>("f", &command, &asked).await;
    set.expect("set");
    three.rings("f", 1).await;
    three.stop_all().await;
    let spans = three.spans.0.lock().expect("no panic").clone();
    let timer = spans
        .iter()
        .find(|span| span.name == "timer")
        .expect("a span of the firing");
    assert_ne!(timer.trace.trace_id, asked.trace.trace_id);
    assert_eq!(timer.parent_span_id, 0);
    assert_eq!(
        timer.links.iter().map(|link| link.trace_id).collect::<Vec<_>>(),
        [asked.trace.trace_id]
    );
    let below = spans.iter().filter(|span| span.parent_span_id == timer.trace.span_id);
    let names: Vec<_> = below.map(|span| span.name.to_string()).collect();
    assert!(
        ["decide", "commit"]
            .iter()
            .all(|name| names.iter().any(|other| other == name)),
        "{names:?}"
    );
}
