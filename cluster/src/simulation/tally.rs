//! The entity of the simulation: it counts, and its events name the requests that caused them.

use serde::{Deserialize, Serialize};

use crate::entity::{Context, Decision, Effect, Entity, NoToken, Outcome};

pub(super) struct Tally;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct TallyState {
    pub(super) count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Command {
    /// Count one more.
    Add { request: String, with_effect: bool },
    /// Be told no, which is recorded too.
    Refuse,
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
    type Token = NoToken;

    fn decide(state: &TallyState, command: Command, _context: &Context) -> Result<Decision<Self>, u64> {
        match command {
            Command::Add { request, with_effect } => {
                let effect = with_effect.then(|| Effect::tell::<Self>("elsewhere", &Command::Refuse));
                Ok(Decision::reply(state.count + 1)
                    .event(Added { request })
                    .effects(effect))
            }
            Command::Refuse => Err(state.count),
        }
    }

    fn evolve(state: &mut TallyState, _event: &Added) {
        state.count += 1;
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}
