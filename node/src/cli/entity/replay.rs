//! `playhouse entity replay`: what a running cluster has recorded, decided once more by *this* build, and where that differs. So a new
//! build is tried against an old cluster's real history before it is rolled out. Nothing is changed: the records are fetched, and
//! decided in the process of this command.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use cluster::{
    EntityKey, Registry,
    history::{Difference, Replayed, Replayer},
};
use futures::{StreamExt as _, stream};
use proto::cluster::v1::StatusRequest;
use serde_json::{Value, json};

use super::{point::parse_time, records::Records, show::parse_key};
use crate::cli::{
    client::{Client, Target, streams::scan},
    failure::{EXIT_DIFFERS, Failure},
    output::{print_json, print_text},
};

/// Entities whose records are fetched at one time.
const ENTITIES_IN_FLIGHT_MAX: usize = 8;

/// Decide the recorded commands once more with this build.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["key", "kind"]))]
pub(crate) struct Replay {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: Option<String>,
    /// All entities of this kind, for example order.
    #[arg(long)]
    kind: Option<String>,
    /// At most so many entities.
    #[arg(long, value_name = "N", conflicts_with = "key")]
    limit: Option<usize>,
    /// Decide only what was recorded since then: a time (2026-11-21T10:30:00Z) or unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// Show at most so many differences; all are counted.
    #[arg(long, value_name = "N", default_value_t = 100)]
    show: usize,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What came of all of them.
#[derive(Debug, Default)]
struct Tally {
    entities: u64,
    equal: u64,
    decisions: u64,
    skipped: u64,
    passed_over: u64,
    without_effects: u64,
    differing: u64,
    states: u64,
    unreadable: u64,
    /// The first ones.
    shown: Vec<Value>,
}

/// One entity's part.
struct Done {
    key: EntityKey,
    replayed: Result<Replayed, String>,
    differences: Vec<Difference>,
}

impl Replay {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let registry = actors::registry();
        let keys = self.keys(&client, &registry).await?;
        let (client, registry) = (&client, &registry);
        let (since, show) = (self.since.unwrap_or_default(), self.show);
        let mut replays = stream::iter(keys)
            .map(|key| replay(client, registry, key, since, show))
            .buffered(ENTITIES_IN_FLIGHT_MAX);
        let mut tally = Tally::default();
        while let Some(done) = replays.next().await {
            self.take(&mut tally, done?);
        }
        if let Some(key) = self.key.as_ref().filter(|_| tally.is_empty()) {
            let since = if self.since.is_some() { " since then" } else { "" };
            return Err(Failure::no(format!("nothing is recorded of {key}{since}")));
        }
        if self.json {
            print_json(&tally.json());
        } else {
            print_text(&tally.text());
        }
        if tally.is_equal() {
            Ok(ExitCode::SUCCESS)
        } else {
            Ok(ExitCode::from(EXIT_DIFFERS))
        }
    }

    /// The entities to replay, in the order of their shards.
    async fn keys(&self, client: &Client, registry: &Registry) -> Result<Vec<EntityKey>, Failure> {
        if let Some(key) = &self.key {
            let key = EntityKey::parse(key).map_err(|error| Failure::usage(format!("the key {error}")))?;
            return known(registry, &key.kind).map(|()| vec![key]);
        }
        let kind = self.kind.as_deref().unwrap_or_default();
        known(registry, kind)?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut keys = Vec::new();
        for shard in client.status(StatusRequest {}).await?.shards {
            if keys.len() >= limit {
                break;
            }
            let room = limit - keys.len();
            let found = scan(client, shard.id, kind, room).await?;
            keys.extend(
                found
                    .iter()
                    .filter_map(|entity| EntityKey::new(&entity.kind, &entity.id).ok()),
            );
        }
        Ok(keys)
    }

    /// Counts an entity's part, and shows of it what there is still room for.
    fn take(&self, tally: &mut Tally, done: Done) {
        let key = done.key.to_string();
        let room = self.show.saturating_sub(tally.shown.len());
        match &done.replayed {
            Ok(replayed) => {
                if replayed.decisions + replayed.skipped == 0 && self.since.is_some() {
                    return;
                }
                tally.entities += 1;
                tally.equal += u64::from(replayed.is_equal());
                tally.decisions += replayed.decisions;
                tally.skipped += replayed.skipped;
                tally.passed_over += replayed.passed_over;
                tally.without_effects += replayed.without_effects;
                tally.differing += replayed.differing;
                tally.states += u64::from(!replayed.state.is_empty());
                for difference in done.differences.into_iter().take(room) {
                    if !self.json {
                        print_text(&format!("{key}  {difference}\n"));
                    }
                    let mut shown = serde_json::to_value(&difference).unwrap_or_default();
                    shown["key"] = json!(key);
                    tally.shown.push(shown);
                }
                if !replayed.state.is_empty() && tally.shown.len() < self.show {
                    if !self.json {
                        print_text(&format!(
                            "{key}  the state that its events add up to differs from the cluster's"
                        ));
                        for change in &replayed.state {
                            print_text(&format!("  {change}"));
                        }
                    }
                    tally.shown.push(json!({"key": key, "head": replayed.state}));
                }
            }
            Err(reason) => {
                tally.entities += 1;
                tally.unreadable += 1;
                if room > 0 {
                    if !self.json {
                        print_text(&format!("{key}  {reason}\n"));
                    }
                    tally.shown.push(json!({"key": key, "unreadable": reason}));
                }
            }
        }
    }
}

