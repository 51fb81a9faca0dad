//! The `playhouse` program as a library, so that the tests' package can build the same program.

mod app;
pub mod cli;
mod local;
mod provider;

use std::process::ExitCode;

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    cli::run()
}
