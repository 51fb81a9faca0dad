//! How commands are sent: closed loops, each of which sends its next command when it has the answer to the last.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::channel::mpsc;
use hdrhistogram::Histogram;
use proto::{
    catalog::v1::{products_client::ProductsClient, stock_client::StockClient},
    gateway::v1::{
        CommandRequest, Failure, command_request::Command, command_response::Result as Outcome,
        gateway_client::GatewayClient,
    },
    order::v1::orders_client::OrdersClient,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tonic::{Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    process::{Processes, Usage},
    workload::Workload,
};

/// After a failure a client waits so long, or as it is told, as a real one would.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Failures are told apart by so many letters of their text.
const FAULT_LEN_MAX: usize = 100;
/// Latencies are kept to three digits,
const DIGITS: u8 = 3;
/// and up to here; what took longer counts as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Unary calls, or the gateway's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One call for each command.
    Unary,
    /// One stream on each connection, with an equal part of what is in flight.
    Streams,
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Measured from one moment to the other; what is under way then is waited for, but not counted.
    At { from: Instant, until: Instant },
    /// After so many commands.
    After(u64),
}

/// What the clients saw.
pub(crate) struct Tally {
    /// In microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// Why commands failed, and how often.
    pub(crate) faults: BTreeMap<String, u64>,
}

/// A histogram up to a value, which larger ones count as.
pub(crate) fn histogram(max: u64) -> Histogram<u64> {
    Histogram::new_with_max(max, DIGITS).expect("the limits are sensible")
}

impl Tally {
    fn new() -> Self {
        Self {
            latency_us: histogram(LATENCY_US_MAX),
            faults: BTreeMap::new(),
        }
    }

    fn fault(&mut self, fault: &str) {
        let short: String = fault.chars().take(FAULT_LEN_MAX).collect();
        *self.faults.entry(short).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.latency_us
            .add(&other.latency_us)
            .expect("both histograms reach equally far");
        for (fault, count) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
    }
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    workload: Workload,
    end: End,
    next: Arc<AtomicU64>,
    /// Request ids begin with it, so that no run repeats another's.
    run: u32,
    /// How long a unary call may take.
    timeout: Duration,
}

impl Load {
    pub(crate) fn new(workload: Workload, end: End) -> Self {
        Self {
            workload,
            end,
            next: Arc::default(),
            run: rand::random(),
            timeout: CALL_TIMEOUT,
        }
    }

    /// The same, with unary calls that are given up after so long.
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends it all; gives what the clients saw and what was used while it was measured.
    pub(crate) async fn send(
        self,
        way: Way,
        channels: &[Channel],
        in_flight: usize,
        processes: &Processes,
    ) -> (Tally, Usage) {
        let mut clients = JoinSet::new();
        match way {
            Way::Unary => {
                for client in 0..in_flight {
                    let channel = channels[client % channels.len()].clone();
                    clients.spawn(self.clone().unary(channel));
                }
            }
            Way::Streams => {
                let streams = channels.len().min(in_flight);
                for (stream, channel) in channels.iter().take(streams).enumerate() {
                    // The first streams carry what cannot be divided.
                    let window = in_flight / streams + usize::from(stream < in_flight % streams);
                    clients.spawn(self.clone().stream(channel.clone(), window));
                }
            }
        }
        let usage = match self.end {
            End::At { from, until } => {
                sleep_until(from).await;
                let before = processes.usage();
                sleep_until(until).await;
                processes.usage().since(&before)
            }
            End::After(_) => Usage::default(),
        };
        let mut tally = Tally::new();
        while let Some(ended) = clients.join_next().await {
            tally.add(&ended.expect("clients do not panic"));
        }
        (tally, usage)
    }

