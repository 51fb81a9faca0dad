//! What is told of a history: two builds of one entity, of which one has another rule.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::{
    codec,
    entity::{Context, Decision, Effect, Entity, Outcome, Registry},
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    balance: u64,
    paid: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Deposit(u64),
    Pay { to: String, amount: u64 },
    Remind,
    Fail,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Deposited(u64),
    Paid { to: String, amount: u64, fee: u64 },
    Reminded { at_ms: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Rejection {
    NotEnough,
    TooMuch,
}

/// The account as it was, and as other builds have it.
struct Account<const BUILD: u8>;
/// As it was.
const OLD: u8 = 0;
/// Takes a fee from 100 on: another event, another state, another effect.
const WITH_FEE: u8 = 1;
/// Refuses payments from 100 on.
const WITH_LIMIT: u8 = 2;
/// Tells the other side otherwise.
const OTHER_EFFECT: u8 = 3;
/// Fails at a payment from 100 on.
const BROKEN: u8 = 4;
/// Makes another state of the same events.
const OTHER_STATE: u8 = 5;

impl<const BUILD: u8> Entity for Account<BUILD> {
    const KIND: &'static str = "account";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = Rejection;
    type Token = String;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        match command {
            Command::Deposit(amount) => Ok(Decision::reply(state.balance + amount).event(Event::Deposited(amount))),
            Command::Pay { amount, .. } if amount > state.balance => Err(Rejection::NotEnough),
            Command::Pay { amount, .. } if BUILD == WITH_LIMIT && amount >= 100 => Err(Rejection::TooMuch),
            Command::Pay { amount, .. } if BUILD == BROKEN && amount >= 100 => panic!("cannot pay {amount}"),
            Command::Pay { to, amount } => {
                let fee = u64::from(BUILD == WITH_FEE && amount >= 100);
                let told = if BUILD == OTHER_EFFECT { amount + 1 } else { amount };
                Ok(Decision::reply(state.balance - amount - fee)
                    .effect(Effect::ask::<Self>(&to, &Command::Deposit(told), "pay".to_owned()))
                    .effect(Effect::set_timer("remind", context.now_ms + 10, "remind".to_owned()))
                    .event(Event::Paid { to, amount, fee }))
            }
            Command::Remind => Ok(Decision::reply(context.version).event(Event::Reminded { at_ms: context.now_ms })),
            Command::Fail => panic!("never decided"),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Deposited(amount) => state.balance += amount + u64::from(BUILD == OTHER_STATE),
            Event::Paid { to, amount, fee } => {
                state.balance = state.balance.saturating_sub(amount + fee);
                state.paid.push(to.clone());
            }
            Event::Reminded { .. } => {}
        }
    }

    fn resume(_: String, _: Outcome) -> Command {
        Command::Remind
    }
}

/// What a cluster of the old build records of these commands, one every 10 ms from 1,000 on.
fn recorded(commands: &[Command]) -> History {
    let key = EntityKey::new("account", "ann").expect("a key");
    let registry = Registry::new().with::<Account<OLD>>();
    let mut live = registry.get("account").expect("registered").load(None).expect("new");
    let mut history = History::default();
    for (seq, command) in (1..).zip(commands) {
        let at_ms = 990 + seq * 10;
        let command = codec::encode(command);
        let context = Context {
            key: key.clone(),
            version: history.head.version,
            now_ms: at_ms,
        };
        let skipped = command == codec::encode(&Command::Fail);
        let decision = if skipped {
            crate::entity::kind::RawDecision {
                events: Vec::new(),
                reply: Err(Bytes::new()),
                effects: Vec::new(),
            }
        } else {
            live.decide(&command, &context).expect("readable")
        };
        history.head.version += decision.events.len() as u64;
        history.records.push(Recorded {
            entity: key.clone(),
            seq,
            at_ms,
            request_id: format!("r-{seq}"),
            asked_by: "ann".to_owned(),
            trace: crate::TraceContext::default(),
            cause: Cause::Call,
            command,
            reply: decision.reply,
            events: decision.events,
            effects: Some(
                decision
                    .effects
                    .into_iter()
                    .map(|effect| RecordedEffect {
                        request: effect.request,
                        token: effect.token,
                    })
                    .collect(),
            ),
            skipped: skipped.then(|| "it failed".to_owned()),
        });
        history.head.seq = seq;
    }
    history.head.state = Some(live.snapshot());
    history
}

fn pay(amount: u64) -> Command {
    Command::Pay {
        to: "bob".to_owned(),
        amount,
    }
}

