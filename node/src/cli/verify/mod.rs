//! `playhouse verify`: asks every shard and checks the promises that a customer or an auditor would check.
//!
//! A cluster under load never stands still, and no look at all of it is of one instant. So everything is looked at
//! again until an offender is no longer one: what offends in every look, over [`Verify::wait`] seconds, is broken;
//! what was only under way is not.
//!
//! `scan` reads, `checks` judges.

mod checks;
mod scan;

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use clap::Args;
use proto::cluster::v1::DigestsRequest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::checks::{Check, Seen};
use super::{
    client::{Client, Target},
    failure::{EXIT_NO, Failure},
    output::{decimal, print_json, print_text, render, table},
};
use crate::{local::PROVIDER_PORT_OFFSET, provider::client::ledger};

/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Offenders of one check that are shown.
const OFFENDERS_SHOWN_MAX: usize = 1_000;

/// Check that nothing is lost, doubled or unequal.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// How long to wait for what is under way to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// The payment provider whose ledger is compared; a local cluster's own without it.
    #[arg(long, value_name = "URL")]
    provider: Option<String>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Verify {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let books = match (&self.provider, self.target.address.is_empty()) {
            (Some(url), _) => Books::Of(url.clone()),
            (None, true) => Books::OfLocal(self.target.base_port),
            (None, false) => Books::None,
        };
        let verdict = check(&client, &books, Duration::from_secs(self.wait)).await?;
        if self.json {
            print_json(&verdict.json());
        } else {
            print_text(&verdict.text());
        }
        Ok(if verdict.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_NO)
        })
    }
}

/// Whose books are compared.
#[derive(Debug, Clone)]
pub(crate) enum Books {
    /// Those of the payment provider at this URL, which must be there.
    Of(String),
    /// Those of the local cluster with this base port, if its provider is there.
    OfLocal(u16),
    /// None.
    None,
}

/// What the checks come to.
pub(crate) struct Verdict {
    checks: Vec<Check>,
    seen: Seen,
}

impl Verdict {
    /// Whether everything holds.
    pub(crate) fn is_ok(&self) -> bool {
        self.checks.iter().all(Check::is_ok)
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        report_json(self.is_ok(), &self.checks, &self.seen)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        report_text(self.is_ok(), &self.checks, &self.seen)
    }
}

/// Looks at everything, again and again for at most `wait` while somebody offends.
pub(crate) async fn check(client: &Client, books: &Books, wait: Duration) -> Result<Verdict, Failure> {
    let deadline = Instant::now() + wait;
    let mut seen = look(client, books).await?;
    let mut checks = checks::all(&seen);
    while checks.iter().any(|check| !check.is_ok()) && Instant::now() < deadline {
        sleep(LOOK_AGAIN_AFTER).await;
        seen = look(client, books).await?;
        for (check, again) in checks.iter_mut().zip(checks::all(&seen)) {
            check.look_again(again);
        }
    }
    Ok(Verdict { checks, seen })
}

/// Everything that is there now.
async fn look(client: &Client, books: &Books) -> Result<Seen, Failure> {
    let mut seen = scan::everything(client).await?;
    seen.digests = client.digests(DigestsRequest {}).await?.shards;
    seen.provider =
        match books {
            Books::Of(url) => Some(ledger(url).await.map_err(|error| {
                Failure::unreachable(format!("the payment provider {url} cannot be asked: {error}"))
            })?),
            Books::OfLocal(base_port) => {
                let url = format!("http://127.0.0.1:{}", base_port + PROVIDER_PORT_OFFSET);
                ledger(&url).await.ok()
            }
            Books::None => None,
        };
    Ok(seen)
}

fn report_json(ok: bool, checks: &[Check], seen: &Seen) -> Value {
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| {
            let offenders: Vec<Value> = check
                .offenders
                .iter()
                .take(OFFENDERS_SHOWN_MAX)
                .map(|(key, reason)| json!({"key": key, "reason": reason}))
                .collect();
            json!({
                "name": check.name, "ok": check.is_ok(), "checked": check.checked, "offenders": offenders,
                "offenders_count": check.offenders.len(),
            })
        })
        .collect();
    let money = seen.money();
    json!({
        "ok": ok,
        "checks": checks,
        "money": {
            "captured_minor": money.captured, "refunded_minor": money.refunded,
            "confirmed_minor": money.confirmed, "returned_minor": money.returned,
        },
        "provider_asked": seen.provider.is_some(),
    })
}

fn report_text(ok: bool, checks: &[Check], seen: &Seen) -> String {
    let mut overview = table(&["check", "", ">checked", ">offenders"]);
    for check in checks {
        let verdict = if check.is_ok() { "ok" } else { "BROKEN" };
        let counts = [check.checked, check.offenders.len()].map(|count| count.to_string());
        overview.add_row([check.name.to_owned(), verdict.to_owned()].into_iter().chain(counts));
    }
    let mut text = render(&overview);
    for check in checks.iter().filter(|check| !check.is_ok()) {
        for (key, reason) in check.offenders.iter().take(OFFENDERS_SHOWN_MAX) {
            let _ = write!(text, "\n  {}: {key}: {reason}", check.name);
        }
    }
    let money = seen.money();
    let _ = write!(
        text,
        "\n\ncaptured {}, refunded {}; confirmed orders {}, of which {} came back",
        decimal(money.captured),
        decimal(money.refunded),
        decimal(money.confirmed),
        decimal(money.returned)
    );
    if seen.provider.is_none() {
        text.push_str("\nthe payment provider's ledger was not compared: it was not there to be asked");
    }
    text.push_str(if ok {
        "\neverything holds"
    } else {
        "\nsomething is broken"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_find_the_agreed_shape() {
        let seen = Seen::default();
        let value = report_json(true, &checks::all(&seen), &seen);
        assert_eq!(value["ok"], true);
        let names: Vec<_> = value["checks"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| c["name"].clone())
            .collect();
        assert_eq!(
            names,
            [
                "stock_conserved",
                "money_matches",
                "no_double_charge",
                "sagas_ended",
                "replicas_equal"
            ]
        );
        assert_eq!(value["checks"][0]["ok"], true);
        assert_eq!(value["checks"][0]["checked"], 0);
        assert_eq!(value["checks"][0]["offenders"], json!([]));
    }
}
