//! Compiles the contracts with protox, so that no protoc has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

const CONTRACTS: [&str; 16] = [
    "common/v1/common.proto",
    "order/v1/order.proto",
    "catalog/v1/catalog.proto",
    "payment/v1/payment.proto",
    "gateway/v1/gateway.proto",
    "events/v1/events.proto",
    "history/v1/history.proto",
    "saga/v1/saga.proto",
    "cluster/v1/admin.proto",
    "cluster/v1/peer.proto",
    "schema/v1/schema.proto",
    "projection/v1/projection.proto",
    "chaos/v1/chaos.proto",
    "telemetry/v1/metrics.proto",
    "telemetry/v1/traces.proto",
    "telemetry/v1/logs.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(CONTRACTS, ["."])?;
    // With the comments, so that the contracts can be told to people who have only a running node.
    let told = protox::Compiler::new(["."])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(CONTRACTS)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), told)?;
    tonic_prost_build::configure()
        .bytes(".playhouse.cluster.v1")
        .bytes(".playhouse.events.v1")
        .bytes(".playhouse.history.v1")
        .compile_fds(descriptors)?;
    for contract in CONTRACTS {
        println!("cargo:rerun-if-changed={contract}");
    }
    Ok(())
}
