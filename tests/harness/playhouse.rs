//! The `playhouse` binary, for the tests of this package to start.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::run()
}
