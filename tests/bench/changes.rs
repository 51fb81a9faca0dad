//! What clients notice while nodes are restarted one after another, drained, and join: invoices are replayed at a steady rate
//! by clients that ask again under the same request id.

use std::{fs, time::Duration};

use harness::{TestCluster, invoices};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{arguments::Arguments, figure::cores, target::Target};

/// How long each load lasts at least; a change that takes longer is loaded to its end by another one.
const LOAD_MAX: Duration = Duration::from_mins(5);

/// `changes`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut target = Target::open(arguments).await?;
    let cluster = &*target.own()?;
    let rate = arguments.rate;
    let quiet = load(cluster, "quiet", rate, rate * arguments.seconds).await?;
    say(arguments, "quiet", &quiet, &quiet, None);
    let mut changes = vec![("rolling restart", "restart --rolling".to_owned())];
    if arguments.nodes > 3 {
        changes.push(("drain", "node drain 2".to_owned()));
        changes.push(("uncordon", "node uncordon 2".to_owned()));
    }
    changes.push(("join", "node join".to_owned()));
    for (name, command) in changes {
        let run = name.replace(' ', "-");
        let mut loads = 0;
        let begun = Instant::now();
        let change = cluster.run(&command);
        tokio::pin!(change);
        let (mut reports, mut took) = (Vec::new(), None);
        // The load goes on as long as the change does.
        while took.is_none() && begun.elapsed() < LOAD_MAX {
            loads += 1;
            let part = format!("{run}-{loads}");
            let load = load(cluster, &part, rate, rate * arguments.seconds);
            tokio::pin!(load);
            loop {
                tokio::select! {
                    finished = &mut change, if took.is_none() => {
                        if finished.code != 0 {
                            return Err(format!("`{command}` failed: {}", finished.stderr));
                        }
                        took = Some(begun.elapsed());
                    }
                    report = &mut load => {
                        reports.push(report?);
                        break;
                    }
                }
            }
        }
        for report in &reports {
            say(arguments, name, report, &quiet, took);
        }
    }
    let report = cluster.run("verify --json").await.json();
    if report["ok"] != true {
        return Err(format!("`verify` found something: {report:#}"));
    }
    eprintln!("    verified");
    Ok(())
}

async fn load(cluster: &TestCluster, run: &str, rate: u64, orders: u64) -> Result<Value, String> {
    let file = cluster.scratch(&format!("{run}.csv"));
    fs::write(&file, invoices(orders as usize).csv).map_err(|error| error.to_string())?;
    let (rate, file) = (rate.to_string(), file.display().to_string());
    let words = [
        "shop",
        "--json",
        "--concurrency",
        "256",
        "--rate",
        &rate,
        "--run",
        run,
        "--orders",
        &file,
    ];
    let finished = cluster.run_words(&words).await;
    if finished.stdout.is_empty() {
        return Err(finished.stderr);
    }
    Ok(finished.json())
}

fn say(arguments: &Arguments, name: &str, report: &Value, quiet: &Value, took: Option<Duration>) {
    let placed = report["orders"]["placed"].as_u64().unwrap_or_default();
    let confirmed = report["orders"]["confirmed"].as_u64().unwrap_or_default();
    let p99 = |report: &Value| report["latency_ms"]["p99"].as_f64().unwrap_or_default();
    let ratio = p99(report) / p99(quiet);
    if arguments.json {
        let figure = json!({
            "bench": format!("changes {name}"), "rate": arguments.rate, "orders": placed,
            "failed": placed - confirmed, "p50_ms": report["latency_ms"]["p50"], "p99_ms": p99(report),
            "p99_to_quiet": ratio, "longest_ms": report["longest_gap_ms"],
            "change_s": took.map(|took| took.as_secs_f64()), "cores": cores(),
        });
        println!("{figure}");
        return;
    }
    let took = took.map_or_else(String::new, |took| {
        format!(", the change took {:.1} s", took.as_secs_f64())
    });
    println!(
        "{name:<16} {placed} orders at {}/s: {} failed, p50 {:.1} ms, p99 {:.1} ms ({ratio:.1} times the quiet one), longest \
         {} ms{took}, on {} cores",
        arguments.rate,
        placed - confirmed,
        report["latency_ms"]["p50"].as_f64().unwrap_or_default(),
        p99(report),
        report["longest_gap_ms"],
        cores()
    );
}
