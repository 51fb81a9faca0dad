//! The entity of the simulation: it counts, and its events name the requests that caused them. In some runs it has timers.

use serde::{Deserialize, Serialize};

use crate::entity::{Context, Decision, Effect, Entity, Outcome};

pub(super) struct Tally;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct TallyState {
    pub(super) count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Command {
    /// Count one more.
    Add {
        request: String,
        with_effect: bool,
    },
    /// Be told no, which is recorded too.
    Refuse,
    SetTimer {
        label: String,
        name: String,
        due_ms: u64,
        every_ms: Option<u64>,
    },
    CancelTimer {
        name: String,
    },
    /// The timer that was set under this label has fired.
    Fired {
        label: String,
        due_ms: u64,
        missed: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Added {
    pub(super) request: String,
}

impl Entity for Tally {
    const KIND: &'static str = "tally";
    type State = TallyState;
    type Command = Command;
    type Event = Added;
    type Reply = u64;
    type Rejection = u64;
    /// The label of a timer.
    type Token = String;

    fn decide(state: &TallyState, command: Command, _context: &Context) -> Result<Decision<Self>, u64> {
        match command {
            Command::Add { request, with_effect } => {
                let effect = with_effect.then(|| Effect::tell::<Self>("elsewhere", &Command::Refuse));
                Ok(Decision::reply(state.count + 1)
                    .event(Added { request })
                    .effects(effect))
            }
            Command::Refuse => Err(state.count),
            Command::SetTimer {
                label,
                name,
                due_ms,
                every_ms,
            } => Ok(Decision::reply(state.count).effect(match every_ms {
                Some(every_ms) => Effect::repeat_timer(&name, due_ms, every_ms, label),
                None => Effect::set_timer(&name, due_ms, label),
            })),
            Command::CancelTimer { name } => Ok(Decision::reply(state.count).effect(Effect::cancel_timer(&name))),
            Command::Fired { .. } => Ok(Decision::reply(state.count)),
        }
    }

    fn evolve(state: &mut TallyState, _event: &Added) {
        state.count += 1;
    }

    fn resume(label: String, outcome: Outcome) -> Command {
        let Outcome::Fired { due_ms, missed } = outcome else {
            panic!("only timers have a token: {outcome:?}")
        };
        Command::Fired { label, due_ms, missed }
    }
}