    /// The next command with its request id, unless the load has ended.
    fn next(&self) -> Option<(String, Command)> {
        if let End::At { until, .. } = self.end
            && Instant::now() >= until
        {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let End::After(count) = self.end
            && number >= count
        {
            return None;
        }
        Some((format!("{:08x}-{number}", self.run), self.workload.command(number)))
    }

    fn record(&self, tally: &mut Tally, begun: Instant, outcome: &Outcome) -> bool {
        if let Some(fault) = self.workload.fault(outcome) {
            tally.fault(&fault);
            return false;
        }
        let now = Instant::now();
        let is_counted = match self.end {
            End::At { from, until } => (from..until).contains(&now),
            End::After(_) => true,
        };
        if is_counted {
            tally.latency_us.saturating_record((now - begun).as_micros() as u64);
        }
        true
    }

    async fn unary(self, channel: Channel) -> Tally {
        let mut tally = Tally::new();
        while let Some((request_id, command)) = self.next() {
            let begun = Instant::now();
            let outcome = call_within(self.timeout, &channel, &request_id, None, command).await;
            if !self.record(&mut tally, begun, &outcome) {
                let told = match &outcome {
                    Outcome::Failure(failure) => Duration::from_millis(failure.retry_after_ms.into()),
                    _ => Duration::ZERO,
                };
                let pause = sleep(told.max(PAUSE_AFTER_FAILURE));
                // Whoever is told to come after the end does not come again.
                match self.end {
                    End::At { until, .. } => drop(timeout_at(until, pause).await),
                    End::After(_) => pause.await,
                }
            }
        }
        tally
    }

    async fn stream(self, channel: Channel, window: usize) -> Tally {
        let mut tally = Tally::new();
        let (sender, requests) = mpsc::unbounded();
        // By correlation: when the command under way in this place was sent.
        let mut begun = vec![Instant::now(); window];
        let mut under_way = 0_usize;
        let send = |place: usize, begun: &mut Vec<Instant>| {
            let Some((request_id, command)) = self.next() else {
                return 0;
            };
            begun[place] = Instant::now();
            let request = CommandRequest {
                correlation: place as u64,
                request_id,
                command: Some(command),
                ..CommandRequest::default()
            };
            // When the stream has broken, reading it says so.
            usize::from(sender.unbounded_send(request).is_ok())
        };
        for place in 0..window {
            under_way += send(place, &mut begun);
        }
        let mut client = GatewayClient::new(channel);
        let mut responses = match client.commands(requests).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => {
                tally.fault(&format!("the stream cannot be opened: {status}"));
                return tally;
            }
        };
        while under_way > 0 {
            match responses.message().await {
                Ok(Some(response)) => {
                    let place = response.correlation as usize;
                    let outcome = response.result.unwrap_or_else(empty_answer);
                    if !self.record(&mut tally, begun[place], &outcome) {
                        sleep(PAUSE_AFTER_FAILURE).await;
                    }
                    under_way -= 1;
                    under_way += send(place, &mut begun);
                }
                Ok(None) => {
                    tally.fault("the stream ended early");
                    break;
                }
                Err(status) => {
                    tally.fault(&format!("the stream broke: {status}"));
                    break;
                }
            }
        }
        tally
    }
}

/// One unary call. `traceparent` says which trace it belongs to.
pub(crate) async fn call(channel: &Channel, request_id: &str, traceparent: Option<&str>, command: Command) -> Outcome {
    call_within(CALL_TIMEOUT, channel, request_id, traceparent, command).await
}

async fn call_within(
    timeout: Duration,
    channel: &Channel,
    request_id: &str,
    traceparent: Option<&str>,
    command: Command,
) -> Outcome {
    let request = Metadata {
        timeout,
        request_id,
        traceparent,
    };
    let channel = channel.clone();
    let answer = match command {
        Command::ReceiveStock(message) => StockClient::new(channel)
            .receive_stock(request.with(message))
            .await
            .map(|answer| Outcome::StockItem(answer.into_inner())),
        Command::PutProduct(message) => ProductsClient::new(channel)
            .put_product(request.with(message))
            .await
            .map(|answer| Outcome::Product(answer.into_inner())),
        Command::PlaceOrder(message) => OrdersClient::new(channel)
            .place_order(request.with(message))
            .await
            .map(|answer| Outcome::PlaceOrder(answer.into_inner())),
        Command::GetOrder(message) => OrdersClient::new(channel)
            .get_order(request.with(message))
            .await
            .map(|answer| Outcome::Order(answer.into_inner())),
        other => Err(Status::unimplemented(format!("no workload sends {other:?}"))),
    };
    answer.unwrap_or_else(|status| {
        Outcome::Failure(Failure {
            code: status.code() as i32,
            message: status.message().to_owned(),
            retry_after_ms: (status.get_details_retry_info())
                .and_then(|info| info.retry_delay)
                .map_or(0, |delay| delay.as_millis() as u32),
        })
    })
}

/// What goes with a call.
struct Metadata<'a> {
    timeout: Duration,
    request_id: &'a str,
    traceparent: Option<&'a str>,
}

impl Metadata<'_> {
    fn with<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let headers = [
            ("x-request-id", Some(self.request_id)),
            ("traceparent", self.traceparent),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                let value = value.parse().expect("our own ids are plain ASCII");
                request.metadata_mut().insert(name, value);
            }
        }
        request.set_timeout(self.timeout);
        request
    }
}

fn empty_answer() -> Outcome {
    Outcome::Failure(Failure {
        code: tonic::Code::Internal as i32,
        message: "an answer without content".to_owned(),
        retry_after_ms: 0,
    })
}
