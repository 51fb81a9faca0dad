//! A payment provider as a process of its own, `playhouse provider`: it behaves as real ones do, and can be told to fail.
//!
//! Every call that moves money needs an `Idempotency-Key`; the same key gives the same answer and moves money once.
//! Cards and amounts decide what is declined. `PUT /control` switches outage, hanging, errors and latency;
//! `GET /v1/ledger` says what moved for each order.
//!
//! [`wire`] is what goes over the wire, [`ledger`] the books, [`book`] their file, [`faults`] the bad days, [`spans`] its part
//! of traces, [`http`] the routes, [`client`] what `verify` asks.

mod book;
pub mod client;
mod faults;
mod http;
mod ledger;
mod spans;
pub mod wire;

use std::{io, net::SocketAddr, path::PathBuf};

use tokio::net::TcpListener;

use book::Book;
use faults::Faults;
use spans::Spans;

/// How a provider runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7000")]
    pub listen: SocketAddr,
    /// How long an answer takes, on average.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pub latency_ms: u64,
    /// Decline amounts above this, in the smallest unit of the currency.
    #[arg(long, value_name = "N")]
    pub decline_over_minor: Option<i64>,
    /// Keep the ledger in this file, so that it survives a restart.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Send spans over OTLP (gRPC) to the first of these that takes them; otherwise where OTEL_EXPORTER_OTLP_ENDPOINT says.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub spans_to: Vec<String>,
}

/// Why a provider could not run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// Its port is taken or not allowed.
    #[error("cannot listen on {address}: {error}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// Its file cannot be used.
    #[error("cannot use the ledger {}: {error}; choose another with --data", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Its spans have no place to go.
    #[error("{0}")]
    Spans(String),
    /// It stopped serving.
    #[error("the provider stopped: {0}")]
    Serve(io::Error),
}

/// Runs a provider until SIGINT or SIGTERM.
pub async fn run(options: Options) -> Result<(), Error> {
    let address = options.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::Listen { address, error })?;
    serve(listener, &options, crate::signal::stop()).await
}

/// Serves on a listener until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    options: &Options,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    use axum::serve::ListenerExt as _;

    let book = match &options.data {
        None => Book::in_memory(),
        Some(path) => Book::open(path).map_err(|error| Error::Data {
            path: path.clone(),
            error,
        })?,
    };
    let spans = Spans::start(&options.spans_to).map_err(|error| Error::Spans(error.to_string()))?;
    let faults = Faults::new(options.latency_ms, options.decline_over_minor);
    tracing::info!(address = %options.listen, "payment provider listens");
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on a connection");
        }
    });
    // Calls under way are let go with the process: their callers repeat them under the same keys.
    tokio::select! {
        served = axum::serve(listener, http::routes(book, faults, spans)) => served.map_err(Error::Serve),
        () = stop => Ok(()),
    }
}

#[cfg(test)]
mod tests;
