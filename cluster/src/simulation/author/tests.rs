//! An author's simulation at work: what holds is let through, what does not is found, and a seed is all there is to know.

use serde::{Deserialize, Serialize};

use super::{Bug, Served, Simulation, Step, World};
use crate::{Answer, Context, Decision, Effect, Entity, Outcome, Registry, simulation::rng::Rng};

/// A purse that pays others, draws money from a bank, and asks it again a day after it failed.
struct Purse;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    money: u64,
    /// Paid and not yet known to have arrived.
    on_its_way: u64,
    drawn: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Draw(u64),
    Pay { to: String, amount: u64 },
    Take(u64),
    Settle { amount: u64, is_taken: bool },
    Drawn { amount: u64, is_done: bool },
    Note,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Drew(u64),
    Paying(u64),
    Took(u64),
    Settled { amount: u64, is_taken: bool },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Token {
    Paid(u64),
    Drawn(u64),
    DrawAgain(u64),
    Patience { amount: u64 },
}

/// A purse that loses patience: it takes the money back though the other may have it.
struct Hasty;

fn decide<E>(state: &State, command: Command, context: &Context, hasty: bool) -> Result<Decision<E>, String>
where
    E: Entity<State = State, Command = Command, Event = Event, Reply = u64, Rejection = String, Token = Token>,
{
    let reply = Decision::reply(state.money);
    Ok(match command {
        Command::Draw(amount) => reply.effect(Effect::call("bank", &amount, Token::Drawn(amount))),
        Command::Drawn { amount, is_done: true } => reply.event(Event::Drew(amount)),
        Command::Drawn { amount, is_done: false } => {
            let tomorrow_ms = context.now_ms + 86_400_000;
            reply.effect(Effect::set_timer("draw", tomorrow_ms, Token::DrawAgain(amount)))
        }
        Command::Pay { amount, .. } if amount > state.money => return Err("not enough".to_owned()),
        Command::Pay { to, amount } => {
            let patience_ms = context.now_ms + 300;
            let patience = Effect::set_timer("patience", patience_ms, Token::Patience { amount });
            reply
                .event(Event::Paying(amount))
                .effect(Effect::ask::<E>(&to, &Command::Take(amount), Token::Paid(amount)))
                .effects(hasty.then_some(patience))
        }
        Command::Take(_) if &*context.key.id == "shut" => return Err("shut".to_owned()),
        Command::Take(amount) => reply
            .event(Event::Took(amount))
            .effect(Effect::tell::<E>("ledger", &Command::Note)),
        Command::Settle { amount, is_taken } if amount <= state.on_its_way => {
            reply.event(Event::Settled { amount, is_taken })
        }
        Command::Settle { .. } | Command::Note => reply,
    })
}

fn evolve(state: &mut State, event: &Event) {
    match event {
        Event::Drew(amount) => {
            state.money += amount;
            state.drawn += amount;
        }
        Event::Took(amount) => state.money += amount,
        Event::Paying(amount) => {
            state.money -= amount;
            state.on_its_way += amount;
        }
        Event::Settled { amount, is_taken } => {
            state.on_its_way -= amount;
            state.money += if *is_taken { 0 } else { *amount };
        }
    }
}

fn resume<E>(token: &Token, outcome: &Outcome) -> Command
where
    E: Entity,
{
    match *token {
        Token::Paid(amount) => Command::Settle {
            amount,
            is_taken: matches!(outcome.answer::<E>(), Answer::Replied(_)),
        },
        Token::Drawn(amount) => Command::Drawn {
            amount,
            is_done: outcome.json::<u64>() == Ok(amount),
        },
        Token::DrawAgain(amount) => Command::Draw(amount),
        Token::Patience { amount } => Command::Settle {
            amount,
            is_taken: false,
        },
    }
}

macro_rules! purse {
    ($name:ident, $hasty:literal) => {
        impl Entity for $name {
            const KIND: &'static str = "purse";
            type State = State;
            type Command = Command;
            type Event = Event;
            type Reply = u64;
            type Rejection = String;
            type Token = Token;
            fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, String> {
                decide(state, command, context, $hasty)
            }
            fn evolve(state: &mut State, event: &Event) {
                evolve(state, event);
            }
            fn resume(token: Token, outcome: Outcome) -> Command {
                resume::<Self>(&token, &outcome)
            }
        }
    };
}

purse!(Purse, false);
purse!(Hasty, true);

const NAMES: [&str; 5] = ["ann", "bob", "cid", "dee", "shut"];

