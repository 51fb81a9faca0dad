//! What can be typed.

use std::process::ExitCode;

/// Does what the command line says.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
