//! The program `playhouse`: a node of the cluster, the payment provider, the local launcher and the command line. The only
//! place that knows everything.
//!
//! Reading order: [`cli`] (what can be typed), `local` (a whole cluster on one machine), [`app`] (what a node is), [`config`] (what it is told), [`api`] (what it
//! offers over gRPC), [`http`] (the same as JSON, and [`console`]), [`effects`] (what it calls outside), [`telemetry`] (what it tells of itself), [`provider`] (the
//! payment provider beside it).

mod api;
pub mod app;
pub mod cli;
pub mod config;
mod console;
pub mod effects;
pub mod http;
mod local;
pub mod provider;
mod signal;
pub mod telemetry;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Does what the command line says.
pub fn run() -> ExitCode {
    cli::run()
}
