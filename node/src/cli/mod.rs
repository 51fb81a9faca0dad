//! What can be typed.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{app, provider, telemetry};

#[derive(Parser)]
#[command(name = "playhouse", version, about = "Durable actors that take orders")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node from a config file.
    Node {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a payment provider.
    Provider(provider::Options),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Node { config } => app::run_node(&config).await,
            Command::Provider(options) => {
                telemetry::log::install(telemetry::log::LogFormat::Human);
                provider::run(options).await.map_err(miette::Report::from)
            }
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}
