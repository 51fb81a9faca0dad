//! `playhouse logs`: the log lines of all nodes by time, those that come, and which are written.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use proto::telemetry::v1::{
    FollowLogsRequest, FollowNotice, LogEntry, LogFilter, ReadLogsRequest, SetLevelRequest, follow_logs_response::Said,
    logs_client::LogsClient,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    client::{Client, Target},
    entity::parse_time,
    failure::Failure,
    output::{print_json, print_text, render, table},
};
use crate::telemetry::logs::{self, line};

/// Between two attempts to go on after the node that told was lost.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Attempts before it is given up.
const ATTEMPTS_MAX: u32 = 60;
/// A stream may be silent for so long: nothing may be said at all.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Lines whose identity is remembered, so that none is shown twice after another node tells.
const SHOWN_MAX: usize = 10_000;
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const FAINT: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Show the log lines of all nodes by time, follow those that come, and set which are written.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Logs {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    read: Read,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Set which lines are written from now on, until the node stops.
    Level(Level),
}

#[derive(Debug, Args)]
struct Read {
    /// Go on with the lines that come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Only of this node; repeat it for more.
    #[arg(long, value_name = "N")]
    node: Vec<u32>,
    /// Only lines of this level and graver ones.
    #[arg(long, value_name = "LEVEL", value_parser = line::LEVELS)]
    level: Option<String>,
    /// Only lines whose target begins like this, for example cluster::shard.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    target_prefix: String,
    /// Only lines of this trace.
    #[arg(long, value_name = "ID", default_value = "")]
    trace: String,
    /// Only lines about this entity.
    #[arg(long, value_name = "KIND/ID", default_value = "")]
    entity: String,
    /// Only lines with this text; capitals do not matter.
    #[arg(long, value_name = "TEXT", default_value = "")]
    grep: String,
    /// Only lines from then on: a time (2026-11-21T10:30:00Z) or unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// The latest ones, so many.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=5000))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Set which lines are written from now on, until the node stops.
#[derive(Debug, Args)]
struct Level {
    /// A level, and others for targets, for example info,cluster=debug.
    #[arg(value_name = "LEVELS")]
    directives: String,
    /// Only at this node; repeat it for more.
    #[arg(long, value_name = "N")]
    node: Vec<u32>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.change {
            Some(Change::Level(level)) => level.run().await,
            None => self.read.run().await,
        }
    }
}

impl Level {
    async fn run(self) -> Result<ExitCode, Failure> {
        logs::check(&self.directives).map_err(|reason| Failure::usage(format!("LEVELS {reason}")))?;
        let client = self.target.connect().await?;
        let request = SetLevelRequest {
            directives: self.directives,
            nodes: self.node,
            own_only: false,
        };
        let set = client.set_log_level(request).await?;
        if self.json {
            let nodes: Vec<Value> = set
                .nodes
                .iter()
                .map(|node| json!({ "node": node.node, "before": node.before, "now": node.now }))
                .collect();
            print_json(&json!({ "nodes": nodes, "unavailable_nodes": set.unavailable_nodes }));
        } else {
            let mut rows = table(&[">node", "before", "now"]);
            for node in &set.nodes {
                rows.add_row([node.node.to_string(), node.before.clone(), node.now.clone()]);
            }
            print_text(&render(&rows));
        }
        if set.unavailable_nodes.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::no(format!(
            "these nodes did not answer and write what they did before: {:?}",
            set.unavailable_nodes
        )))
    }
}