fn known(registry: &Registry, kind: &str) -> Result<(), Failure> {
    let kinds: Vec<_> = registry.names().collect();
    if kinds.contains(&kind) {
        return Ok(());
    }
    Err(Failure::usage(format!("this build knows no kind {kind:?}")).help(format!("it knows {}", kinds.join(", "))))
}

/// Decides one entity's records once more.
async fn replay(
    client: &Client,
    registry: &Registry,
    key: EntityKey,
    since_ms: u64,
    show: usize,
) -> Result<Done, Failure> {
    let mut records = Records::begin(client, key.clone()).await?;
    let mut differences = Vec::new();
    let unreadable = |key, reason: String, differences| Done {
        key,
        replayed: Err(reason),
        differences,
    };
    let mut replayer = match Replayer::new(registry, &key, &records.base, since_ms) {
        Ok(replayer) => replayer,
        Err(error) => return Ok(unreadable(key, error.to_string(), differences)),
    };
    while let Some(page) = records.next().await? {
        for record in &page {
            match replayer.take(record) {
                Ok(Some(difference)) if differences.len() < show => differences.push(difference),
                Ok(_) => {}
                Err(error) => return Ok(unreadable(key, error.to_string(), differences)),
            }
        }
    }
    let replayed = replayer.end(&records.head).map_err(|error| error.to_string());
    Ok(Done {
        key,
        replayed,
        differences,
    })
}

impl Tally {
    fn is_equal(&self) -> bool {
        self.differing == 0 && self.states == 0 && self.unreadable == 0
    }

    fn is_empty(&self) -> bool {
        self.decisions + self.skipped + self.unreadable == 0
    }

    fn json(&self) -> Value {
        json!({
            "equal": self.is_equal(), "entities": self.entities, "equal_entities": self.equal,
            "decisions": self.decisions, "differing": self.differing, "skipped": self.skipped,
            "before_since": self.passed_over, "without_effects": self.without_effects,
            "differing_states": self.states, "unreadable": self.unreadable, "differences": self.shown,
        })
    }

    fn text(&self) -> String {
        let mut text = if self.is_equal() {
            format!(
                "equal: {} decisions of {} entities, decided once more by this build",
                self.decisions, self.entities
            )
        } else {
            format!(
                "{} of {} decisions differ, in {} of {} entities",
                self.differing,
                self.decisions,
                self.entities - self.equal,
                self.entities
            )
        };
        for (count, what) in [
            (self.states, "entities have another state at the end of it"),
            (self.unreadable, "entities cannot be read by this build"),
            (self.skipped, "commands were skipped by people, and are left out"),
            (
                self.without_effects,
                "decisions were recorded without their effects, which are not compared",
            ),
        ] {
            if count > 0 {
                text = format!("{text}\n  {count} {what}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_and_counted() {
        let equal = Tally {
            entities: 2,
            equal: 2,
            decisions: 9,
            skipped: 1,
            ..Tally::default()
        };
        assert!(equal.is_equal());
        assert!(
            equal.text().starts_with("equal: 9 decisions of 2 entities"),
            "{}",
            equal.text()
        );
        assert!(equal.text().contains("1 commands were skipped"));
        let other = Tally { differing: 3, ..equal };
        assert!(!other.is_equal());
        assert!(other.text().starts_with("3 of 9 decisions differ"), "{}", other.text());
        let unreadable = Tally {
            unreadable: 1,
            ..Tally::default()
        };
        assert_eq!(unreadable.json()["equal"], false);
    }

    #[test]
    fn a_kind_that_this_build_does_not_know_is_named_with_those_that_it_knows() {
        let failure = known(&actors::registry(), "ordre").expect_err("no kind");
        assert_eq!(failure.to_string(), "this build knows no kind \"ordre\"");
        known(&actors::registry(), "order").expect("a kind");
    }
}
