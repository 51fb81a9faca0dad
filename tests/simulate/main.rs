//! `simulate`: runs many seeds of the simulation, or sees whether it would notice planted bugs.
//!
//! ```text
//! cargo run --release -p tests --bin simulate -- --seeds 10000
//! cargo run --release -p tests --bin simulate -- --planted
//! ```
//!
//! Exit code 0 when all seeds hold (with `--planted`: when each planted bug is noticed), 1 otherwise. `docs/testing.md` says what goes
//! wrong in these runs and what must hold all the same.
//!
//! Reading order: [`arguments`] (what can be typed), [`worlds`] (which runs there are), [`many`] (making many of them at a time),
//! [`report`] (what is said of them), [`planted`]; [`shop`] is the world of the domain.

mod arguments;
mod many;
mod planted;
mod report;
mod shop;
mod worlds;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A run that panics is a finding, told with its seed; the message alone would only be noise.
    std::panic::set_hook(Box::new(|_| {}));
    let holds = if arguments.planted {
        planted::run(&arguments)
    } else {
        let done = many::run(&arguments);
        report::print(&arguments, &done);
        done.found.is_empty()
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
