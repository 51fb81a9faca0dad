//! `playhouse chaos`: hurts a running local cluster for a while, heals it, and checks that nothing that a client was told is untrue.
//!
//! `kind` are the faults, `draw` chooses them by a seed, `inject` does and heals them; `clients` work meanwhile and note what they see
//! (`history`), `checker` judges it, `windows` says how long which shards did not answer, `report` tells.

mod checker;
mod clients;
mod draw;
mod history;
mod inject;
mod kind;
mod report;
mod windows;

use std::{pin::pin, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum as _};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};
use ulid::Ulid;

use self::{
    clients::Clients,
    draw::{Draw, Round},
    inject::Injector,
    kind::Kind,
    report::Report,
    windows::Done,
};
use super::{
    client::{Client, Target},
    failure::{EXIT_NO, Failure},
    output::{print_json, print_text},
    verify::{self, Books},
};
use crate::{local::layout::LocalCluster, signal};

/// What a shell gives for a command that Ctrl-C has ended.
const EXIT_INTERRUPTED: u8 = 130;
/// How long one call of a client may take, repetitions included. Longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the cluster may take to be whole again after a fault.
const SETTLE_MAX: Duration = Duration::from_mins(1);
/// How long what is under way in the end may take to end: the breaker to a provider that was down opens again after a minute only.
const VERIFY_MAX: Duration = Duration::from_secs(150);
/// A trial is at least so long, and at most.
const FOR_MIN: Duration = Duration::from_secs(1);
const FOR_MAX: Duration = Duration::from_hours(2);
/// Writes and reads a second, together: the most that is noted without using much memory over the longest trial.
const RATE_MAX: f64 = 2_000.0;

/// Hurt a running local cluster, and check what its clients saw.
///
/// For the given time faults are drawn by a seed, one at a time and sometimes two, done, and healed. Meanwhile clients write and read an item of
/// each shard through all nodes, and place orders that are paid. After healing it is checked that no acknowledged write is lost, that each request
/// and each effect counts once, that what the clients of each item saw is linearizable, and all that `playhouse verify` checks.
///
/// Everything that is done ends by itself, should this command be killed. Ctrl-C heals first. Do not use it on a cluster whose content matters: a
/// node's folder is deleted by `wipe`.
///
/// Exit code: 0 clean, 1 violated, 2 wrong usage, 3 no cluster, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// For how long, for example 90s or 10m. What was begun is ended.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    lasts: Duration,
    /// Which faults, divided by commas; all without it.
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Draws the same faults again. Drawn and told without it.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Writes and reads a second, of all clients together.
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = parse_rate)]
    rate: f64,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: LocalCluster,
}