/// A day of an account: deposits, payments, one that is refused, a firing, one that people have skipped.
fn day() -> History {
    let mut history = recorded(&[
        Command::Deposit(500),
        pay(50),
        pay(100),
        Command::Remind,
        pay(1_000),
        Command::Fail,
        pay(200),
        Command::Deposit(1),
    ]);
    history.records[3].cause = Cause::Timer {
        name: "remind".to_owned(),
        due_ms: 1_020,
    };
    history
}

fn differing(replayed: &Replayed) -> Vec<(u64, Vec<&'static str>)> {
    (replayed.differences.iter())
        .map(|difference| (difference.record, difference.differs.clone()))
        .collect()
}

#[test]
fn the_same_build_decides_everything_as_it_was() {
    let replayed = replay::<Account<OLD>>(&day()).expect("readable");
    assert!(replayed.is_equal(), "{replayed}");
    assert_eq!((replayed.decisions, replayed.skipped), (7, 1));
}

#[test]
fn a_changed_rule_shows_up_as_the_decisions_that_differ_and_each_stands_alone() {
    let replayed = replay::<Account<WITH_FEE>>(&day()).expect("readable");
    let all = vec!["answer", "events", "state"];
    // The deposit after them is decided on what was recorded: it does not differ.
    assert_eq!(differing(&replayed), [(3, all.clone()), (7, all)]);
    let first = &replayed.differences[0];
    assert_eq!(first.command, json!({"Pay": {"to": "bob", "amount": 100}}));
    assert_eq!(
        (&first.recorded.answer, &first.now.answer),
        (&json!({"reply": 350}), &json!({"reply": 349}))
    );
    assert_eq!(
        first.now.events,
        [json!({"Paid": {"to": "bob", "amount": 100, "fee": 1}})]
    );
    let state: Vec<String> = first.state.iter().map(ToString::to_string).collect();
    assert_eq!(state, ["~ balance: 350 -> 349"]);
    assert!(!replayed.is_equal() && replayed.differing == 2);
    // The events that were recorded add up to the same.
    assert_eq!(replayed.state, []);
}

#[test]
fn a_rejection_that_was_none_differs_too() {
    let replayed = replay::<Account<WITH_LIMIT>>(&day()).expect("readable");
    let all = vec!["answer", "events", "effects", "state"];
    assert_eq!(differing(&replayed), [(3, all.clone()), (7, all)]);
    assert_eq!(replayed.differences[0].now.answer, json!({"rejection": "TooMuch"}));
    assert!(replayed.to_string().contains("record 3"), "{replayed}");
}

#[test]
fn other_effects_and_failures_are_told() {
    let replayed = replay::<Account<OTHER_EFFECT>>(&day()).expect("readable");
    assert_eq!(
        differing(&replayed),
        [(2, vec!["effects"]), (3, vec!["effects"]), (7, vec!["effects"])]
    );
    let effects = |side: &replay::Decided| side.effects.as_ref().expect("kept")[0].clone();
    assert_eq!(
        effects(&replayed.differences[0].now),
        json!({"to": "account/bob", "command": {"Deposit": 51}, "token": "pay"})
    );
    let replayed = replay::<Account<BROKEN>>(&day()).expect("readable");
    assert_eq!(
        differing(&replayed),
        [(3, vec!["answer", "state"]), (7, vec!["answer", "state"])]
    );
    let failure = replayed.differences[0].now.answer.to_string();
    assert!(failure.contains("cannot pay 100"), "{failure}");
}

#[test]
fn a_build_that_makes_another_state_of_the_same_events_is_told_by_the_state_at_the_head() {
    let replayed = replay::<Account<OTHER_STATE>>(&day()).expect("readable");
    let state: Vec<String> = replayed.state.iter().map(ToString::to_string).collect();
    assert_eq!(state, ["~ balance: 151 -> 153"]);
}

#[test]
fn effects_that_were_not_kept_are_not_compared() {
    let mut history = day();
    for record in &mut history.records {
        record.effects = None;
    }
    let replayed = replay::<Account<OTHER_EFFECT>>(&history).expect("readable");
    assert!(replayed.is_equal(), "{replayed}");
    assert_eq!(replayed.without_effects, 7);
}

