//! Builds a decision step by step, with the state as it will be after the events so far.

use cluster::{Decision, Effect, Entity};

/// A decision in the making. Entities with more than one event to a command use it, so that the second event is decided
/// on the state that the first leaves behind.
pub(crate) struct Plan<E: Entity> {
    state: E::State,
    events: Vec<E::Event>,
    effects: Vec<Effect<E>>,
}

impl<E: Entity> Plan<E> {
    pub(crate) fn new(state: &E::State) -> Self {
        Self {
            state: state.clone(),
            events: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// The state after the events so far.
    pub(crate) fn state(&self) -> &E::State {
        &self.state
    }

    pub(crate) fn record(&mut self, event: E::Event) {
        E::evolve(&mut self.state, &event);
        self.events.push(event);
    }

    pub(crate) fn send(&mut self, effect: Effect<E>) {
        self.effects.push(effect);
    }

    pub(crate) fn reply(self, reply: E::Reply) -> Decision<E> {
        Decision {
            events: self.events,
            reply,
            effects: self.effects,
        }
    }
}
