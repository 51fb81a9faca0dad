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
    /// Whose effects the last of them were, the last one last. Only a chain that is about to end is asked for its path, so
    /// none is kept before that: every record and every effect would carry it.
    pub(crate) path: Vec<EntityKey>,
}

impl Chain {
    /// The place of what `from` sends because of a command at this place. Past `depth_max` the chain ends.
    pub(crate) fn after(cause: Option<&Self>, from: &EntityKey, depth_max: u32) -> Self {
        let mut next = cause.cloned().unwrap_or_default();
        next.depth = next.depth.saturating_add(1);
        if next.depth as usize + PATH_LEN_MAX > depth_max as usize + 1 {
            if next.path.len() >= PATH_LEN_MAX {
                next.path.remove(0);
            }
            next.path.push(from.clone());
        }
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

    fn key(text: &str) -> EntityKey {
        EntityKey::parse(text).expect("a key")
    }

    /// A chain of two entities that send each other commands, just too deep.
    fn ended(depth_max: u32) -> Chain {
        (0..=depth_max).fold(Chain::default(), |chain, n| {
            Chain::after(Some(&chain), &key(if n % 2 == 0 { "a/1" } else { "b/2" }), depth_max)
        })
    }

    #[test]
    fn a_chain_that_ends_knows_the_last_part_of_its_path() {
        let chain = ended(64);
        assert_eq!((chain.depth, chain.path.len()), (65, PATH_LEN_MAX));
        assert!(chain.to(&key("b/2")).starts_with("... -> "), "{chain}");
        assert!(chain.to(&key("b/2")).ends_with("a/1 -> b/2 -> a/1 -> b/2"), "{chain}");
    }

    #[test]
    fn a_short_limit_gives_the_whole_path() {
        assert_eq!(ended(2).to(&key("b/2")), "a/1 -> b/2 -> a/1 -> b/2");
    }

    #[test]
    fn a_chain_far_from_its_end_carries_no_path() {
        let chain = Chain::after(None, &key("a/1"), 64);
        assert_eq!((chain.depth, chain.path.len()), (1, 0));
    }
}
