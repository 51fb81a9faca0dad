//! How nodes reach each other, over gRPC.
//!
//! For each pair of nodes two connections: one for consensus, one for everything else, so that a heartbeat never waits
//! behind data. Reading order: [`links`] (the connections to all peers), [`consensus`] (Raft messages), [`forward`] (commands
//! and reads on their way to a leader), [`frames`] (how they are packed and bounded), [`shaped`] (connections
//! that can be cut and slowed, for trials), [`outcome`] (their answers on the wire), [`server`] (the other end of all of it).

pub(crate) mod consensus;
pub(crate) mod forward;
mod frames;
pub(crate) mod links;
pub(crate) mod outcome;
pub(crate) mod server;
mod shaped;

/// The largest message between nodes, in bytes: a frame of several Raft messages with their entries.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