impl Chaos {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        LocalSet::new().run_until(self.run_here()).await
    }

    async fn run_here(self) -> Result<ExitCode, Failure> {
        let target = Target {
            base_port: self.cluster.base_port()?,
            address: Vec::new(),
        };
        let client = target.connect_for(PATIENCE).await?;
        let mut injector = Injector::new(self.cluster.clone(), &client).await?;
        let mut stop = pin!(signal::stop());
        let report = tokio::select! {
            report = self.try_out(&mut injector, &client, target.base_port) => Some(report),
            () = &mut stop => None,
        };
        // Whatever came of it: nothing is left hurt.
        let Some(report) = report else {
            eprintln!("healing; a second Ctrl-C ends at once, and what is wrong ends by itself then");
            tokio::select! {
                healed = injector.heal() => drop(healed?),
                () = signal::stop() => {}
            }
            eprintln!("stopped, and nothing was checked");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        };
        let report = match report {
            Ok(report) => report,
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = injector.heal().await;
                return Err(failure);
            }
        };
        if self.json {
            print_json(&report.json());
        } else {
            print_text(&report.text());
        }
        Ok(if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_NO)
        })
    }

    async fn try_out(&self, injector: &mut Injector, client: &Client, base_port: u16) -> Result<Report, Failure> {
        let seed = self.seed.unwrap_or_else(rand::random);
        let mut kinds = self.faults.clone();
        if kinds.is_empty() {
            kinds.extend(
                Kind::value_variants()
                    .iter()
                    .filter(|kind| **kind != Kind::Provider || injector.has_provider()),
            );
        } else if kinds.contains(&Kind::Provider) && !injector.has_provider() {
            return Err(
                Failure::unreachable("the payment provider does not answer, and cannot be hurt")
                    .help("leave `provider` out of `--faults`, or start the cluster anew"),
            );
        }
        let mut mishaps = Vec::new();
        if let Err(reason) = Injector::settle(client, SETTLE_MAX).await {
            return Err(Failure::unreachable(format!("{reason}, and nothing was done yet"))
                .help("look at `playhouse status`; a trial begins with a cluster that is whole"));
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        eprintln!("seed {seed}; faults {}", names.join(","));
        let mut clients = Clients::set_up(client.clone(), Ulid::generate().to_string()).await?;
        clients.start(self.rate);
        let begun = clients.begun();
        let mut draw = Draw::new(seed, kinds, injector.nodes());
        let mut rounds = Vec::new();
        while begun.elapsed() < self.lasts {
            let round = draw.round();
            sleep(round.calm).await;
            rounds.push(play(injector, client, &round, begun, &mut mishaps).await?);
        }
        sleep(Duration::from_millis(500)).await;
        let history = clients.stop().await;
        eprintln!("{:6.1} s  checking", begun.elapsed().as_secs_f64());
        let took_ms = begun.elapsed().as_millis() as u64;
        let verdict = verify::check(client, &Books::OfLocal(base_port), VERIFY_MAX).await?;
        let journals = clients::journals(client, &history.items).await?;
        let orders = clients::orders(client, &history.orders).await?;
        Ok(Report {
            seed,
            took_ms,
            checks: checker::all(&history, &journals, &orders),
            history,
            rounds,
            mishaps,
            verdict,
        })
    }
}

/// Does one round, heals it, and waits until the cluster is whole.
async fn play(
    injector: &mut Injector,
    client: &Client,
    round: &Round,
    begun: Instant,
    mishaps: &mut Vec<String>,
) -> Result<Done, Failure> {
    let now_us = || begun.elapsed().as_micros() as u64;
    let from_us = now_us();
    let whats: Vec<String> = round.acts.iter().map(|(_, act)| act.to_string()).collect();
    eprintln!(
        "{:6.1} s  {} for {:.1} s",
        begun.elapsed().as_secs_f64(),
        whats.join(", and "),
        round.lasts.as_secs_f64()
    );
    // The mild one first: a node that stands still cannot be told anything.
    for (_, act) in round.acts.iter().rev() {
        if let Err(failure) = injector.hurt(act, round.lasts).await {
            mishaps.push(format!("{act}: {failure}"));
        }
    }
    sleep(round.lasts).await;
    mishaps.extend(injector.heal().await?);
    let healed_us = now_us();
    if let Err(reason) = Injector::settle(client, SETTLE_MAX).await {
        mishaps.push(format!("after {}: {reason}", whats.join(", and ")));
    }
    Ok(Done {
        acts: round.acts.clone(),
        from_us,
        healed_us,
        settled_us: now_us(),
    })
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let read = units.iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*ms).map(Duration::from_millis)
    });
    match read {
        Some(time) if (FOR_MIN..=FOR_MAX).contains(&time) => Ok(time),
        Some(_) => Err("it goes from 1s to 2h".to_owned()),
        None => Err("write it as a number with s, m or h, for example 90s".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (1.0..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("the rate must be a number from 1 to {RATE_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_bounds() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(parse_time("2000ms"), Ok(Duration::from_secs(2)));
        for wrong in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "0s",
            "3h",
            "99999999999999999999h",
            "500ms",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!(parse_rate("200"), Ok(200.0));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
