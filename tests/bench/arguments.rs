//! What can be typed.

use std::{env, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

/// The program that a cluster is started from, beside this one.
const PROGRAM: &str = "playhouse-under-test";

/// One bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Durable commands to single entities over unary calls.
    Commands,
    /// The same over the gateway's streams.
    Stream,
    /// All commands to one entity, with and without the pipelining of its output gate.
    Hot,
    /// Orders of three lines through the whole saga.
    Checkouts,
    /// Where the time of a command goes.
    Split,
    /// How long a cluster with many stored orders takes to start.
    Start,
    /// What clients notice while nodes restart, drain and join.
    Changes,
    /// A million entities, most of them not live: memory, disk, and how long one takes to come back.
    Million,
    /// Ten times the load at which goodput peaks.
    Overload,
    /// A subscriber that is killed again and again, and what it costs those who write.
    Subscribers,
    /// What metrics and traces cost.
    Telemetry,
}

/// Measure a cluster. Without `--address` each bench starts one of its own, in a temporary folder (see TMPDIR).
#[derive(Debug, Clone, Parser)]
#[command(name = "bench")]
pub(crate) struct Arguments {
    /// Which benches; all without a name.
    #[arg(value_enum)]
    names: Vec<Bench>,
    /// How long each figure is measured.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// How long the load runs before measuring begins.
    #[arg(long, value_name = "N", default_value_t = 2)]
    warm_up: u64,
    /// Nodes of the cluster that is started.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) nodes: u8,
    /// Nodes of a cluster that runs already, divided by commas. Processor time is not known then.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) address: Vec<String>,
    /// The program to start; `playhouse-under-test` beside this one without it.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Calls, or commands of all streams together, in flight; each bench has its own list without it.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    in_flight: Vec<usize>,
    /// Connections to each node.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Stock items that commands and order lines are spread over.
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(3..))]
    pub(crate) items: u64,
    /// `checkouts`: every order takes the same three products.
    #[arg(long)]
    pub(crate) hot: bool,
    /// `checkouts`: over the gateway's streams in place of unary calls.
    #[arg(long)]
    pub(crate) gateway: bool,
    /// `start`: how many orders are stored.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) orders: u64,
    /// `changes`: orders a second.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// `million`: how many entities.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) entities: u64,
    /// `subscribers`: how many events.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) events: u64,
    /// `subscribers`: how often the subscriber is killed meanwhile.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) kills: u64,
    /// Threads of the load generator.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) threads: usize,
    /// One line of JSON for each figure.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Arguments {
    /// The benches that are meant.
    pub(crate) fn benches(&self) -> &[Bench] {
        if self.names.is_empty() {
            Bench::value_variants()
        } else {
            &self.names
        }
    }

    /// How long each figure is measured.
    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long the load runs before.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up)
    }

    /// How much is in flight: what was typed, or what the bench does by itself.
    pub(crate) fn in_flight<'a>(&'a self, default: &'a [usize]) -> &'a [usize] {
        if self.in_flight.is_empty() {
            default
        } else {
            &self.in_flight
        }
    }

    /// Connections to each node.
    pub(crate) fn connections(&self) -> usize {
        self.connections as usize
    }

    /// The program to start.
    pub(crate) fn program(&self) -> Result<String, String> {
        let path = match &self.program {
            Some(path) => path.clone(),
            None => env::current_exe()
                .map_err(|error| format!("this program's own file cannot be found: {error}"))?
                .with_file_name(PROGRAM),
        };
        if !path.is_file() {
            return Err(format!(
                "{} is not there; build it with `cargo build --release -p tests`, or name another with --program",
                path.display()
            ));
        }
        Ok(path.display().to_string())
    }
}
