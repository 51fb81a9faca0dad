//! Stand-in until the edge is merged.

pub(crate) mod client;
pub(crate) mod wire;

/// Stand-in with the options that the launcher uses.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7000")]
    pub(crate) listen: std::net::SocketAddr,
    /// Keep the ledger in this file, so that it survives a restart.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<std::path::PathBuf>,
}

/// Stand-in: there is no provider in this tree yet.
pub(crate) async fn run(options: Options) -> miette::Result<()> {
    drop(options.data);
    let bound = tokio::net::TcpListener::bind(options.listen).await;
    bound.map(drop).map_err(|error| miette::miette!(error))
}
