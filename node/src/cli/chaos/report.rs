//! What a trial comes to, for people and for scripts.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    checker::Check,
    history::{History, What},
    windows::{self, Done, Line, Window},
};
use crate::cli::{
    output::{render, table},
    verify::Verdict,
};

/// Offenders of one check that are shown.
const OFFENDERS_SHOWN_MAX: usize = 20;

/// Everything that is told.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) took_ms: u64,
    pub(super) history: History,
    pub(super) rounds: Vec<Done>,
    /// What went wrong while faults were done and healed: nodes that ended, a cluster that did not become whole.
    pub(super) mishaps: Vec<String>,
    pub(super) checks: Vec<Check>,
    pub(super) verdict: Verdict,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        self.mishaps.is_empty() && self.checks.iter().all(Check::is_ok) && self.verdict.is_ok()
    }

    fn counts(&self) -> (usize, usize) {
        let writes = |what: &What| matches!(what, What::Write { .. });
        let all = self.history.operations.len();
        let writes = self
            .history
            .operations
            .iter()
            .filter(|operation| writes(&operation.what))
            .count();
        (writes, all - writes)
    }

    pub(super) fn text(&self) -> String {
        let (writes, reads) = self.counts();
        let mut text = format!(
            "{writes} writes, {reads} reads and {} orders of {} items in as many shards, {} faults, in {} s; seed {}\n\n",
            self.history.orders.len(),
            self.history.items.len(),
            self.rounds.iter().map(|round| round.acts.len()).sum::<usize>(),
            self.took_ms / 1_000,
            self.seed
        );
        let windows = windows::all(&self.history);
        text.push_str(&table_text(&windows::table(&windows, &self.rounds)));
        text.push_str("\n\nHow long shards did not answer, in ms, as the clients saw it (100 ms and more).\n\n");
        let mut checks = table(&["check", "", ">checked", ">offenders"]);
        for check in &self.checks {
            let verdict = if check.is_ok() { "ok" } else { "BROKEN" };
            let counts = [check.checked, check.offenders.len()].map(|count| count.to_string());
            checks.add_row([check.name.to_owned(), verdict.to_owned()].into_iter().chain(counts));
        }
        text.push_str(&render(&checks));
        for check in &self.checks {
            for (key, reason) in check.offenders.iter().take(OFFENDERS_SHOWN_MAX) {
                let _ = write!(text, "\n  {}: {key}: {reason}", check.name);
            }
        }
        let _ = write!(text, "\n\n{}", self.verdict.text());
        for mishap in &self.mishaps {
            let _ = write!(text, "\nMISHAP: {mishap}");
        }
        text.push_str(if self.is_clean() {
            "\n\nverdict: clean"
        } else {
            "\n\nverdict: VIOLATED"
        });
        text
    }

    pub(super) fn json(&self) -> Value {
        let (writes, reads) = self.counts();
        let windows = windows::all(&self.history);
        let lines = windows::table(&windows, &self.rounds);
        let checks: Vec<Value> = (self.checks.iter())
            .map(|check| {
                let offenders = check.offenders.iter().take(OFFENDERS_SHOWN_MAX);
                let offenders: Vec<Value> = offenders
                    .map(|(key, reason)| json!({"key": key, "reason": reason}))
                    .collect();
                json!({
                    "name": check.name, "ok": check.is_ok(), "checked": check.checked, "offenders": offenders,
                    "offenders_count": check.offenders.len(),
                })
            })
            .collect();
        json!({
            "ok": self.is_clean(),
            "seed": self.seed,
            "took_ms": self.took_ms,
            "operations": {
                "writes": writes, "reads": reads, "orders": self.history.orders.len(), "repeated": self.history.repeated,
            },
            "faults": rounds_json(&self.rounds, &windows),
            "unavailability": lines.iter().map(|(fault, line)| line_json(fault, line)).collect::<Vec<_>>(),
            "mishaps": self.mishaps,
            "checks": checks,
            "verify": self.verdict.json(),
        })
    }
}

fn table_text(lines: &BTreeMap<&'static str, Line>) -> String {
    let mut overview = table(&["fault", ">times", ">windows", ">shards", ">min", ">p50", ">p99", ">max"]);
    for (fault, line) in lines {
        let counts = [line.times, line.windows_ms.len(), line.shards.len()].map(|count| count.to_string());
        let times = [0, 50, 99, 100].map(|percent| {
            let time = line.percentile(percent);
            time.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
        });
        overview.add_row(std::iter::once((*fault).to_owned()).chain(counts).chain(times));
    }
    render(&overview)
}

fn line_json(fault: &str, line: &Line) -> Value {
    json!({
        "fault": fault, "times": line.times, "windows": line.windows_ms.len(), "shards": line.shards,
        "min_ms": line.percentile(0), "p50_ms": line.percentile(50), "p99_ms": line.percentile(99),
        "max_ms": line.percentile(100),
    })
}

fn rounds_json(rounds: &[Done], windows: &[Window]) -> Vec<Value> {
    let of = |number: usize| {
        let own = windows
            .iter()
            .filter(move |window| windows::round_of(window, rounds) == Some(number));
        own.map(|window| json!({"shard": window.shard, "from_ms": window.from_us / 1_000, "ms": window.ms()}))
    };
    let all = rounds.iter().enumerate().map(|(number, round)| {
        json!({
            "kind": round.label(),
            "what": round.acts.iter().map(|(_, act)| act.to_string()).collect::<Vec<_>>(),
            "from_ms": round.from_us / 1_000, "healed_ms": round.healed_us / 1_000,
            "settled_ms": round.settled_us / 1_000, "windows": of(number).collect::<Vec<_>>(),
        })
    });
    all.collect()
}