#[test]
fn a_replay_can_begin_late() {
    let history = day();
    let registry = Registry::new().with::<Account<WITH_FEE>>();
    let key = EntityKey::new("account", "ann").expect("a key");
    let mut replayer = Replayer::new(&registry, &key, &history.base, 1_030).expect("known");
    let taken = history
        .records
        .iter()
        .map(|record| replayer.take(record).expect("readable"));
    assert_eq!(
        taken.flatten().map(|difference| difference.record).collect::<Vec<_>>(),
        [7]
    );
    let replayed = replayer.end(&history.head).expect("readable");
    assert_eq!((replayed.passed_over, replayed.decisions, replayed.skipped), (3, 4, 1));
}

#[test]
fn a_history_whose_beginning_is_gone_replays_from_its_kept_state() {
    let mut history = day();
    let base = at::<Account<OLD>>(&history, Point::Version(2)).expect("told");
    history.base = Base {
        seq: base.seq,
        version: base.version,
        at_ms: base.at_ms,
        state: Some(codec::encode(&base.state)),
    };
    history.records.drain(..2);
    assert!(replay::<Account<OLD>>(&history).expect("readable").is_equal());
    assert_eq!(replay::<Account<WITH_FEE>>(&history).expect("readable").differing, 2);
    assert_eq!(
        at::<Account<OLD>>(&history, Point::Version(2))
            .expect("told")
            .state
            .balance,
        450
    );
    assert!(matches!(
        at::<Account<OLD>>(&history, Point::Version(1)),
        Err(HistoryError::NotKept {
            first: 2,
            first_ms: 1_010,
            ..
        })
    ));
    assert!(matches!(
        at::<Account<OLD>>(&history, Point::Time(1_009)),
        Err(HistoryError::NotKept { .. })
    ));
}

fn balance(history: &History, point: Point) -> Result<(u64, u64), HistoryError> {
    at::<Account<OLD>>(history, point).map(|moment| (moment.version, moment.state.balance))
}

#[test]
fn the_state_at_a_version_or_a_time() {
    let history = day();
    assert_eq!(balance(&history, Point::Version(0)), Ok((0, 0)));
    assert_eq!(balance(&history, Point::Version(2)), Ok((2, 450)));
    assert_eq!(balance(&history, Point::Version(6)), Ok((6, 151)));
    assert_eq!(
        balance(&history, Point::Time(1_019)),
        Ok((2, 450)),
        "the one after it is later"
    );
    assert_eq!(balance(&history, Point::Time(1_020)), Ok((3, 350)));
    assert_eq!(balance(&history, Point::Time(u64::MAX)), Ok((6, 151)));
    let head = HistoryError::Beyond {
        entity: history.records[0].entity.clone(),
        version: 7,
        head: 6,
    };
    assert_eq!(balance(&history, Point::Version(7)), Err(head));
    assert!(matches!(
        balance(&history, Point::Time(999)),
        Err(HistoryError::BeforeFirst { first_ms: 1_000, .. })
    ));
    let nothing = History::default();
    assert!(matches!(
        balance(&nothing, Point::Time(5)),
        Err(HistoryError::Nothing(_))
    ));
    assert!(matches!(
        balance(&nothing, Point::Version(1)),
        Err(HistoryError::Nothing(_))
    ));
}

#[test]
fn a_missing_record_is_noticed() {
    let mut history = day();
    history.records.remove(1);
    assert!(matches!(
        replay::<Account<OLD>>(&history),
        Err(HistoryError::Gap {
            expected: 2,
            found: 3,
            ..
        })
    ));
    assert!(balance(&history, Point::Version(3)).is_err());
}

#[test]
fn what_cannot_be_read_names_its_record() {
    let mut history = day();
    history.records[1].events[0] = Bytes::from_static(b"\xc1");
    let error = replay::<Account<OLD>>(&history).expect_err("not readable");
    assert!(
        error.to_string().starts_with("record 2 of account/ann cannot be taken"),
        "{error}"
    );
    let mut history = day();
    history.records[1].command = Bytes::from_static(b"\xc1");
    let replayed = replay::<Account<OLD>>(&history).expect("the events are readable");
    assert_eq!(differing(&replayed), [(2, vec!["answer", "state"])]);
}

#[test]
fn records_survive_the_wire() {
    for record in day().records {
        let sent = proto::history::v1::Record::from(record.clone());
        assert_eq!(wire::recorded(&record.entity, sent), Ok(record));
    }
}

/// A change that this crate's author must not make by accident: an archive of records is read by later builds.
#[test]
fn a_history_reads_back_from_its_stored_form() {
    let history = day();
    let stored = codec::encode(&history);
    assert_eq!(codec::decode::<History>(&stored).expect("readable"), history);
}
