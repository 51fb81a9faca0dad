//! `playhouse up`: a local cluster of real processes, until Ctrl-C.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Instant,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    failure::Failure,
    output::{print_json, print_text},
};
use crate::local::{
    NODES_MAX,
    launcher::Launcher,
    layout::{BASE_PORT_MAX, DATA_DEFAULT, Layout},
    load::{self, Tally},
    ready::Progress,
    state::State,
};

/// Nodes of a new cluster.
const NODES_DEFAULT: u8 = 3;
/// Shards of a new cluster.
const SHARDS_DEFAULT: u32 = 16;
/// More shards cost more than they bring on one machine.
const SHARDS_MAX: u32 = 1_024;
/// Orders a second of the demo load.
const LOAD_DEFAULT: f64 = 20.0;

/// Start a local cluster: real node processes and a payment provider.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many nodes [default: 3, or as many as the folder holds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u8>,
    /// Where everything is kept. A second `up` on the same folder goes on where the first was.
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// Node N listens on 127.0.0.1, port P + N; the payment provider on P + 90.
    #[arg(long, value_name = "P", default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..=i64::from(BASE_PORT_MAX)))]
    base_port: u16,
    /// How many shards [default: 16]; fixed when the folder is first used.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u32>,
    /// Orders a second that the demo's customers place.
    #[arg(long, value_name = "RATE", default_value_t = LOAD_DEFAULT, value_parser = parse_rate)]
    load: f64,
    /// No demo customers and no demo products.
    #[arg(long, conflicts_with = "load")]
    no_load: bool,
    /// One line of JSON once the cluster is ready, and nothing else.
    #[arg(long)]
    json: bool,
}

