//! Nodes that come to a running local cluster, and nodes that have left it.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    control::Done,
    launcher::{Launcher, STOP_TIMEOUT, no_such_node, node_process},
    ready::{Probe, Progress},
};

/// How long a new node may take to be let in and to serve.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at how far it is.
const READY_POLL: Duration = Duration::from_millis(50);

impl Launcher {
    /// Starts one more node, and waits until it is a member.
    pub(super) async fn add_node(&mut self) -> Result<Done, String> {
        let id =
            (self.layout.free_id()).ok_or("no number is free for another node; remove folders of nodes that left")?;
        let written = |error: io::Error| format!("the configuration of node {id} cannot be written: {error}");
        self.layout.nodes.insert(id);
        self.layout.write_join_config(id).map_err(written)?;
        let mut process = node_process(&self.layout, &self.program, id);
        let started = process.start();
        let pid = process.pid().unwrap_or_default();
        self.nodes.insert(id, process);
        let joined = match started {
            Ok(()) => self.until_joined(id).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = joined {
            if let Some(mut process) = self.nodes.remove(&id) {
                // It may have ended by itself.
                let _ = process.kill().await;
            }
            self.layout.nodes.remove(&id);
            return Err(format!("node {id} could not join: {reason}"));
        }
        // From now on it is one of them: should its folder be lost, it comes back like any other.
        self.layout.write_configs().map_err(written)?;
        Ok(Done {
            node: id,
            pid,
            grpc: self.layout.node_address(id).to_string(),
            link: String::new(),
        })
    }

    async fn until_joined(&mut self, id: u8) -> Result<(), String> {
        let probe = Probe::new(self.layout.node_address(id), self.layout.shards);
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            let process = self.nodes.get_mut(&id).expect("it was just started");
            if let Some(status) = process.ended() {
                return Err(format!("it ended: {status}\n{}", process.log_tail()));
            }
            if probe.progress().await == Progress::Ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("it does not serve after {JOIN_TIMEOUT:?}"));
            }
            sleep(READY_POLL).await;
        }
    }

    /// Stops a node that has left the cluster, and starts it no more. Its folder stays, for whoever wants to look at it.
    pub(super) async fn forget_node(&mut self, id: u8) -> Result<Done, String> {
        let mut process = self.nodes.remove(&id).ok_or_else(|| no_such_node(&self.layout, id))?;
        self.layout.nodes.remove(&id);
        let pid = process.pid().unwrap_or_default();
        let failed = |error: io::Error| format!("node {id}: {error}");
        if pid != 0 {
            process.ask_to_end().map_err(failed)?;
            process.end_within(STOP_TIMEOUT).await.map_err(failed)?;
        }
        self.layout
            .write_configs()
            .map_err(|error| format!("the configurations cannot be written: {error}"))?;
        Ok(Done {
            node: id,
            pid,
            grpc: self.layout.node_address(id).to_string(),
            link: String::new(),
        })
    }
}
