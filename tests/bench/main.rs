//! `bench`: measures a cluster of real processes from outside, over gRPC, as its clients see it.
//!
//! ```text
//! cargo build --release -p tests
//! cargo run --release -p tests --bin bench -- commands stream --seconds 10
//! ```
//!
//! Every figure comes with the cores of the machine, what its device takes for a sync, and the processor time that the
//! nodes took for one command: that one is the steadiest. `docs/benchmarks.md` says what each bench measures.
//!
//! [`arguments`] (what can be typed), [`target`] (what is measured), [`workload`] (what is sent), [`load`] (how it is
//! sent), [`figure`] (what came of it), [`process`] (what the processes used); then one file for each bench.

mod arguments;
mod changes;
mod checkouts;
mod collector;
mod commands;
mod figure;
mod load;
mod million;
mod overload;
mod process;
mod split;
mod start;
mod subscribers;
mod target;
mod telemetry;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Bench};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()
        .expect("the system gives a few threads");
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    for bench in arguments.benches() {
        match bench {
            Bench::Commands => commands::unary(arguments).await?,
            Bench::Stream => commands::stream(arguments).await?,
            Bench::Hot => commands::hot(arguments).await?,
            Bench::Checkouts => checkouts::run(arguments).await?,
            Bench::Split => split::run(arguments).await?,
            Bench::Start => start::run(arguments).await?,
            Bench::Changes => changes::run(arguments).await?,
            Bench::Million => million::run(arguments).await?,
            Bench::Overload => overload::run(arguments).await?,
            Bench::Subscribers => subscribers::run(arguments).await?,
            Bench::Telemetry => telemetry::run(arguments).await?,
        }
    }
    Ok(())
}
