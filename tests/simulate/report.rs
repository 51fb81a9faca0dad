//! What is said of many runs: how fast they were, what happened in them, and what was found.

use std::collections::BTreeMap;

use cluster::simulation::engine;
use serde_json::json;

use crate::{arguments::Arguments, many::Done, worlds::Finding};

/// Lines of a history that are shown; `--json` has all of them.
const HISTORY_LEN_MAX: usize = 60;

/// Prints it, in the form that was asked for.
pub(crate) fn print(arguments: &Arguments, done: &Done) {
    if arguments.json {
        println!("{:#}", as_json(done));
    } else {
        print!("{}", as_text(arguments, done));
    }
}

fn as_text(arguments: &Arguments, done: &Done) -> String {
    let mut text = String::new();
    let seconds = done.elapsed.as_secs_f64();
    for (world, ended) in &done.worlds {
        let rate = ended.runs as f64 / ended.took.as_secs_f64().max(1e-9);
        let (name, runs) = (world.name(), ended.runs);
        text.extend([format!("{name}: {runs} seeds, {rate:.0} a second on one core\n")]);
        text += &counts(&ended.counts);
    }
    let missed = failpoints_missed(done);
    if !missed.is_empty() {
        text.extend([format!("steps at which no node crashed: {}\n", missed.join(", "))]);
    }
    for found in &done.found {
        text += &finding(found);
    }
    let (runs, threads, failed) = (done.runs(), arguments.threads(), done.found.len());
    let rate = runs as f64 / seconds.max(1e-9);
    text.extend([format!(
        "{runs} seeds in {seconds:.1} s on {threads} threads, {rate:.0} a second; {failed} break a promise\n"
    )]);
    text
}

fn counts(counts: &BTreeMap<&'static str, u64>) -> String {
    let widest = counts.keys().map(|what| what.len()).max().unwrap_or_default();
    let lines = counts.iter();
    let lines: Vec<String> = lines
        .map(|(what, number)| format!("  {what:widest$} {number:>12}\n"))
        .collect();
    lines.concat()
}

/// Steps that runs with weather crash at, and that none of them has.
fn failpoints_missed(done: &Done) -> Vec<&'static str> {
    let has_weather = |world: &crate::worlds::World| world.kind().is_none_or(|kind| kind == engine::Kind::Storms);
    let with_weather: Vec<_> = done.worlds.iter().filter(|(world, _)| has_weather(world)).collect();
    let was_hit = |point: &&'static str| with_weather.iter().any(|(_, ended)| ended.counts.contains_key(point));
    if with_weather.is_empty() {
        return Vec::new();
    }
    engine::failpoints().filter(|point| !was_hit(point)).collect()
}

fn finding(found: &Finding) -> String {
    let (world, seed, invariant, what) = (found.world.name(), found.seed, &found.invariant, &found.what);
    let mut text = format!("\nseed {seed} of {world} breaks {invariant:?}: {what}\n");
    let skipped = found.history.len().saturating_sub(HISTORY_LEN_MAX);
    if skipped > 0 {
        text.extend([format!("  ({skipped} lines before these; --json has them)\n")]);
    }
    for line in &found.history[skipped..] {
        text.extend([format!("  {line}\n")]);
    }
    text.extend([format!("run it again: {}\n\n", found.again)]);
    text
}

fn as_json(done: &Done) -> serde_json::Value {
    let worlds: BTreeMap<&str, _> = (done.worlds.iter())
        .map(|(world, ended)| {
            let seconds = ended.took.as_secs_f64();
            (
                world.name(),
                json!({ "runs": ended.runs, "seconds": seconds, "counts": ended.counts }),
            )
        })
        .collect();
    let found = done.found.iter().map(|found| {
        json!({
            "world": found.world.name(),
            "seed": found.seed,
            "invariant": found.invariant,
            "what": found.what,
            "history": found.history,
            "again": found.again,
        })
    });
    let found: Vec<_> = found.collect();
    let rate = done.runs() as f64 / done.elapsed.as_secs_f64().max(1e-9);
    json!({
        "runs": done.runs(),
        "seconds": done.elapsed.as_secs_f64(),
        "runs_per_second": rate,
        "worlds": worlds,
        "failpoints_missed": failpoints_missed(done),
        "found": found,
    })
}
