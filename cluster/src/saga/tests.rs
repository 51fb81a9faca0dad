//! The machine, by golden scripts of a saga that has one of everything, by chance ([`chances`]), and tables that cannot be.

mod chances;

use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    NoToken, Registry,
    entity::script::{Script, golden},
};

/// Somebody who is asked; what they decide does not matter here.
pub(super) struct Other;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum OtherCommand {
    Do(String),
    Undo(String),
    Ended(End),
}

impl Entity for Other {
    const KIND: &'static str = "other";
    type State = ();
    type Command = OtherCommand;
    type Event = ();
    type Reply = String;
    type Rejection = String;
    type Token = NoToken;

    fn decide((): &(), _: OtherCommand, _: &Context) -> Result<Decision<Self>, String> {
        Ok(Decision::reply(String::new()))
    }
    fn evolve((): &mut (), (): &()) {}
    fn resume(token: NoToken, _: Outcome) -> OtherCommand {
        match token {}
    }
}

/// Has one of everything.
pub(super) struct Everything;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) parts: Vec<String>,
    #[serde(default)]
    pub(super) secret: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    Ready(String),
    Spoiled,
}

fn act(work: &Work<'_, Everything>) -> Action {
    Action::ask::<Other>(work.id(), &OtherCommand::Do(work.key().to_owned()))
}

fn undo(work: &Work<'_, Everything>) -> Action {
    Action::ask::<Other>(work.id(), &OtherCommand::Undo(work.key().to_owned()))
}

fn parts(known: &Known<'_, Everything>) -> Vec<String> {
    let except: Vec<&str> = known.except("parts").collect();
    let mut parts = known.input().parts.clone();
    parts.retain(|part| !except.contains(&part.as_str()));
    parts
}

impl Saga for Everything {
    const NAME: &'static str = "everything";
    const DEADLINE_MS: Option<u64> = Some(1_000_000);
    const TABLE: &'static [Stage<Self>] = &[
        Stage::given("given").undo(undo),
        Stage::new("look", act)
            .nothing_to_undo()
            .judge(|step, outcome| match outcome.answer::<Other>() {
                crate::Answer::Replied(word) => Verdict::Learned(word),
                _ => Verdict::usual(step, outcome),
            }),
        Stage::new("parts", act)
            .each(parts)
            .undo(undo)
            .deadline_ms(60_000)
            .retry(Retry::times(3, 1_000, 10_000))
            .judge(|step, outcome| match outcome.answer::<Other>() {
                crate::Answer::Rejected(why) if why == "without me" => Verdict::StartOver(why),
                _ => Verdict::usual(step, outcome),
            }),
        Stage::new("slow", act)
            .undo(undo)
            .undo_at_once()
            .judge(|step, outcome| match outcome {
                Outcome::Replied(_) => Verdict::Underway,
                _ => Verdict::usual(step, outcome),
            }),
        Stage::new("point", act).point_of_no_return(),
        Stage::new("must", act).each(parts),
        Stage::new("may", act).or_go_on(),
    ];
    type Input = Parts;
    type Fact = String;
    type Signal = Word;

    fn check(_: &str, input: &Parts) -> Result<(), String> {
        match input.parts.len() {
            0..=9 => Ok(()),
            _ => Err("at most nine parts".to_owned()),
        }
    }
    fn hear(_: &Work<'_, Self>, word: Word) -> Heard<String> {
        match word {
            Word::Ready(fact) => Heard::Answer(Step::new("slow", ""), Verdict::Learned(fact)),
            Word::Spoiled => Heard::TurnBack("spoiled: yes".to_owned()),
        }
    }
    fn ended(work: &Work<'_, Self>, end: End) -> Vec<Action> {
        vec![Action::ask::<Other>(work.id(), &OtherCommand::Ended(end))]
    }
    fn forget(input: &mut Parts) {
        input.secret.clear();
    }
}

