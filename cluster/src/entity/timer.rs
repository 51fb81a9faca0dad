//! An entity's timers, as its author sets them, and what they may be.
//!
//! A timer belongs to its entity and has a name in it; setting one of the same name replaces it. Its due time is absolute
//! and computed by `decide` from [`Context::now_ms`](super::Context::now_ms), so that a decision stays a function of what
//! is recorded. It fires once: its token comes back through [`Entity::resume`](super::Entity::resume) with
//! [`Outcome::Fired`](super::Outcome::Fired), and the record of the resulting command is the firing. A timer that was
//! cancelled or replaced before that record was decided does not fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::decision::EffectRequest;

/// The longest name of a timer, in bytes.
pub const TIMER_NAME_LEN_MAX: usize = 64;
/// Timers that one entity may have at a time.
pub const TIMERS_PER_ENTITY_MAX: usize = 64;
/// The shortest time between two firings of a repeating timer, in milliseconds.
pub const TIMER_EVERY_MIN_MS: u64 = 100;

/// Why a decision cannot be taken: it wants a timer that cannot be. Its command fails, and nothing of it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimerError {
    /// Its name is empty, longer than [`TIMER_NAME_LEN_MAX`], or contains control characters.
    #[error("{name:?} is no name of a timer: 1 to {TIMER_NAME_LEN_MAX} bytes without control characters are")]
    Name {
        /// The name.
        name: String,
    },
    /// More than [`TIMERS_PER_ENTITY_MAX`].
    #[error("it would have more than {TIMERS_PER_ENTITY_MAX} timers; let one timer stand for several things")]
    TooMany,
    /// More often than every [`TIMER_EVERY_MIN_MS`].
    #[error("the timer {name:?} would fire every {every_ms} ms; at least {TIMER_EVERY_MIN_MS} ms are needed")]
    TooOften {
        /// The timer.
        name: String,
        /// What was wanted, in milliseconds.
        every_ms: u64,
    },
}

/// Whether a decision's timers are within the limits, for an entity that has the timers of these names.
pub(crate) fn check<'a, T>(
    effects: impl Iterator<Item = &'a EffectRequest>,
    armed: &'a BTreeMap<Arc<str>, T>,
) -> Result<(), TimerError> {
    let mut after: Option<BTreeSet<&str>> = None;
    let names = || armed.keys().map(|name| &**name).collect();
    for effect in effects {
        match effect {
            EffectRequest::SetTimer { name, every_ms, .. } => {
                if name.is_empty() || name.len() > TIMER_NAME_LEN_MAX || name.contains(char::is_control) {
                    return Err(TimerError::Name { name: name.to_string() });
                }
                if let Some(every_ms) = every_ms.filter(|every_ms| *every_ms < TIMER_EVERY_MIN_MS) {
                    let name = name.to_string();
                    return Err(TimerError::TooOften { name, every_ms });
                }
                let after = after.get_or_insert_with(names);
                after.insert(name);
                if after.len() > TIMERS_PER_ENTITY_MAX {
                    return Err(TimerError::TooMany);
                }
            }
            EffectRequest::CancelTimer { name } => {
                after.get_or_insert_with(names).remove(&**name);
            }
            EffectRequest::Command { .. } | EffectRequest::Call { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, every_ms: Option<u64>) -> EffectRequest {
        EffectRequest::SetTimer {
            name: name.into(),
            due_ms: 5,
            every_ms,
        }
    }

    #[test]
    fn what_cannot_be_a_timer_says_why() {
        let none = BTreeMap::<_, u64>::new();
        assert_eq!(
            check([set("expiry", None), set("poll", Some(100))].iter(), &none),
            Ok(())
        );
        let long = "x".repeat(TIMER_NAME_LEN_MAX + 1);
        for name in ["", "a\0b", &long] {
            let name = name.to_owned();
            assert_eq!(check([set(&name, None)].iter(), &none), Err(TimerError::Name { name }));
        }
        let often = TimerError::TooOften {
            name: "poll".to_owned(),
            every_ms: 99,
        };
        assert_eq!(check([set("poll", Some(99))].iter(), &none), Err(often));
    }

    #[test]
    fn an_entity_has_so_many_timers_and_no_more() {
        let armed: BTreeMap<Arc<str>, usize> = (0..TIMERS_PER_ENTITY_MAX).map(|n| (n.to_string().into(), n)).collect();
        assert_eq!(check([set("0", None)].iter(), &armed), Ok(()), "one is replaced");
        assert_eq!(check([set("new", None)].iter(), &armed), Err(TimerError::TooMany));
        let cancel = EffectRequest::CancelTimer { name: "0".into() };
        assert_eq!(
            check([cancel, set("new", None)].iter(), &armed),
            Ok(()),
            "one makes room"
        );
    }
}
