//! The built-in entity `breaker/NAME`: what the cluster knows of the breaker to one dependency outside. Nodes tell it when
//! theirs opens or closes, people what they want of it, and all nodes follow it.

use serde::{Deserialize, Serialize};

use super::breaker::Forced;
use crate::{
    config::NodeId,
    entity::{Context, Decision, Entity, NoToken, Outcome},
};

/// The breaker to one dependency, as the cluster knows it.
pub(crate) struct Dependency;

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) forced: Forced,
    pub(crate) opened: Option<Opened>,
}

/// A node's breaker is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) node: NodeId,
    pub(crate) failures: u32,
    /// By the clock of the node that decided this; the others wait no longer than their own policy says.
    pub(crate) until_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Open { node: NodeId, failures: u32, for_ms: u64 },
    Close { node: NodeId },
    Force(Forced),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Opened(Opened),
    Closed { node: NodeId },
    Forced(Forced),
}

/// It never refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoRejection {}

impl Entity for Dependency {
    const KIND: &'static str = "breaker";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = NoRejection;
    type Token = NoToken;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, NoRejection> {
        let decision = Decision::reply(());
        Ok(match command {
            Command::Open { node, failures, for_ms } => decision.event(Event::Opened(Opened {
                node,
                failures,
                until_ms: context.now_ms.saturating_add(for_ms),
            })),
            Command::Close { node } if state.opened.is_some() => decision.event(Event::Closed { node }),
            Command::Force(forced) if forced != state.forced => decision.event(Event::Forced(forced)),
            Command::Close { .. } | Command::Force(_) => decision,
        })
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Opened(opened) => state.opened = Some(opened.clone()),
            Event::Closed { .. } => state.opened = None,
            Event::Forced(forced) => {
                state.forced = *forced;
                // What was before people stepped in says nothing of now.
                state.opened = None;
            }
        }
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::EntityKey;

    fn after(commands: &[Command]) -> State {
        let mut state = State::default();
        for command in commands {
            let context = Context {
                key: EntityKey::new(Dependency::KIND, "provider").expect("a key"),
                version: 0,
                now_ms: 1_000,
            };
            let decision = Dependency::decide(&state, command.clone(), &context).expect("never refused");
            for event in &decision.events {
                Dependency::evolve(&mut state, event);
            }
        }
        state
    }

    #[test]
    fn it_knows_who_opened_until_when_and_what_people_want() {
        let open = Command::Open {
            node: 2,
            failures: 5,
            for_ms: 60_000,
        };
        let opened = Opened {
            node: 2,
            failures: 5,
            until_ms: 61_000,
        };
        assert_eq!(after(std::slice::from_ref(&open)).opened, Some(opened));
        assert_eq!(after(&[open.clone(), Command::Close { node: 1 }]), State::default());
        let forced = after(&[open, Command::Force(Forced::Closed)]);
        assert_eq!((forced.forced, forced.opened), (Forced::Closed, None));
    }
}
