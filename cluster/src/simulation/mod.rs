//! The simulation: the real driver and the real shards of several nodes in one process, under one seed and in virtual time.
//!
//! Reading order: [`world`] (one run), [`node`] and [`disk`] (what a node has, and what a crash leaves of it), [`boot`]
//! (start and end), [`shell`] (carrying out what the driver says), [`storage`] (checkpoints and snapshots), [`activation`]
//! (what a leader does for its entities), [`clients`], [`faults`], [`network`]; [`invariants`] holds what must be true,
//! [`flaws`] the planted bugs that show that it would be noticed.
//!
//! To run one seed again with its whole trace: `SIM_SEED=123 cargo test -p cluster simulation::one_seed -- --nocapture`.
//! To run many: `SIM_SEEDS=5000 cargo test -p cluster simulation::many_seeds -- --nocapture` (from `SIM_SEED` on).

mod activation;
mod boot;
mod clients;
mod disk;
mod faults;
mod flaws;
mod invariants;
mod network;
mod node;
mod rng;
mod shell;
mod storage;
mod tally;
mod tests;
mod trace;
mod world;