impl Read {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let filter = LogFilter {
            level: self.level.clone().unwrap_or_default(),
            nodes: self.node.clone(),
            target: self.target_prefix.clone(),
            text: self.grep.clone(),
            trace_id: self.trace.to_ascii_lowercase(),
            since_unix_ms: self.since.unwrap_or_default(),
            entity: self.entity.clone(),
        };
        if self.follow {
            return self.follow(&client, filter).await;
        }
        if self.limit == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let request = ReadLogsRequest {
            filter: Some(filter),
            limit: self.limit,
            own_only: false,
        };
        let read = client.read_logs(request).await?;
        let mut shown = Shown::new(self.json);
        for entry in &read.lines {
            shown.line(entry);
        }
        if !read.unavailable_nodes.is_empty() {
            eprintln!(
                "something may be missing: these nodes did not answer: {:?}",
                read.unavailable_nodes
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Follows until Ctrl-C; goes on at another node when the one that tells goes away.
    async fn follow(&self, client: &Client, mut filter: LogFilter) -> Result<ExitCode, Failure> {
        let mut shown = Shown::new(self.json);
        let mut last = self.limit;
        let mut attempts = 0;
        loop {
            let request = FollowLogsRequest {
                filter: Some(filter.clone()),
                last,
                ..FollowLogsRequest::default()
            };
            let opened = tokio::time::timeout(CONNECT_MAX, LogsClient::new(client.channel()).follow(request)).await;
            match opened {
                Ok(Ok(stream)) => {
                    let mut stream = stream.into_inner();
                    while let Some(Ok(said)) = stream.next().await {
                        attempts = 0;
                        match said.said {
                            Some(Said::Line(entry)) => {
                                filter.since_unix_ms = filter.since_unix_ms.max(entry.at_unix_ns / 1_000_000);
                                shown.line(&entry);
                            }
                            Some(Said::Notice(notice)) => shown.notice(&notice),
                            None => {}
                        }
                    }
                }
                Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
                    return Err(Failure::usage(status.message().to_owned()));
                }
                _ => {}
            }
            attempts += 1;
            if attempts > ATTEMPTS_MAX {
                return Err(Failure::unreachable("no node tells its log lines any more"));
            }
            // What was written meanwhile is read by its time; what was shown is not shown again.
            last = 5_000;
            sleep(AGAIN_AFTER).await;
        }
    }
}

/// What is shown, and was.
struct Shown {
    as_json: bool,
    is_coloured: bool,
    /// The latest line of each node's runs, and the lines that have the same time as the last ones.
    seen: std::collections::VecDeque<(u32, u64, u64)>,
}

impl Shown {
    fn new(as_json: bool) -> Self {
        Self {
            as_json,
            is_coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            seen: std::collections::VecDeque::new(),
        }
    }

    fn line(&mut self, entry: &LogEntry) {
        let identity = (entry.node, entry.run, entry.number);
        if self.seen.contains(&identity) {
            return;
        }
        self.seen.push_back(identity);
        if self.seen.len() > SHOWN_MAX {
            self.seen.pop_front();
        }
        if self.as_json {
            print_json(&line::json(entry));
            return;
        }
        let colour = match (self.is_coloured, entry.level.as_str()) {
            (true, "error") => RED,
            (true, "warn") => YELLOW,
            (true, "debug" | "trace") => FAINT,
            _ => "",
        };
        let plain = if colour.is_empty() { "" } else { PLAIN };
        print_text(&format!("{colour}node {} {}{plain}", entry.node, line::human(entry)));
    }

    fn notice(&self, notice: &FollowNotice) {
        if self.as_json {
            print_json(&json!({
                "notice": notice.what, "node": notice.node, "dropped": notice.dropped, "reason": notice.reason,
            }));
            return;
        }
        match notice.what.as_str() {
            "dropped" => eprintln!(
                "-- node {}: {} lines came too fast and were left out",
                notice.node, notice.dropped
            ),
            "away" => eprintln!("-- node {} is away: {}", notice.node, notice.reason),
            what => eprintln!("-- node {} is {what}", notice.node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_once() {
        let mut shown = Shown::new(true);
        let entry = LogEntry {
            number: 7,
            ..LogEntry::default()
        };
        shown.line(&entry);
        shown.line(&entry);
        assert_eq!(shown.seen.len(), 1);
    }
}