fn workload<E: Entity<Command = Command>>(rng: &mut Rng, step: u64) -> Step {
    let (from, to) = (rng.pick(&NAMES), rng.pick(&NAMES));
    if step < 4 || rng.chance(200) {
        return Step::ask::<E>(from, Command::Draw(rng.between(1, 50)));
    }
    let (to, amount) = (to.to_owned(), rng.between(1, 10));
    Step::ask::<E>(from, Command::Pay { to, amount })
}

fn bank(amount: u64, rng: &mut Rng) -> Served<u64> {
    if rng.chance(200) {
        Served::GivenUp("closed".to_owned())
    } else {
        Served::Done(amount)
    }
}

fn is_conserved<E: Entity<State = State>>(world: &World<'_>) -> Result<(), String> {
    let states = world.states::<E>();
    let all: u64 = states.values().map(|state| state.money).sum();
    let drawn: u64 = states.values().map(|state| state.drawn).sum();
    let paid = world.calls::<u64, u64>("bank");
    let paid = paid.iter().filter_map(|call| match call.served {
        Served::Done(amount) => Some(amount),
        _ => None,
    });
    let paid: u64 = paid.sum();
    if all == drawn && drawn == paid {
        return Ok(());
    }
    Err(format!(
        "{all} are there, {drawn} were drawn, the bank gave {paid}: {states:?}"
    ))
}

fn simulation<E>() -> Simulation
where
    E: Entity<State = State, Command = Command>,
{
    Simulation::new(Registry::new().with::<E>())
        .workload(workload::<E>)
        .service("bank", bank)
        .invariant("money is conserved", is_conserved::<E>)
        .always("nothing is on its way twice", |world| {
            for (id, state) in world.states::<E>() {
                if state.on_its_way > state.drawn + 10_000 {
                    return Err(id);
                }
            }
            Ok(())
        })
}

#[test]
fn what_holds_is_let_through_under_all_faults() {
    let summary = simulation::<Purse>().seeds(0..60).run();
    println!("{:#?}", summary.counts);
    let happened = |what: &str| summary.counts.get(what).copied().unwrap_or_default();
    for what in [
        "operations",
        "crashes",
        "partitions",
        "disks lost",
        "effects",
        "effects repeated",
        "calls",
        "timers fired",
        "answered again",
        "snapshots installed",
    ] {
        assert!(happened(what) > 10, "{what}: {}", happened(what));
    }
}

#[test]
fn what_holds_is_let_through_in_all_weather() {
    let summary = simulation::<Purse>().seeds(0..40).storms(true).run();
    println!("{:#?}", summary.counts);
    let happened = |what: &str| summary.counts.get(what).copied().unwrap_or_default();
    for what in ["clock jumps", "links clogged", "disks slow", "damage found"] {
        assert!(happened(what) > 0, "{what}: {:#?}", summary.counts);
    }
}

#[test]
fn a_broken_promise_of_the_engine_is_noticed_by_an_author_s_invariants() {
    let bugs = [
        (Bug::OutboxBeforeCommit, 60),
        (Bug::OutboxForgotten, 10),
        (Bug::NoDeduplication, 10),
        (Bug::TimersFiredTwice, 60),
    ];
    for (bug, seeds_max) in bugs {
        let planted = simulation::<Purse>().seeds(0..seeds_max).shrink(false).plant(bug);
        let found = planted.try_run().expect_err("it is noticed");
        println!("{bug:?}: seed {}, {}: {}", found.seed, found.invariant, found.what);
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let hash = |seed| simulation::<Purse>().seeds(seed..seed + 1).run().trace_hash;
    for seed in 0..4 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(0), hash(1));
}

#[test]
fn a_bug_is_found_with_what_led_to_it() {
    let found = simulation::<Hasty>().seeds(0..60).try_run().expect_err("it is found");
    println!("{found}");
    assert_eq!(found.invariant, "money is conserved");
    let again = simulation::<Hasty>().seeds(found.seed..found.seed + 1).try_run();
    assert_eq!(again.expect_err("it is found again"), found);
    let text = found.to_string();
    assert!(text.contains("PLAYHOUSE_SEED=") && text.contains("decides"), "{text}");
}

#[test]
fn what_a_simulation_lacks_is_said() {
    let without = Simulation::new(Registry::new().with::<Purse>()).workload(workload::<Purse>);
    let found = without.seeds(0..1).try_run().expect_err("it has no bank");
    assert_eq!(found.invariant, "services");
    assert!(
        found.what.contains("add it with .service(\"bank\", ...)"),
        "{}",
        found.what
    );
}

#[test]
fn an_invariant_that_asserts_says_as_much_as_one_that_returns_an_error() {
    let asserting = simulation::<Purse>().invariant("asserts", |_| panic!("not so"));
    let found = asserting.seeds(0..1).try_run().expect_err("it does not hold");
    assert_eq!((found.invariant, found.what.as_str()), ("asserts", "not so"));
}
