//! One engine of a local cluster: its runtime, its server, and two ways to end it.

use std::{net::TcpListener, time::Duration};

use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

use crate::{
    cluster::{Cluster, StartError},
    config::Config,
    entity::Registry,
    service::Services,
};

/// Threads of each node's runtime.
const WORKERS: usize = 2;
/// How long what runs in a node may take to end after a kill.
const END_MAX: Duration = Duration::from_secs(5);
/// How often and after how long a folder or a port that the node before still holds is tried again.
const ATTEMPTS_MAX: u32 = 50;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// A running engine that serves its peers. Dropping it is a kill.
pub struct LocalNode {
    /// Its engine.
    pub cluster: Cluster,
    server: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl LocalNode {
    /// Starts an engine, and serves its peers on the address that its config gives it.
    pub async fn start(config: Config, registry: Registry, services: Services) -> Result<Self, StartError> {
        let Some(address) = config.address_of(config.node) else {
            return Err(StartError::Config(format!(
                "members: node {} itself is not among them",
                config.node
            )));
        };
        let mut attempts = 0;
        let listener = loop {
            attempts += 1;
            match bind(address) {
                Ok(listener) => break listener,
                // Connections of the node before may still be closing.
                Err(error) if attempts == ATTEMPTS_MAX => {
                    return Err(StartError::Config(format!("{address} cannot be listened on: {error}")));
                }
                Err(_) => sleep(ATTEMPT_PAUSE).await,
            }
        };
        Self::start_on(listener, config, registry, services).await
    }

    /// The same on a port that is bound already, so that nobody else takes it.
    pub async fn start_on(
        listener: TcpListener,
        config: Config,
        registry: Registry,
        services: Services,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name(format!("node-{}", config.node))
            .enable_all()
            .build()
            .map_err(|error| StartError::Config(format!("no threads: {error}")))?;
        let started = runtime.spawn(launch(listener, config, registry, services)).await;
        let (cluster, server, end) = match started {
            Ok(Ok(started)) => started,
            failed => {
                runtime.shutdown_background();
                return Err(match failed {
                    Ok(Err(error)) => error,
                    _ => StartError::Config("the start panicked; the panic above says where".to_owned()),
                });
            }
        };
        Ok(Self {
            cluster,
            server: Some(server),
            end: Some(end),
            runtime: Some(runtime),
        })
    }

    /// Ends it in good order: leaderships are handed over, a last checkpoint is made.
    pub async fn stop(mut self) {
        self.cluster.shutdown().await;
        drop(self.end.take());
        if let Some(server) = self.server.take() {
            // Should it have panicked, the panic was printed.
            let _ = server.await;
        }
        self.end_runtime().await;
    }

    /// Ends it at once, as `kill -9` would: no leadership is handed over, no last checkpoint is made, its connections break.
    pub async fn kill(mut self) {
        let cluster = self.cluster.clone();
        // A thread that panicked has ended the process already.
        let _ = tokio::task::spawn_blocking(move || cluster.halt()).await;
        self.end_runtime().await;
    }

    async fn end_runtime(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It waits for what runs in it, which must not hold up who asked.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_MAX)).await;
        }
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.cluster.halt();
            runtime.shutdown_background();
        }
    }
}

fn bind(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
}

async fn launch(
    listener: TcpListener,
    config: Config,
    registry: Registry,
    services: Services,
) -> Result<(Cluster, JoinHandle<()>, oneshot::Sender<()>), StartError> {
    let mut attempts = 0;
    let cluster = loop {
        attempts += 1;
        match Cluster::start(config.clone(), registry.clone(), services.clone()).await {
            Err(StartError::Data(reason)) if reason.to_lowercase().contains("lock") && attempts < ATTEMPTS_MAX => {
                sleep(ATTEMPT_PAUSE).await;
            }
            started => break started?,
        }
    };
    let wrong = |error: std::io::Error| StartError::Config(format!("its port cannot be listened on: {error}"));
    listener.set_nonblocking(true).map_err(wrong)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(wrong)?;
    let routes = cluster.add_peer_service(Routes::default());
    let (end, ending) = oneshot::channel();
    let server = tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let ended = async { drop(ending.await) };
        let served = Server::builder().add_routes(routes);
        if let Err(error) = served.serve_with_incoming_shutdown(incoming, ended).await {
            tracing::error!(%error, "the server of a local node has ended");
        }
    });
    Ok((cluster, server, end))
}
