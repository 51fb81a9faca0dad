//! `playhouse supervision`: how failures are met, for each kind of entity and each dependency outside.

use std::process::ExitCode;

use clap::Args;
use proto::cluster::v1::{SupervisionPolicy, SupervisionRequest};
use serde_json::{Value, json};

use super::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Show how failures are met: restarts, breakers, bulkheads, quarantine.
#[derive(Debug, Args)]
pub(crate) struct Supervision {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Supervision {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let policies = client.supervision(SupervisionRequest {}).await?.policies;
        if self.json {
            print_json(&policies.iter().map(policy_json).collect());
        } else {
            print_text(&policies_text(&policies));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn policy_json(policy: &SupervisionPolicy) -> Value {
    json!({
        "of": policy.of, "name": policy.name,
        "intensity_max": policy.intensity_max, "intensity_within_ms": policy.intensity_within_ms,
        "backoff_first_ms": policy.backoff_first_ms, "backoff_max_ms": policy.backoff_max_ms,
        "jitter_percent": policy.jitter_percent, "breaker_failures_max": policy.breaker_failures_max,
        "breaker_open_ms": policy.breaker_open_ms, "in_flight_max": policy.in_flight_max,
        "quarantine_after": policy.quarantine_after,
    })
}

fn policies_text(policies: &[SupervisionPolicy]) -> String {
    let mut rows = table(&[
        "of",
        "name",
        "intensity",
        "backoff",
        "breaker",
        ">at once",
        ">quarantine after",
    ]);
    for policy in policies {
        let or_never = |count: u32| match count {
            0 => "never".to_owned(),
            count => count.to_string(),
        };
        let intensity = match policy.intensity_max {
            0 => "any".to_owned(),
            max => format!("{max} in {} s", policy.intensity_within_ms / 1_000),
        };
        rows.add_row([
            policy.of.clone(),
            policy.name.clone(),
            intensity,
            format!(
                "{} to {} ms + {} %",
                policy.backoff_first_ms, policy.backoff_max_ms, policy.jitter_percent
            ),
            format!(
                "{} in a row, {} ms",
                policy.breaker_failures_max, policy.breaker_open_ms
            ),
            policy.in_flight_max.to_string(),
            or_never(policy.quarantine_after),
        ]);
    }
    render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_shown_whole() {
        let policy = SupervisionPolicy {
            of: "entity".to_owned(),
            name: "order".to_owned(),
            intensity_max: 20,
            intensity_within_ms: 600_000,
            backoff_first_ms: 50,
            backoff_max_ms: 5_000,
            jitter_percent: 50,
            breaker_failures_max: 5,
            breaker_open_ms: 10_000,
            in_flight_max: 4_096,
            quarantine_after: 3,
        };
        assert_eq!(policy_json(&policy)["quarantine_after"], 3);
        assert_eq!(policy_json(&policy).as_object().expect("an object").len(), 11);
        let text = policies_text(&[policy]);
        assert!(
            text.contains("20 in 600 s") && text.contains("50 to 5000 ms + 50 %"),
            "{text}"
        );
    }
}
