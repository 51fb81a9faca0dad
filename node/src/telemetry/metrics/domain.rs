//! What the shop does: orders, sagas, stock, payments. Counted from the events themselves, each shown by one node and once
//! ([`cluster::metrics::Meter::saw`]), so that a repetition, a failover or a restart counts nothing twice.
//!
//! What an event does not say itself (when an order was placed that is confirmed now, how much a payment takes) is remembered for
//! a while; where this node did not see the beginning, it is read from the entity.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actors::{
    Money,
    checkout::Checkout,
    order::{self, Order},
    payment::{self, Payment},
    returns::Return,
    stock::{self, StockItem},
};
use cluster::{
    Cluster, Consistency, Entity, ProjectedEvent, ReadOptions, Request, RequestId,
    saga::{self, Saga},
};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use ulid::Ulid;

/// Orders and payments under way whose beginning is remembered.
const REMEMBERED_MAX: usize = 65_536;
/// Entities that wait for being read; what is over that is left out of durations and amounts.
const LOOKUPS_MAX: usize = 1_024;
/// How long such a read may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Currencies that are told apart; callers name them.
const CURRENCIES_MAX: usize = 32;
/// What all others count as.
const OTHER: &str = "other";
/// What sagas and orders take, in seconds.
const LONG_SECONDS: [f64; 16] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0,
];

/// How orders end,
const ORDER_OUTCOMES: [&str; 3] = ["confirmed", "refused", "cancelled"];
/// and sagas;
const SAGA_OUTCOMES: [&str; 2] = ["completed", "undone"];
/// what is done with stock,
const STOCK_OPERATIONS: [&str; 6] = ["received", "reserved", "released", "sold", "restocked", "written_off"];
/// and what happens to payments.
const PAYMENT_OUTCOMES: [&str; 9] = [
    "authorised",
    "declined",
    "unavailable",
    "captured",
    "capture_failed",
    "voided",
    "void_failed",
    "refunded",
    "refund_failed",
];

/// Counts what the shop does.
pub(super) struct Domain {
    placed: Counter<u64>,
    ended: Counter<u64>,
    value: Counter<u64>,
    order_duration: Histogram<f64>,
    sagas_started: Counter<u64>,
    sagas_ended: Counter<u64>,
    saga_failures: Counter<u64>,
    saga_duration: Histogram<f64>,
    stock_operations: Counter<u64>,
    stock_pieces: Counter<u64>,
    payments: Counter<u64>,
    amounts: Counter<u64>,
    payment_amounts: Histogram<f64>,
    currencies: Mutex<Vec<String>>,
    placed_ms: Mutex<Remembered<u64>>,
    asked: Mutex<Remembered<Money>>,
    lookups: mpsc::Sender<Lookup>,
    /// Until they are begun.
    queue: Mutex<Option<mpsc::Receiver<Lookup>>>,
    lookups_dropped: Counter<u64>,
    // For the short history.
    placed_count: AtomicU64,
    completed_count: AtomicU64,
    undone_count: AtomicU64,
}

/// For the short history, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DomainCounts {
    pub(super) orders_placed: u64,
    pub(super) sagas_completed: u64,
    pub(super) sagas_undone: u64,
}

/// What has to be read from an entity before it can be counted.
#[derive(Debug)]
enum Lookup {
    /// When the order was placed that ended so, at that time.
    Order {
        id: String,
        outcome: &'static str,
        at_ms: u64,
    },
    /// How much this payment takes.
    Payment { id: String },
}

