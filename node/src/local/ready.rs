//! Whether nodes serve: each is healthy and each sees a leader for every shard.

use std::{net::SocketAddr, time::Duration};

use proto::cluster::v1::{StatusRequest, StatusResponse, admin_client::AdminClient};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It does not answer yet.
    Starting,
    /// It answers; so many shards have a leader.
    Electing(u32),
    /// It serves.
    Ready,
}

/// One node to ask.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    channel: Channel,
    shards: u32,
}

impl Probe {
    /// Connects with the first question.
    pub(crate) fn new(address: SocketAddr, shards: u32) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address and a port make a URL")
            .connect_timeout(QUESTION_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        Self { channel, shards }
    }

    /// Asks how far the node is.
    pub(crate) async fn progress(&self) -> Progress {
        let mut admin = AdminClient::new(self.channel.clone());
        let Ok(Ok(status)) = timeout(QUESTION_TIMEOUT, admin.status(StatusRequest {})).await else {
            return Progress::Starting;
        };
        let led = shards_led(&status.into_inner());
        if led < self.shards || !self.is_serving().await {
            return Progress::Electing(led);
        }
        Progress::Ready
    }

    async fn is_serving(&self) -> bool {
        let request = HealthCheckRequest { service: String::new() };
        let mut health = HealthClient::new(self.channel.clone());
        match timeout(QUESTION_TIMEOUT, health.check(request)).await {
            Ok(Ok(reply)) => reply.into_inner().status() == ServingStatus::Serving,
            _ => false,
        }
    }
}

fn shards_led(status: &StatusResponse) -> u32 {
    status.shards.iter().filter(|shard| shard.leader != 0).count() as u32
}