impl Up {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let layout = self.layout()?;
        let bar = progress_bar(&layout);
        let mut launcher = Launcher::start(layout.clone()).await?;
        let ready = launcher.ready(|progress| show(&bar, &layout, progress)).await;
        bar.finish_and_clear();
        match ready {
            Ok(true) => {}
            Ok(false) => {
                launcher.stop().await;
                return Ok(ExitCode::SUCCESS);
            }
            Err(failure) => {
                launcher.stop().await;
                return Err(failure);
            }
        }
        let ready_ms = started.elapsed().as_millis();
        let console = launcher.console().await.map(|done| done.link);
        if self.json {
            let mut ready = launcher.state().ready_json(ready_ms);
            ready["console"] = console.unwrap_or_default().into();
            print_json(&ready);
        } else {
            print_text(&welcome(&launcher.state(), &layout, &console, ready_ms, self.no_load));
        }
        let addresses: Vec<_> = layout.node_ids().map(|id| layout.node_address(id)).collect();
        let tally = Rc::new(Tally::default());
        let load = async {
            if self.no_load {
                std::future::pending::<()>().await;
            } else {
                load::run(&addresses, self.load, Rc::clone(&tally)).await;
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = launcher.serve() => {}
            () = load => {}
        }
        if !self.json {
            eprintln!("stopping");
        }
        launcher.stop().await;
        if !self.json && !self.no_load {
            eprintln!("{}", tally.text());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What to start: what the folder holds already decides where the command line is silent.
    fn layout(&self) -> Result<Layout, Failure> {
        let data = std::path::absolute(&self.data)
            .map_err(|error| Failure::usage(format!("{} is not a path: {error}", self.data.display())))?;
        let before = State::read(&data).map_err(|error| {
            Failure::usage(format!(
                "{} cannot be read: {error}",
                data.join("cluster.json").display()
            ))
        })?;
        let (held_nodes, held_shards) = before.map_or((None, None), |state| {
            let nodes: BTreeSet<u8> = state.nodes.iter().map(|node| node.id).collect();
            (Some(nodes), Some(state.shards))
        });
        let held_count = held_nodes.as_ref().map(|nodes| nodes.len() as u8);
        let count = agreed("nodes", &data, self.nodes, held_count, NODES_DEFAULT)?;
        Ok(Layout {
            nodes: held_nodes.unwrap_or_else(|| (1..=count).collect()),
            shards: agreed("shards", &data, self.shards, held_shards, SHARDS_DEFAULT)?,
            base_port: self.base_port,
            data,
            token: format!("{:032x}", rand::random::<u128>()),
        })
    }
}

fn agreed<T: PartialEq + Copy + std::fmt::Display>(
    what: &str,
    data: &Path,
    asked: Option<T>,
    held: Option<T>,
    default: T,
) -> Result<T, Failure> {
    match (asked, held) {
        (Some(asked), Some(held)) if asked != held => Err(Failure::usage(format!(
            "{} holds a cluster of {held} {what}, and cannot be started with {asked}",
            data.display()
        ))
        .help(format!("leave `--{what}` out, or choose another folder with `--data`"))),
        (asked, held) => Ok(asked.or(held).unwrap_or(default)),
    }
}

fn progress_bar(layout: &Layout) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {bar:30} {pos}/{len} shards led")
        .expect("the template is a constant and well formed");
    let bar = ProgressBar::new(u64::from(layout.shards) * layout.nodes.len() as u64).with_style(style);
    bar.set_message("starting processes");
    bar
}

fn show(bar: &ProgressBar, layout: &Layout, progress: &[Progress]) {
    let led = progress.iter().map(|p| match p {
        Progress::Starting => 0,
        Progress::Electing(led) => u64::from(*led),
        Progress::Ready => u64::from(layout.shards),
    });
    bar.set_position(led.sum());
    let ready = progress.iter().filter(|p| **p == Progress::Ready).count();
    bar.set_message(format!("{ready} of {} nodes ready", layout.nodes.len()));
    bar.tick();
}

fn welcome(state: &State, layout: &Layout, console: &Result<String, String>, ready_ms: u128, no_load: bool) -> String {
    let mut text = format!(
        "Playhouse is ready: {} nodes, {} shards, after {}.{} s\n\n",
        layout.nodes.len(),
        layout.shards,
        ready_ms / 1_000,
        ready_ms % 1_000 / 100
    );
    for node in &state.nodes {
        let _ = writeln!(
            text,
            "  node {}    {}  (pid {})",
            node.id,
            node.grpc,
            node.pid.unwrap_or_default()
        );
    }
    let _ = writeln!(text, "  provider  {}", state.provider.http);
    let _ = writeln!(text, "  data      {}\n", layout.data.display());
    let _ = match console {
        Ok(link) => writeln!(
            text,
            "Look at it in a browser (this link works once; `playhouse console` prints another):\n  {link}\n"
        ),
        Err(reason) => writeln!(text, "The console cannot be opened: {reason}\n"),
    };
    text.push_str("Three things to try in another terminal:\n");
    let port = if layout.base_port == 7000 {
        String::new()
    } else {
        format!(" --base-port {}", layout.base_port)
    };
    let second = if no_load {
        format!("product put tea --name Tea --price 2.55{port}")
    } else {
        format!("order place --customer ann --line demo-teapot:1 --line demo-cup:4{port}")
    };
    let tries = [
        format!("status{port}"),
        second,
        format!("kill {}{port}", layout.nodes.last().copied().unwrap_or(1)),
    ];
    for line in tries {
        let _ = writeln!(text, "  playhouse {line}");
    }
    text.push_str("\nCtrl-C stops all of it; `playhouse up` on the same folder goes on from here.");
    text
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.01..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("the rate must be a number from 0.01 to 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_number_of_shards() {
        let data = Path::new("d");
        assert_eq!(agreed("shards", data, None, None, 16).expect("agreed"), 16);
        assert_eq!(agreed("shards", data, None, Some(8), 16).expect("agreed"), 8);
        assert_eq!(agreed("shards", data, Some(8), Some(8), 16).expect("agreed"), 8);
        assert!(agreed("shards", data, Some(4), Some(8), 16).is_err());
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!(parse_rate("20"), Ok(20.0));
        for wrong in ["0", "-1", "NaN", "inf", "x"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
