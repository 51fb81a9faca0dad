//! Stand-in until the edge is merged.

use std::path::Path;

/// Stand-in: there is no engine in this tree yet.
pub(crate) async fn run_node(config: &Path) -> miette::Result<()> {
    tokio::fs::read(config)
        .await
        .map(drop)
        .map_err(|error| miette::miette!(error))
}
