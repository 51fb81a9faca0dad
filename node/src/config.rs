//! A node's config file: TOML with the tables `cluster`, `provider`, `supervision`, `history`, `telemetry` and `http`. What is wrong with it is
//! said with the file and the key. The variable `PLAYHOUSE_LIMITS` changes limits of all nodes that find it in their
//! environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use actors::payment::provider::SERVICE;
use cluster::{
    Registry,
    config::Config,
    history::Retention,
    supervision::{Overrides, Policy as SupervisionPolicy},
};
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};

use crate::{effects::policy::Policy, http::HttpConfig, telemetry::logs::LogFormat};

/// Limits that count for every node which finds them in its environment: `idle_ms = 500, mailbox_len_max = 64`.
const LIMITS_VARIABLE: &str = "PLAYHOUSE_LIMITS";
/// The most shards of a cluster.
const SHARDS_MAX: u32 = 1024;

/// Everything that a node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The engine: this node, its members, its limits.
    pub cluster: Config,
    /// The payment provider and how it is called.
    pub provider: Policy,
    /// How failures are met, where that differs from what is built in.
    #[serde(default)]
    pub supervision: Supervision,
    /// What kinds of entities keep of their history, where that is not all of it for ever. All nodes should have the same.
    #[serde(default)]
    pub history: BTreeMap<String, Retention>,
    /// What the node tells of itself.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Where it can be looked at in a browser, and by whom.
    #[serde(default)]
    pub http: HttpConfig,
    /// Who started it, where that is a launcher on the same machine.
    #[serde(default)]
    pub local: LocalConfig,
}

/// Who started the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// The socket through which the launcher takes orders: with `chaos`, nodes can be killed and started from the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
}

/// How failures are met, where that differs from what is built in. All nodes should have the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Supervision {
    /// By kind of entity.
    pub entity: BTreeMap<String, Overrides>,
    /// By dependency outside.
    pub outside: BTreeMap<String, Overrides>,
}

impl NodeFile {
    /// The kinds of entities with their policies and what they keep; or the key that is wrong, with what is wrong with it.
    pub fn registry(&self) -> Result<Registry, (String, String)> {
        let registry = self.supervision.registry()?;
        let known = registry.names().collect::<Vec<_>>().join(", ");
        registry.keeping(&self.history).map_err(|kind| {
            let key = format!("history.{kind}");
            (key, format!("is no kind of entity; there are {known}"))
        })
    }
}

impl Supervision {
    /// The kinds of entities with their policies; or the key that is wrong, with what is wrong with it.
    pub fn registry(&self) -> Result<Registry, (String, String)> {
        actors::registry()
            .overridden(&self.entity)
            .map_err(|(key, reason)| (format!("supervision.entity.{key}"), reason))
    }

    /// The policy of the payment provider.
    pub fn provider(&self) -> Result<SupervisionPolicy, (String, String)> {
        if let Some(unknown) = self.outside.keys().find(|name| *name != SERVICE) {
            let key = format!("supervision.outside.{unknown}");
            return Err((key, format!("is no dependency outside; there is {SERVICE}")));
        }
        let overrides = self.outside.get(SERVICE).copied().unwrap_or_default();
        overrides.of(SupervisionPolicy::OUTSIDE).map_err(|fault| {
            let key = format!("supervision.outside.{SERVICE}.{}", fault.key);
            (key, fault.reason)
        })
    }
}

/// What the node tells of itself. The variables `OTEL_TRACES_SAMPLER` and `OTEL_EXPORTER_OTLP_…` go before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub log: LogFormat,
    /// The part of new traces that are recorded, from 0 to 1. What fails or is slow is told of in any case.
    pub sample_ratio: f64,
    /// No new trace is recorded while this node makes more spans a second.
    pub spans_per_s_max: u32,
    /// A call that takes so many milliseconds is slow.
    pub slow_ms: u64,
    /// Traces that this node keeps in memory, in MiB.
    pub traces_memory_mib: u32,
    /// Traces that it keeps in files, in MiB.
    pub traces_disk_mib: u32,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: LogFormat::default(),
            sample_ratio: 0.01,
            spans_per_s_max: 500,
            slow_ms: 1_000,
            traces_memory_mib: 32,
            traces_disk_mib: 128,
        }
    }
}

