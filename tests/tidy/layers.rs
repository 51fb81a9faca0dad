//! One foreign library, one module; and what is pure stays pure.

use crate::tree::{File, files, names, none, rust};

/// A library: how code names it, and where it may. Lines that are only a comment do not count.
struct Library {
    name: &'static str,
    places: &'static [&'static str],
}

/// The foreign libraries that have a place of their own.
const LIBRARIES: &[Library] = &[
    Library {
        name: "raft::",
        places: &["cluster/src/replication"],
    },
    Library {
        name: "protobuf::",
        places: &["cluster/src/replication"],
    },
    Library {
        name: "slog::",
        places: &["cluster/src/replication/group.rs"],
    },
    Library {
        name: "raft_engine",
        places: &["cluster/src/store/log.rs", "cluster/src/store/device.rs"],
    },
    Library {
        name: "sled::",
        places: &["cluster/src/store/state.rs"],
    },
    Library {
        name: "schemars::",
        places: &["cluster/src/schema/derive.rs"],
    },
    Library {
        name: "rmpv",
        places: &["cluster/src/schema/stored.rs"],
    },
    Library {
        name: "ractor",
        places: &[
            "cluster/src/entity/activation.rs",
            "cluster/src/shard/supervisor.rs",
            "cluster/src/shard/population.rs",
            "cluster/src/shard/replica.rs",
        ],
    },
    Library {
        name: "tonic",
        places: &[
            // The peers' side: connections and server in `transport`, the routes in the one door, and the places
            // that make single calls to a peer and read their status.
            "cluster/src/transport",
            "cluster/src/cluster.rs",
            "cluster/src/local",
            "cluster/src/engine/status.rs",
            "cluster/src/engine/supervision.rs",
            "cluster/src/membership",
            "cluster/tests",
            // The clients' side.
            "proto",
            "node/src/app.rs",
            "node/src/api",
            "node/src/cli",
            "node/src/local",
            "node/src/http",
            "node/src/telemetry/traces",
            "node/src/telemetry/metrics/tests.rs",
            "tests",
            "examples",
        ],
    },
    Library {
        name: "prost_reflect",
        places: &["node/src/http/transcode"],
    },
    Library {
        name: "rust_embed",
        places: &["node/src/console/mod.rs"],
    },
    Library {
        name: "hyper_util",
        places: &["cluster/src/transport/shaped.rs"],
    },
    Library {
        name: "tokio_rustls",
        places: &["node/src/http/tls", "tests"],
    },
    Library {
        name: "x509_parser",
        places: &["node/src/http/tls/certificate.rs"],
    },
    Library {
        name: "governor",
        places: &["node/src/effects"],
    },
    Library {
        name: "reqwest",
        places: &[
            "node/src/effects",
            "node/src/telemetry/traces/collector.rs",
            "node/src/provider",
            "node/src/app.rs",
            "node/src/http/link.rs",
            "tests",
        ],
    },
    Library {
        name: "axum",
        places: &[
            "node/src/provider",
            "node/src/api/decode.rs",
            "node/src/api/measured.rs",
            "node/src/api/traces.rs",
            "node/src/telemetry/logs/context.rs",
            "node/src/api/mod.rs",
            "node/src/app.rs",
            "node/src/console/mod.rs",
            "node/src/http",
            "node/src/effects/payment",
        ],
    },
    Library {
        name: "opentelemetry",
        places: &["node/src/telemetry/metrics", "node/tests"],
    },
    Library {
        name: "opentelemetry_otlp",
        places: &["node/src/telemetry/metrics/readers.rs"],
    },
    Library {
        name: "opentelemetry_prometheus_text_exporter",
        places: &["node/src/telemetry/metrics/readers.rs"],
    },
    Library {
        name: "http_body",
        places: &["node/src/api/measured.rs"],
    },
    Library {
        name: "opentelemetry_proto",
        places: &[
            "node/src/telemetry/traces",
            "node/src/telemetry/metrics/tests.rs",
            "node/src/api/mod.rs",
            "node/src/api/traces.rs",
            "node/src/cli/client/trace.rs",
            "tests",
        ],
    },
    Library {
        name: "tracing_subscriber",
        places: &["node/src/telemetry/logs"],
    },
    Library {
        name: "comfy_table",
        places: &["node/src/cli/output.rs"],
    },
    Library {
        name: "clap",
        places: &[
            "node/src/cli",
            "node/src/local/layout.rs",
            "node/src/provider/mod.rs",
            "tests/bench",
            "tests/simulate",
        ],
    },
    Library {
        name: "rustix",
        places: &[
            "cluster/src/clock.rs",
            "node/src/local",
            "node/src/telemetry/metrics/disk.rs",
            "tests/bench/process.rs",
            "tests/harness",
        ],
    },
];

