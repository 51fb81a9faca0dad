//! The local launcher: a cluster of real processes on one machine, for `playhouse up` and for tests.
//!
//! `layout` says where everything lies, `process` starts and signals one process, `ready` asks nodes whether they
//! serve, `launcher` owns the processes from start to stop, `members` are nodes that come and go meanwhile, `control` is the socket through which `playhouse kill`
//! and its kin reach it, `state` is what it leaves in the data folder for people and scripts, `load` is the demo's
//! customers.

pub(crate) mod control;
pub(crate) mod launcher;
pub(crate) mod layout;
pub(crate) mod load;
mod members;
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod state;

/// Nodes of a local cluster.
pub(crate) const NODES_MAX: u8 = 32;
/// The provider listens this far above the base port.
pub(crate) const PROVIDER_PORT_OFFSET: u16 = 90;
