//! How deep a command is in a chain of effects, and by which way it came there. An effect to another entity is one deeper than the
//! command that caused it; an outcome comes back at the depth of who asked; clients and timers begin anew.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entity::EntityKey;

/// The last so many entities of a path are kept.
pub(crate) const PATH_LEN_MAX: usize = 8;

/// A command's place in a chain of effects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// The number of effects before it.
    pub(crate) depth: u32,
    /// Whose effects they were, the last one last.
    pub(crate) path: Vec<EntityKey>,
}

impl Chain {
    /// The place of what `from` sends because of a command at this place.
    pub(crate) fn after(cause: Option<&Self>, from: &EntityKey) -> Self {
        let mut next = cause.cloned().unwrap_or_default();
        next.depth = next.depth.saturating_add(1);
        if next.path.len() >= PATH_LEN_MAX {
            next.path.remove(0);
        }
        next.path.push(from.clone());
        next
    }

    /// The path with where it would have gone on to.
    pub(crate) fn to(&self, target: &EntityKey) -> String {
        format!("{self} -> {target}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth as usize > self.path.len() {
            f.write_str("... -> ")?;
        }
        for (place, key) in self.path.iter().enumerate() {
            write!(f, "{}{key}", if place == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_end_and_counts_all_of_it() {
        let key = |text: &str| EntityKey::parse(text).expect("a key");
        let first = Chain::after(None, &key("a/1"));
        assert_eq!(first.to(&key("b/2")), "a/1 -> b/2");
        let mut chain = first;
        for n in 0..100 {
            chain = Chain::after(Some(&chain), &key(if n % 2 == 0 { "b/2" } else { "a/1" }));
        }
        assert_eq!((chain.depth, chain.path.len()), (101, PATH_LEN_MAX));
        assert!(chain.to(&key("a/1")).starts_with("... -> "), "{chain}");
        assert!(chain.to(&key("b/2")).ends_with("b/2 -> a/1 -> b/2"), "{chain}");
    }
}
