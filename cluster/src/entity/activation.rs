//! The live form of an entity on its shard's leader.
