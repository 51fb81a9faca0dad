//! What a node is: its config file, the engine, one gRPC server for clients and peers, an HTTP port, until it is told to stop.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use actors::payment::provider::SERVICE;
use cluster::{Cluster, Services, StartError, supervision::Guard};
use miette::Diagnostic;
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::HealthReporter;

use crate::{
    api::{
        self,
        calls::Calls,
        request::{Edge, Local},
    },
    config::{ConfigError, NodeFile},
    effects::payment::PaymentProvider,
    http::{
        self, HttpConfig,
        tls::{FileFault, Tls},
    },
    signal,
    telemetry::{
        self, Telemetry,
        metrics::{Metrics, ReaderError},
        traces::collector::CollectorError,
    },
};

/// What one stream of a connection may have under way; enough to keep a fast client busy over a slow line.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a connection may have under way.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Calls of one connection that may be under way.
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// A silent connection is asked for a sign of life after this time, and has as long again to give it.
const KEEPALIVE_MS: u64 = 20_000;
/// How long the shards are waited for before a log line says that they are still missing.
const READY_LOG_MS: u64 = 10_000;
/// How long calls under way may take once the node was told to stop.
const STOP_GRACE_MS_MAX: u64 = 5_000;
/// How long the engine may take to hand over its leaderships and to close.
const SHUTDOWN_MS_MAX: u64 = 10_000;

/// Why a node could not run.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum RunError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address}: {error}")]
    #[diagnostic(help("another process may hold the port; stop it, or change the address in the config files"))]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Telemetry(#[from] CollectorError),
    #[error(transparent)]
    Metrics(#[from] ReaderError),
    #[error("the client of the payment provider cannot be made: {0}")]
    Provider(#[from] reqwest::Error),
    #[error("the node cannot start: {0}")]
    Start(#[from] StartError),
    #[error("the gRPC server stopped: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs the node that a config file describes, until SIGINT or SIGTERM.
pub async fn run_node(config_path: &Path) -> Result<(), miette::Report> {
    let file = NodeFile::read(config_path).map_err(RunError::from)?;
    let tls = file.http.tls.as_ref().map(Tls::load).transpose();
    let tls = tls.map_err(|FileFault { key, reason }| {
        RunError::from(ConfigError::Value {
            path: config_path.display().to_string(),
            key: key.to_owned(),
            reason,
        })
    })?;
    telemetry::logs::install(file.telemetry.log, file.cluster.node);
    Ok(run(file, tls).await?)
}

async fn run(file: NodeFile, tls: Option<Tls>) -> Result<(), RunError> {
    let checked = "the config file's policies were checked when it was read";
    let registry = file.registry().expect(checked);
    let told = file.told();
    let config = file.cluster;
    let node = config.node;
    let address = config
        .address_of(node)
        .expect("the config file was checked to list its own node");
    // Peers may knock from now on; they are let in once the engine has started.
    let listener = listen(address).await?;
    let http = match file.http.address {
        Some(address) => Some((listen(address).await?, file.http.clone())),
        None => None,
    };
    let telemetry = Telemetry::start(node, &config.data, &file.telemetry)?;
    let metrics = Metrics::from_environment(node, &config.data)?;
    if let Some(tls) = tls.clone() {
        metrics.watch_certificate(move || tls.certificate().until_s);
    }
    let provider = file.provider.url.clone();
    let guard = Guard::new(SERVICE, file.supervision.provider().expect(checked));
    let services = Services::new()
        .with(SERVICE, PaymentProvider::new(file.provider, guard)?)
        .with_spans(Some(telemetry.spans()))
        .with_meter(metrics.meter())
        .with_http(file.http.address);
    let edge = Edge {
        default_timeout: Duration::from_millis(config.limits.default_timeout_ms),
        cluster: Cluster::start(config, registry, services).await?,
        telemetry: telemetry.clone(),
        metrics: metrics.clone(),
        calls: Calls::default(),
        local: Arc::new(Local {
            control: file.local.control,
            provider,
        }),
        config: told.into(),
        tls,
    };
    metrics.watch(&edge.cluster);
    telemetry.run(edge.cluster.clone());
    tracing::info!(node, %address, pid = std::process::id(), "node listens");
    let served = serve(&edge, listener, http).await;
    // Exporting the last metrics blocks, which a runtime thread must not.
    if let Err(error) = tokio::task::spawn_blocking(move || metrics.stop()).await {
        tracing::warn!(%error, "the last metrics were not exported");
    }
    tracing::info!(node, "node stopped");
    served
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| RunError::Listen { address, error })
}

/// Serves clients and peers until told to stop, then hands over and lets calls under way end.
async fn serve(edge: &Edge, listener: TcpListener, http: Option<(TcpListener, HttpConfig)>) -> Result<(), RunError> {
    let (for_clients, health) = api::routes(edge).await;
    let (ready, is_ready) = watch::channel(false);
    let http = http.map(|(listener, config)| {
        let parts = http::Parts {
            config,
            tls: edge.tls.clone(),
            services: for_clients.clone(),
            ready: is_ready,
            open: http::metrics::router(edge.metrics.clone(), Arc::clone(edge.telemetry.exemplars()))
                .merge(api::traces::http(edge.clone())),
        };
        tokio::spawn(http::serve(listener, parts))
    });
    let (stop, mut stopping) = watch::channel(false);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(Duration::from_millis(KEEPALIVE_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(KEEPALIVE_MS)))
        .add_routes(edge.cluster.add_peer_service(for_clients))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            // An error means that the sender is gone, which is a reason to stop as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
    tokio::pin!(server);

    let readiness = tokio::spawn(report_ready(edge.cluster.clone(), health.clone(), ready.clone()));
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = signal::stop() => None,
    };
    readiness.abort();
    if let Some(ended) = ended {
        return Ok(ended?);
    }
    api::set_serving(&health, false).await;
    ready.send_replace(false);
    let leave = async {
        // Others lead first; calls go on here meanwhile and are forwarded to them.
        edge.cluster.hand_over().await;
        // Then clients are sent elsewhere, and what they have under way here ends.
        stop.send_replace(true);
        if !edge.calls.until_none(Duration::from_millis(STOP_GRACE_MS_MAX)).await {
            tracing::warn!(STOP_GRACE_MS_MAX, "calls under way were cut off");
        }
        edge.telemetry.stop().await;
        edge.cluster.shutdown().await;
    };
    let leave = tokio::time::timeout(Duration::from_millis(SHUTDOWN_MS_MAX), leave);
    tokio::pin!(leave);
    // The server has to be driven meanwhile: peers and calls under way go on over its connections. Streams of peers never
    // end by themselves, so their connections are cut in the end.
    let left = tokio::select! {
        left = &mut leave => left,
        ended = &mut server => {
            ended?;
            leave.await
        }
    };
    if left.is_err() {
        tracing::warn!(SHUTDOWN_MS_MAX, "the engine did not close in time");
    }
    if let Some(http) = http {
        http.abort();
    }
    Ok(())
}

/// Says "serving" once every shard has a leader that can be reached.
async fn report_ready(cluster: Cluster, health: HealthReporter, ready: watch::Sender<bool>) {
    while let Err(error) = cluster.ready(Duration::from_millis(READY_LOG_MS)).await {
        tracing::warn!(%error, "not ready yet");
        // An answer that comes at once must not make this a busy loop.
        tokio::time::sleep(Duration::from_millis(READY_LOG_MS / 10)).await;
    }
    api::set_serving(&health, true).await;
    ready.send_replace(true);
    tracing::info!("node ready");
}