/// The newest of many things, by id.
struct Remembered<T> {
    by_id: HashMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Remembered<T> {
    fn put(&mut self, id: &str, value: T) {
        if self.by_id.insert(id.to_owned(), value).is_none() {
            self.order.push_back(id.to_owned());
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// Its place in the order is left to run out.
    fn take(&mut self, id: &str) -> Option<T> {
        self.by_id.remove(id)
    }
}

fn between(from_ms: u64, to_ms: u64) -> f64 {
    Duration::from_millis(to_ms.saturating_sub(from_ms)).as_secs_f64()
}

/// In whole units of the currency, for a distribution: what is exact is counted in smallest units.
fn units(money: &Money) -> f64 {
    money.minor as f64 / 10_f64.powi(money.currency.digits() as i32)
}

impl Domain {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
        let durations = |name: &'static str, about: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(about);
            histogram.with_boundaries(LONG_SECONDS.to_vec()).build()
        };
        let (lookups, queue) = mpsc::channel(LOOKUPS_MAX);
        let domain = Self {
            placed: counter("playhouse.orders.placed", "Orders that were placed."),
            ended: counter(
                "playhouse.orders.ended",
                "Orders whose checkout ended (confirmed, refused), and orders that were cancelled.",
            ),
            value: counter(
                "playhouse.orders.value.minor",
                "What the placed orders cost together, in smallest units of the currency.",
            ),
            order_duration: durations(
                "playhouse.order.duration",
                "From placing an order until it was confirmed or refused.",
            ),
            sagas_started: counter("playhouse.sagas.started", "Sagas that were started, by kind."),
            sagas_ended: counter("playhouse.sagas.ended", "Sagas that ended, by kind and outcome."),
            saga_failures: counter(
                "playhouse.saga.step.failures",
                "Steps and undos that failed and are tried again.",
            ),
            saga_duration: durations("playhouse.saga.duration", "From the start of a saga to its end."),
            stock_operations: counter("playhouse.stock.operations", "What was done with stock."),
            stock_pieces: counter("playhouse.stock.operation.pieces", "Pieces that this was done with."),
            payments: counter("playhouse.payments", "What happened to payments."),
            amounts: counter(
                "playhouse.payments.amount.minor",
                "Money that was taken and given back, in smallest units of the currency.",
            ),
            payment_amounts: meter
                .f64_histogram("playhouse.payment.amount")
                .with_description("Amounts that were taken, in units of their currency.")
                .with_boundaries(vec![1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0])
                .build(),
            currencies: Mutex::default(),
            placed_ms: Mutex::default(),
            asked: Mutex::default(),
            lookups,
            queue: Mutex::new(Some(queue)),
            lookups_dropped: counter(
                "playhouse.telemetry.lookups.dropped",
                "Durations and amounts that were left out, because what they rest on could not be read.",
            ),
            placed_count: AtomicU64::new(0),
            completed_count: AtomicU64::new(0),
            undone_count: AtomicU64::new(0),
        };
        domain.begin();
        domain
    }

    /// Counters are there from the beginning: a rate needs the zero before the first.
    fn begin(&self) {
        self.placed.add(0, &[]);
        self.lookups_dropped.add(0, &[]);
        for outcome in ORDER_OUTCOMES {
            self.ended.add(0, &[KeyValue::new("outcome", outcome)]);
        }
        for kind in [Checkout::KIND, Return::KIND] {
            let kind = || KeyValue::new("kind", kind);
            self.sagas_started.add(0, &[kind()]);
            self.saga_failures.add(0, &[kind()]);
            for outcome in SAGA_OUTCOMES {
                self.sagas_ended.add(0, &[kind(), KeyValue::new("outcome", outcome)]);
            }
        }
        for operation in STOCK_OPERATIONS {
            let attributes = [KeyValue::new("operation", operation)];
            self.stock_operations.add(0, &attributes);
            self.stock_pieces.add(0, &attributes);
        }
        for outcome in PAYMENT_OUTCOMES {
            self.payments.add(0, &[KeyValue::new("outcome", outcome)]);
        }
    }

    pub(super) fn counts(&self) -> DomainCounts {
        DomainCounts {
            orders_placed: self.placed_count.load(Ordering::Relaxed),
            sagas_completed: self.completed_count.load(Ordering::Relaxed),
            sagas_undone: self.undone_count.load(Ordering::Relaxed),
        }
    }

    /// An event that is to be counted now.
    pub(super) fn saw(&self, event: &ProjectedEvent<'_>) {
        let (id, at_ms) = (event.id(), event.at_ms());
        if let Some(event) = event.of::<Order>() {
            self.saw_order(id, at_ms, &event);
        } else if let Some(event) = event.of::<Checkout>() {
            self.saw_saga::<Checkout>(&event);
        } else if let Some(event) = event.of::<Return>() {
            self.saw_saga::<Return>(&event);
        } else if let Some(event) = event.of::<StockItem>() {
            self.saw_stock(&event);
        } else if let Some(event) = event.of::<Payment>() {
            self.saw_payment(id, &event);
        }
    }

    pub(super) fn saw_order(&self, id: &str, at_ms: u64, event: &order::Event) {
        let outcome = match event {
            order::Event::Placed { total, .. } => {
                self.placed.add(1, &[]);
                self.placed_count.fetch_add(1, Ordering::Relaxed);
                self.value.add(minor(total), &[self.currency(total)]);
                return self.placed_ms.lock().put(id, at_ms);
            }
            order::Event::Confirmed => "confirmed",
            order::Event::Refused { .. } => "refused",
            order::Event::Cancelled => return self.ended.add(1, &[KeyValue::new("outcome", "cancelled")]),
            _ => return,
        };
        self.ended.add(1, &[KeyValue::new("outcome", outcome)]);
        let placed_ms = self.placed_ms.lock().take(id);
        match placed_ms {
            Some(placed_ms) => self.order_took(outcome, between(placed_ms, at_ms)),
            None => self.look_up(Lookup::Order {
                id: id.to_owned(),
                outcome,
                at_ms,
            }),
        }
    }

    fn order_took(&self, outcome: &'static str, seconds: f64) {
        self.order_duration
            .record(seconds, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn saw_saga<S: Saga>(&self, event: &<S as Entity>::Event) {
        let kind = || KeyValue::new("kind", S::NAME);
        match event {
            saga::Event::Started { .. } => self.sagas_started.add(1, &[kind()]),
            saga::Event::Failed { .. } => self.saga_failures.add(1, &[kind()]),
            _ => {}
        }
        let (outcome, after_ms, count) = match event.next() {
            Some(saga::Next::Completed(after_ms)) => ("completed", after_ms, &self.completed_count),
            Some(saga::Next::Undone(after_ms)) => ("undone", after_ms, &self.undone_count),
            _ => return,
        };
        let attributes = [kind(), KeyValue::new("outcome", outcome)];
        count.fetch_add(1, Ordering::Relaxed);
        self.sagas_ended.add(1, &attributes);
        self.saga_duration.record(between(0, *after_ms), &attributes);
    }

    pub(super) fn saw_stock(&self, event: &stock::Event) {
        let (operation, pieces) = match event {
            stock::Event::Received { quantity } => ("received", *quantity),
            stock::Event::Reserved { quantity, .. } => ("reserved", *quantity),
            stock::Event::Released { quantity, .. } => ("released", *quantity),
            stock::Event::Committed { quantity, .. } => ("sold", *quantity),
            stock::Event::Restocked { quantity, .. } => ("restocked", *quantity),
            stock::Event::WrittenOff { quantity, .. } => ("written_off", *quantity),
            stock::Event::HeldForItsTime { .. } => return,
        };
        let attributes = [KeyValue::new("operation", operation)];
        self.stock_operations.add(1, &attributes);
        self.stock_pieces.add(pieces, &attributes);
    }

    pub(super) fn saw_payment(&self, id: &str, event: &payment::Event) {
        let outcome = match event {
            payment::Event::AuthorisationRequested { amount } => {
                self.asked.lock().put(id, *amount);
                return;
            }
            payment::Event::Authorised { .. } => "authorised",
            payment::Event::Declined { .. } => "declined",
            payment::Event::AuthorisationGivenUp { .. } => "unavailable",
            payment::Event::Captured => {
                let asked = self.asked.lock().take(id);
                match asked {
                    Some(amount) => self.took(&amount),
                    None => self.look_up(Lookup::Payment { id: id.to_owned() }),
                }
                "captured"
            }
            payment::Event::CaptureFailed { .. } => "capture_failed",
            payment::Event::Voided => "voided",
            payment::Event::VoidFailed { .. } => "void_failed",
            payment::Event::Refunded { amount, .. } => {
                let operation = KeyValue::new("operation", "refunded");
                self.amounts.add(minor(amount), &[operation, self.currency(amount)]);
                "refunded"
            }
            payment::Event::RefundFailed { .. } => "refund_failed",
            payment::Event::AuthorisedTooLate { .. }
            | payment::Event::CaptureRequested
            | payment::Event::VoidRequested
            | payment::Event::RefundRequested { .. } => return,
        };
        self.payments.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    fn took(&self, amount: &Money) {
        let currency = self.currency(amount);
        self.payment_amounts
            .record(units(amount), std::slice::from_ref(&currency));
        let operation = KeyValue::new("operation", "captured");
        self.amounts.add(minor(amount), &[operation, currency]);
    }

    /// The currency of an amount; callers name currencies, so that only so many are told apart.
    fn currency(&self, amount: &Money) -> KeyValue {
        let name = amount.currency.as_str();
        let mut known = self.currencies.lock();
        let is_known = known.iter().any(|known| known == name);
        if !is_known && known.len() < CURRENCIES_MAX {
            known.push(name.to_owned());
        } else if !is_known {
            return KeyValue::new("currency", OTHER);
        }
        KeyValue::new("currency", name.to_owned())
    }

    fn look_up(&self, lookup: Lookup) {
        if self.lookups.try_send(lookup).is_err() {
            self.lookups_dropped.add(1, &[]);
        }
    }
}

fn minor(money: &Money) -> u64 {
    u64::try_from(money.minor).unwrap_or_default()
}

/// Reads what has to be read, one after the other, for as long as the node runs.
pub(super) async fn keep_looking_up(recorder: std::sync::Weak<super::Recorder>, cluster: Cluster) {
    let Some(mut queue) = recorder
        .upgrade()
        .and_then(|recorder| recorder.domain().queue.lock().take())
    else {
        return;
    };
    while let Some(lookup) = queue.recv().await {
        let Some(recorder) = recorder.upgrade() else { return };
        let domain = recorder.domain();
        let found = match &lookup {
            Lookup::Order { id, outcome, at_ms } => {
                let placed_ms = placed_ms(&cluster, id).await;
                placed_ms.map(|placed_ms| domain.order_took(outcome, between(placed_ms, *at_ms)))
            }
            Lookup::Payment { id } => amount(&cluster, id).await.map(|amount| domain.took(&amount)),
        };
        if found.is_none() {
            tracing::debug!(?lookup, "left out of the metrics: it cannot be read");
            domain.lookups_dropped.add(1, &[]);
        }
    }
}

fn request() -> Request {
    let id = RequestId::new(&Ulid::generate().to_string()).expect("a ULID is 26 letters and digits");
    Request::new(id, LOOKUP_TIMEOUT)
}

/// What this replica has, which has seen the event in question.
fn options() -> ReadOptions {
    ReadOptions {
        consistency: Consistency::Stale(LOOKUP_TIMEOUT),
        ..ReadOptions::default()
    }
}

async fn placed_ms(cluster: &Cluster, id: &str) -> Option<u64> {
    let options = ReadOptions {
        events_after: Some(0),
        ..options()
    };
    let read = cluster.read::<Order>(id, options, &request()).await.ok()?;
    read.events.first().map(|placed| placed.at_ms)
}

async fn amount(cluster: &Cluster, id: &str) -> Option<Money> {
    let read = cluster.read::<Payment>(id, options(), &request()).await.ok()?;
    (read.version > 0).then_some(read.state.amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_remembered() {
        let mut remembered = Remembered::default();
        for n in 0..REMEMBERED_MAX + 2 {
            remembered.put(&n.to_string(), n);
        }
        assert_eq!((remembered.take("0"), remembered.take("1")), (None, None));
        assert_eq!(remembered.take("2"), Some(2));
        assert_eq!(remembered.take("2"), None, "it was taken");
        assert!(remembered.by_id.len() <= REMEMBERED_MAX && remembered.order.len() <= REMEMBERED_MAX);
    }
}
