//! The domain in a world of its own ([`cluster::saga::test`]), with a payment provider that keeps books. [`invariants`] says what
//! must hold once nothing is under way any more.

pub(crate) mod invariants;
pub(crate) mod provider;

use cluster::{
    Outcome,
    saga::test::{Fault, Outside},
};

pub(crate) use provider::Provider;

/// The world of the domain.
pub(crate) type World = cluster::saga::test::World<Provider>;

/// A world that draws from this seed, with a fault at the so-manieth effect.
pub(crate) fn seeded(seed: u64, fault: Option<(usize, Fault)>) -> World {
    World::new(&actors::registry(), Provider::default(), seed, fault)
}

impl Outside for Provider {
    fn call(&mut self, effect: usize, _: &str, request: &[u8]) -> Option<Outcome> {
        let outcome = Provider::call(self, effect, request);
        // Of this card the provider never answers, whatever it has done.
        let is_silent = String::from_utf8_lossy(request).contains(r#""card":"silent""#);
        (!is_silent).then_some(outcome)
    }

    /// An authorisation may be given up, everything else is tried for ever.
    fn is_given_up(&self, _: &str, request: &[u8]) -> bool {
        String::from_utf8_lossy(request).contains(r#""operation":"authorise""#)
    }

    /// The engine knows a repeated command by its id; the domain's know it by what it says, but for this one.
    fn may_repeat(&self, command: &str) -> bool {
        !command.contains(" Restock ")
    }
}