/// Code that is given the world instead of taking it, and what it must not name.
const PURE: &[(&str, &[&str])] = &[
    (
        "actors/src",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::process",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
            "HashSet",
        ],
    ),
    (
        "cluster/src/replication",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::process",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
        ],
    ),
    (
        "cluster/src/journal",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::process",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
        ],
    ),
    (
        "cluster/src/placement",
        &["std::time", "std::net", "std::fs", "tokio", "rand", "async"],
    ),
    (
        "cluster/src/saga/decide.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "cluster/src/saga/state.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "cluster/src/saga/table.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "cluster/src/saga/work.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "cluster/src/saga/message.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "cluster/src/saga/outline.rs",
        &[
            "std::time",
            "std::net",
            "std::fs",
            "SystemTime",
            "Instant",
            "tokio",
            "rand",
            "async",
            "await",
            "HashMap",
        ],
    ),
    (
        "node/src/api/convert.rs",
        &["std::time", "tokio", "rand", "async", "await"],
    ),
    (
        "node/src/provider/ledger.rs",
        &["std::time", "std::fs", "tokio", "rand", "async", "await"],
    ),
];

/// Our crates, and the ones of ours that each may build on.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("cluster", &["proto"]),
    ("actors", &["cluster"]),
    ("node", &["proto", "cluster", "actors"]),
    ("examples", &["proto"]),
    ("examples/own-entity", &["cluster"]),
];

/// This folder names everything that it forbids.
fn foreign() -> Vec<File> {
    let mut files = rust();
    files.retain(|file| !file.is_in("tests/tidy"));
    files
}

#[test]
fn a_library_is_named_in_its_own_module_only() {
    let files = foreign();
    let mut findings = Vec::new();
    for library in LIBRARIES {
        for place in library.places.iter().filter(|place| place.contains("/src/")) {
            assert!(
                files.iter().any(|file| file.is_in(place)),
                "the table gives {} the place {place}, which is not there",
                library.name
            );
        }
        for file in files
            .iter()
            .filter(|file| !library.places.iter().any(|place| file.is_in(place)))
        {
            for (number, line) in file.code().filter(|(_, line)| names(line, library.name)) {
                findings.push(format!("{}:{number}: {}: {}", file.path, library.name, line.trim()));
            }
        }
    }
    none("a library is named outside of its own module", &findings);
}

#[test]
fn what_is_pure_stays_pure() {
    let files = foreign();
    let mut findings = Vec::new();
    for (place, words) in PURE {
        let mut inside = files.iter().filter(|file| file.is_in(place)).peekable();
        assert!(inside.peek().is_some(), "the table names {place}, which is not there");
        for file in inside {
            for (number, line) in file.code() {
                for word in words.iter().filter(|word| names(line, word)) {
                    findings.push(format!("{}:{number}: {word}: {}", file.path, line.trim()));
                }
            }
        }
    }
    none("pure code reaches for the world", &findings);
}

#[test]
fn crates_know_each_other_in_one_direction() {
    let ours = ["proto", "cluster", "actors", "node", "tests", "examples"];
    let files = files();
    let mut findings = Vec::new();
    for (name, allowed) in DIRECTIONS {
        let path = format!("{name}/Cargo.toml");
        let manifest = files.iter().find(|file| file.path == path);
        let manifest = manifest.unwrap_or_else(|| panic!("{path} is not there"));
        for (number, line) in manifest.lines() {
            let depends =
                |other: &&str| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ="));
            for other in ours.iter().filter(|other| depends(other) && !allowed.contains(other)) {
                findings.push(format!("{path}:{number}: {name} must not build on {other}"));
            }
        }
    }
    none("a crate builds on one that it must not know", &findings);
}
