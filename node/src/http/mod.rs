//! A node's HTTP port: whether it lives and serves, the same calls as over gRPC but as JSON, and the console.
//!
//! [`health`] answers `/healthz` and `/readyz`, [`metrics`] `/metrics`, [`caller`] and [`access`] who may do what, [`transcode`] is `/api`, [`crate::console`] the pages.
//! [`tls`] is between all of it and the network where the config file says so.
//! What is measured or told by others joins as a router of its own.

mod access;
mod caller;
mod config;
mod health;
pub(crate) mod link;
pub(crate) mod metrics;
pub(crate) mod tls;
mod transcode;

use std::{future::IntoFuture as _, net::SocketAddr};

use axum::{
    Router,
    http::{HeaderValue, header},
    response::Response,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::service::Routes;

pub use config::HttpConfig;

use access::Access;
use tls::{ClientNames, Tls, TlsListener};

/// What the browser may do with our pages: run and show what comes from this node, and ask other nodes.
const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                              connect-src *; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the port is made of.
pub(crate) struct Parts {
    /// How it is used.
    pub(crate) config: HttpConfig,
    /// TLS, where it is on.
    pub(crate) tls: Option<Tls>,
    /// The gRPC services for clients.
    pub(crate) services: Routes,
    /// Whether the node serves.
    pub(crate) ready: watch::Receiver<bool>,
    /// What else is served, without rights.
    pub(crate) open: Router,
}

/// All routes.
fn router(parts: Parts) -> Router {
    let access = Access::new(&parts.config);
    Router::new()
        .merge(health::router(parts.ready))
        .merge(access::router(access.clone()))
        .nest("/api", transcode::router(parts.services, access))
        .merge(parts.open)
        .merge(crate::console::router())
        .layer(axum::middleware::map_response(guard))
}

/// Serves until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, parts: Parts) {
    let address: Option<SocketAddr> = listener.local_addr().ok();
    let served = match parts.tls.clone() {
        None => axum::serve(listener, router(parts)).await,
        Some(tls) => {
            let listener = TlsListener::new(listener, tls.clone());
            let router = router(parts).into_make_service_with_connect_info::<ClientNames>();
            let served = axum::serve(listener, router);
            tokio::select! {
                served = served.into_future() => served,
                () = tls.follow() => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, ?address, "the HTTP port is served no longer");
    }
}

/// What each answer says to browsers.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