impl Eq for TelemetryConfig {}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the config file {path}: {error}")]
    #[diagnostic(help("`playhouse up` writes one for each node; `playhouse node --config FILE` takes its path"))]
    Read {
        /// Its path.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// It is no TOML, or not of the right form.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Form(Box<WrongForm>),
    /// A value cannot be.
    #[error("the config file {path} is wrong: `{key}` {reason}")]
    Value {
        /// Its path.
        path: String,
        /// The key, with its table.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A config file that is no TOML, or not of the right form.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the config file {path} is wrong: {message}")]
pub struct WrongForm {
    path: String,
    message: String,
    #[source_code]
    text: NamedSource<String>,
    #[label("here")]
    at: Option<SourceSpan>,
}

impl NodeFile {
    /// All of it for people, with what the file leaves out, without the secrets.
    pub(crate) fn told(&self) -> String {
        let mut file = self.clone();
        let hidden = |token: &mut Option<String>| {
            if let Some(token) = token {
                "(set)".clone_into(token);
            }
        };
        hidden(&mut file.http.operator_token);
        hidden(&mut file.http.reader_token);
        toml::to_string(&file).unwrap_or_else(|error| format!("# it cannot be written: {error}"))
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: name.clone(),
            error,
        })?;
        let file = Self::parse(&name, &text)?;
        match env::var(LIMITS_VARIABLE) {
            Ok(limits) => file.with_limits(&limits),
            Err(_) => Ok(file),
        }
    }

    /// The same with other limits: `name = value`, divided by commas.
    fn with_limits(mut self, changes: &str) -> Result<Self, ConfigError> {
        let wrong = |key: &str, reason: String| ConfigError::Value {
            path: format!("as changed by {LIMITS_VARIABLE}"),
            key: key.to_owned(),
            reason,
        };
        let changes: toml::Table =
            toml::from_str(&changes.replace(',', "\n")).map_err(|error| wrong("limits", error.message().to_owned()))?;
        let mut limits =
            toml::Table::try_from(&self.cluster.limits).map_err(|error| wrong("limits", error.to_string()))?;
        limits.extend(changes);
        self.cluster.limits = limits
            .try_into()
            .map_err(|error: toml::de::Error| wrong("limits", error.message().to_owned()))?;
        match self.fault() {
            None => Ok(self),
            Some((key, reason)) => Err(wrong(&key, reason)),
        }
    }

    /// Reads and checks a file's text.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let file: Self = toml::from_str(text).map_err(|error| {
            ConfigError::Form(Box::new(WrongForm {
                path: path.to_owned(),
                message: error.message().to_owned(),
                text: NamedSource::new(path, text.to_owned()),
                at: error.span().map(SourceSpan::from),
            }))
        })?;
        match file.fault() {
            None => Ok(file),
            Some((key, reason)) => Err(ConfigError::Value {
                path: path.to_owned(),
                key,
                reason,
            }),
        }
    }

    /// The first value that cannot be, with what is wrong with it.
    fn fault(&self) -> Option<(String, String)> {
        let fault = |key: &str, reason: String| Some((key.to_owned(), reason));
        let cluster = &self.cluster;
        if !(1..=SHARDS_MAX).contains(&cluster.shards) {
            return fault(
                "cluster.shards",
                format!("is {}; it goes from 1 to {SHARDS_MAX}", cluster.shards),
            );
        }
        if cluster.replicas == 0 {
            return fault(
                "cluster.replicas",
                "is 0; each shard needs at least one copy".to_owned(),
            );
        }
        if cluster.address_of(cluster.node).is_none() {
            return fault("cluster.members", format!("does not list this node, {}", cluster.node));
        }
        let mut seen = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for member in &cluster.members {
            if member.id == 0 || !seen.insert(member.id) {
                return fault(
                    "cluster.members",
                    format!("has id {}; ids start at 1 and differ", member.id),
                );
            }
            if !addresses.insert(member.address) {
                return fault("cluster.members", format!("has the address {} twice", member.address));
            }
        }
        let limits = &cluster.limits;
        let positive = [
            ("tick_ms", limits.tick_ms),
            ("heartbeat_ticks", limits.heartbeat_ticks as u64),
            ("mailbox_len_max", limits.mailbox_len_max as u64),
            ("gate_records_max", limits.gate_records_max as u64),
            ("in_flight_max", limits.in_flight_max as u64),
            ("effects_in_flight_max", limits.effects_in_flight_max as u64),
            ("value_bytes_max", limits.value_bytes_max as u64),
            ("append_records_max", limits.append_records_max as u64),
            ("append_bytes_max", limits.append_bytes_max as u64),
            ("tail_bytes_max", limits.tail_bytes_max as u64),
            ("checkpoint_interval_ms", limits.checkpoint_interval_ms),
            ("idle_ms", limits.idle_ms),
            ("default_timeout_ms", limits.default_timeout_ms),
            ("requests_kept_ms", limits.requests_kept_ms),
            ("live_entities_max", limits.live_entities_max as u64),
            ("recoveries_in_flight_max", limits.recoveries_in_flight_max as u64),
            ("in_flight_bytes_max", limits.in_flight_bytes_max as u64),
            ("queue_delay_max_ms", limits.queue_delay_max_ms),
            ("outbox_len_max", limits.outbox_len_max as u64),
            ("effect_depth_max", u64::from(limits.effect_depth_max)),
            ("effect_requests_max", limits.effect_requests_max as u64),
            ("subscriptions_max", limits.subscriptions_max as u64),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return fault(&format!("cluster.limits.{key}"), "is 0; it must be more".to_owned());
        }
        if limits.election_ticks <= limits.heartbeat_ticks {
            let reason = format!("is {}; it must be more than heartbeat_ticks", limits.election_ticks);
            return fault("cluster.limits.election_ticks", reason);
        }
        if let Some(fault) = self.http.fault() {
            return Some(fault);
        }
        if let Some((key, reason)) = self.provider.fault() {
            return fault(&format!("provider.{key}"), reason);
        }
        if !(0.0..=1.0).contains(&self.telemetry.sample_ratio) {
            let reason = format!("is {}; it goes from 0 to 1", self.telemetry.sample_ratio);
            return fault("telemetry.sample_ratio", reason);
        }
        let policies = self.registry().map(drop).and(self.supervision.provider());
        policies.err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        [cluster]
        node = 1
        data = "data/1"
        members = [{ id = 1, address = "127.0.0.1:7001" }, { id = 2, address = "127.0.0.1:7002" }]
        [provider]
        url = "http://127.0.0.1:7000"
    "#;

    fn fault_of(text: &str) -> String {
        NodeFile::parse("node.toml", text).expect_err("wrong").to_string()
    }

    #[test]
    fn the_smallest_file_is_enough_and_reads_back() {
        let file = NodeFile::parse("node.toml", SMALLEST).expect("right");
        assert_eq!(file.cluster.shards, 16);
        let written = toml::to_string(&file).expect("plain data");
        assert_eq!(NodeFile::parse("node.toml", &written).expect("right"), file);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = NodeFile::parse("node.toml", &format!("{SMALLEST}\nurk = 1")).expect_err("wrong");
        assert!(
            error.to_string().contains("node.toml") && error.to_string().contains("`urk`"),
            "{error}"
        );
        assert!(matches!(error, ConfigError::Form(form) if form.at.is_some()));
        assert!(fault_of("").contains("cluster"));
    }

    #[test]
    fn a_value_that_cannot_be_is_named() {
        let with = |from: &str, to: &str| fault_of(&SMALLEST.replace(from, to));
        assert!(with("node = 1", "node = 7").contains("`cluster.members` does not list this node, 7"));
        assert!(with("node = 1", "node = 1\nshards = 0").contains("`cluster.shards` is 0"));
        assert!(with("id = 2", "id = 1").contains("has id 1"));
        assert!(with(":7002", ":7001").contains("twice"));
        assert!(with("http://127.0.0.1:7000", "nonsense").contains("`provider.url`"));
        assert!(with("[provider]", "[cluster.limits]\ntick_ms = 0\n[provider]").contains("cluster.limits.tick_ms"));
    }

    #[test]
    fn policies_are_overridden_key_by_key_and_checked() {
        let with = |text: &str| NodeFile::parse("node.toml", &format!("{SMALLEST}\n{text}"));
        let file = with("[supervision.entity.order]\nquarantine_after = 7\n[supervision.outside.payment-provider]\nbreaker_open_ms = 5")
            .expect("right");
        let registry = file.supervision.registry().expect("right");
        assert_eq!(registry.policy("order").quarantine_after, 7);
        assert_eq!(registry.policy("stock"), SupervisionPolicy::ENTITY);
        assert_eq!(file.supervision.provider().expect("right").breaker_open_ms, 5);

        let fault = |text: &str| with(text).expect_err("wrong").to_string();
        assert!(fault("[supervision.entity.ordre]").contains("`supervision.entity.ordre` is no kind of entity"));
        assert!(fault("[supervision.outside.post]").contains("`supervision.outside.post` is no dependency"));
        assert!(fault("[supervision.entity.order]\nbreaker = 1").contains("`breaker`"));
        let wrong = fault("[supervision.outside.payment-provider]\njitter_percent = 200");
        assert!(
            wrong.contains("`supervision.outside.payment-provider.jitter_percent` is 200"),
            "{wrong}"
        );
    }

    #[test]
    fn limits_of_the_environment_are_checked_like_those_of_the_file() {
        let file = || NodeFile::parse("node.toml", SMALLEST).expect("right");
        let changed = file()
            .with_limits("gate_records_max = 1, idle_ms = 500")
            .expect("right");
        let limits = changed.cluster.limits;
        assert_eq!((limits.gate_records_max, limits.idle_ms), (1, 500));
        assert_eq!(limits.mailbox_len_max, file().cluster.limits.mailbox_len_max);
        for wrong in ["gate_records_max = 0", "urk = 1", "nonsense", "idle_ms = -1"] {
            let error = file().with_limits(wrong).expect_err(wrong).to_string();
            assert!(error.contains("PLAYHOUSE_LIMITS"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = NodeFile::read(Path::new("/nowhere/node.toml")).expect_err("missing");
        assert!(error.to_string().contains("/nowhere/node.toml"));
    }
}