#[test]
fn golden_scripts() {
    golden::<Everything>(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/golden"));
}

#[test]
fn an_outcome_is_small_where_it_is_stored() {
    let done: Event<Parts, String> = Event::Done {
        step: Step::new("reserve", "85123A"),
        fact: None,
        next: None,
    };
    assert_eq!(crate::codec::encode(&done).len(), 27);
    let of = StepToken {
        step: Step::new("reserve", "85123A"),
        undo: false,
        round: 1,
        attempt: 1,
    };
    let answered: Command<Parts, String, NoSignal> = Command::Answered(of, Verdict::Done);
    assert_eq!(crate::codec::encode(&answered).len(), 37);
}

// Tables that cannot be.

macro_rules! wrong {
    ($name:ident, $table:expr, $error:expr) => {
        #[test]
        fn $name() {
            struct Wrong;
            impl Saga for Wrong {
                const NAME: &'static str = "wrong";
                const TABLE: &'static [Stage<Self>] = $table;
                type Input = ();
                type Fact = ();
                type Signal = NoSignal;
            }
            assert_eq!(check::<Wrong>(), Err($error));
        }
    };
}

fn any<S: Saga>(_: &Work<'_, S>) -> Action {
    Action::ask::<Other>("x", &OtherCommand::Do(String::new()))
}

wrong!(no_stage, &[], TableError::Length(0));
wrong!(
    a_name_with_a_blank,
    &[Stage::new("a b", any).undo(any)],
    TableError::Name("a b")
);
wrong!(
    two_of_a_name,
    &[Stage::new("a", any).undo(any), Stage::new("a", any).undo(any)],
    TableError::Twice("a")
);
wrong!(no_undo, &[Stage::new("a", any)], TableError::NoUndo("a"));
wrong!(
    no_undo_of_what_is_given,
    &[Stage::given("a"), Stage::new("b", any).undo(any)],
    TableError::NoUndo("a")
);
wrong!(
    given_in_the_middle,
    &[Stage::new("a", any).undo(any), Stage::given("b").undo(any)],
    TableError::GivenBelow("b")
);
wrong!(nothing_to_do, &[Stage::given("a").undo(any)], TableError::NothingToDo);
wrong!(
    two_points,
    &[
        Stage::new("a", any).point_of_no_return(),
        Stage::new("b", any).point_of_no_return()
    ],
    TableError::TwoPoints("a", "b")
);
wrong!(
    an_undo_after_the_point,
    &[
        Stage::new("a", any).point_of_no_return(),
        Stage::new("b", any).undo(any)
    ],
    TableError::UndoAfterPoint("b")
);
wrong!(
    an_undo_of_nothing,
    &[Stage::new("a", any).undo(any).nothing_to_undo()],
    TableError::UndoOfNothing("a")
);
wrong!(
    a_point_of_many,
    &[Stage::new("a", any).each(|_| Vec::new()).point_of_no_return()],
    TableError::PointOfMany("a")
);
wrong!(
    a_deadline_after_the_point,
    &[
        Stage::new("a", any).point_of_no_return(),
        Stage::new("b", any).deadline_ms(5)
    ],
    TableError::DeadlineAfterPoint("b")
);
wrong!(
    going_on_before_the_point,
    &[Stage::new("a", any).undo(any).or_go_on()],
    TableError::GoesOnBeforePoint("a")
);
wrong!(
    no_tries,
    &[Stage::new("a", any).undo(any).retry(Retry::times(0, 1, 1))],
    TableError::Value {
        stage: "a",
        reason: "retry tries 0 times; 1 is the least"
    }
);

#[test]
#[should_panic(expected = "the table of the saga wrong: the stage \"a\" can be turned back from and has no undo")]
fn a_wrong_table_is_refused_when_it_is_registered() {
    struct Wrong;
    impl Saga for Wrong {
        const NAME: &'static str = "wrong";
        const TABLE: &'static [Stage<Self>] = &[Stage::new("a", any)];
        type Input = ();
        type Fact = ();
        type Signal = NoSignal;
    }
    drop(Registry::new().with::<Wrong>());
}

#[test]
fn pauses_double_up_to_the_longest_and_are_spread() {
    let retry = Retry::times(9, 100, 1_000);
    let pauses = |salt| {
        (1..=6)
            .map(|failures| retry.pause_ms(failures, salt))
            .collect::<Vec<_>>()
    };
    assert_eq!(pauses(0), [80, 160, 320, 640, 800, 800]);
    assert!((0..1_000).all(|salt| (80..=120).contains(&retry.pause_ms(1, salt))));
    assert!((0..1_000).all(|salt| retry.pause_ms(40, salt) <= 1_200));
}

#[test]
fn a_saga_is_tested_as_every_entity_is() {
    let parts = Parts {
        parts: vec!["a".to_owned()],
        secret: String::new(),
    };
    let script = Script::<Everything>::new("e")
        .when(Command::Start(parts))
        .then_reply(Phase::Running);
    assert_eq!(
        script.effects()[0].command::<Other>(),
        Some(("e".to_owned(), OtherCommand::Do(String::new())))
    );
}
