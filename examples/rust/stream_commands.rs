//! Sends many commands over one stream, 64 in flight, and goes on at another node when the stream breaks.
//!
//! Start a cluster with `playhouse up --no-load`, then `cargo run --release -p examples --bin stream_commands -- 10000`;
//! nodes elsewhere follow the count as HOST:PORT.

use std::{
    collections::{HashMap, VecDeque},
    env,
    error::Error,
    time::{Duration, Instant},
};

use proto::{
    catalog::v1::ReceiveStockRequest,
    gateway::v1::{
        CommandRequest, CommandResponse, command_request::Command, command_response::Result as Outcome,
        gateway_client::GatewayClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use ulid::Ulid;

/// The nodes that `playhouse up` starts.
const NODES: [&str; 3] = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
/// Commands that are sent and not answered. More of them trade latency for throughput.
const IN_FLIGHT_MAX: usize = 64;
/// Stock items that the commands are spread over.
const ITEMS: u64 = 100;
/// Streams that may break in a row before the program gives up.
const BREAKS_MAX: usize = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let count = match env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 1_000,
    };
    let mut nodes: Vec<String> = env::args().skip(2).collect();
    if nodes.is_empty() {
        nodes = NODES.map(str::to_owned).to_vec();
    }
    let mut work = Work::new(count);
    let begun = Instant::now();
    let mut breaks = 0;
    for node in nodes.iter().cycle() {
        let before = work.done;
        match work.over_one_stream(node).await {
            Ok(()) => break,
            Err(status) => {
                breaks = if work.done > before { 0 } else { breaks + 1 };
                if breaks > BREAKS_MAX {
                    return Err(format!("no node takes the stream: {}", status.message()).into());
                }
                eprintln!(
                    "{node}: {}; {} commands go to the next node",
                    status.message(),
                    work.unanswered.len()
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} done, {} refused, {:.0} a second",
        work.done,
        work.refused,
        f64::from(count) / seconds
    );
    Ok(())
}

/// What is to be sent, what is under way, and what came of it.
struct Work {
    waiting: VecDeque<CommandRequest>,
    /// By correlation; sent again, under the same request id, where a stream breaks.
    unanswered: HashMap<u64, CommandRequest>,
    done: u64,
    refused: u64,
}

impl Work {
    fn new(count: u32) -> Self {
        let run = Ulid::generate();
        let command = |number: u64| CommandRequest {
            correlation: number,
            request_id: format!("stream-{run}-{number}"),
            command: Some(Command::ReceiveStock(ReceiveStockRequest {
                sku: format!("stream-{}", number % ITEMS),
                quantity: 1,
            })),
            ..CommandRequest::default()
        };
        Self {
            waiting: (0..u64::from(count)).map(command).collect(),
            unanswered: HashMap::new(),
            done: 0,
            refused: 0,
        }
    }

    /// Sends until everything is answered, or until the stream breaks.
    async fn over_one_stream(&mut self, node: &str) -> Result<(), Status> {
        let mut client = GatewayClient::connect(format!("http://{node}"))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (commands, stream) = mpsc::channel(IN_FLIGHT_MAX);
        let broken = || Status::unavailable("the stream broke");
        for request in self.unanswered.values() {
            commands.send(request.clone()).await.map_err(|_| broken())?;
        }
        let mut replies = client.commands(ReceiverStream::new(stream)).await?.into_inner();
        loop {
            while self.unanswered.len() < IN_FLIGHT_MAX
                && let Some(request) = self.waiting.pop_front()
            {
                self.unanswered.insert(request.correlation, request.clone());
                commands.send(request).await.map_err(|_| broken())?;
            }
            if self.unanswered.is_empty() {
                return Ok(());
            }
            let reply = replies.message().await?.ok_or_else(broken)?;
            self.take(reply).await;
        }
    }

    async fn take(&mut self, reply: CommandResponse) {
        let Some(request) = self.unanswered.remove(&reply.correlation) else {
            return;
        };
        match reply.result {
            Some(Outcome::Failure(failure)) if failure.retry_after_ms > 0 => {
                tokio::time::sleep(Duration::from_millis(failure.retry_after_ms.into())).await;
                self.waiting.push_back(request);
            }
            Some(Outcome::Failure(failure)) => {
                eprintln!("{}: {}", request.request_id, failure.message);
                self.refused += 1;
            }
            _ => self.done += 1,
        }
    }
}
