//! The clients of a trial: some for each shard, which write and read an item of it at a steady rate, and some that place orders. All of them note
//! what they asked, when, and what they were told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    rc::Rc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use proto::{
    catalog::v1::{GetStockRequest, ReceiveStockRequest, StockItem},
    cluster::v1::{ShowEntityRequest, StatusRequest},
    common::v1::Money,
    order::v1::{GetOrderRequest, OrderLine, OrderStatus, PlaceOrderRequest},
};
use serde_json::Value;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::history::{History, Item, Journal, Operation, PlacedOrder, Seen, Told, What};
use crate::cli::{
    client::{CallError, Client},
    failure::Failure,
};

/// Items that are written and read: one for each shard, at most so many.
const ITEMS_MAX: usize = 64;
/// Clients of each item. More than one, so that there is something to get in each other's way.
const CLIENTS_OF_ITEM: usize = 2;
/// Clients that place orders.
const ORDER_CLIENTS: usize = 4;
/// One order comes to so many writes and reads.
const ORDER_ONE_IN: f64 = 20.0;
/// Names that are tried, for each shard, until one of its items is found.
const NAMES_PER_SHARD_MAX: u32 = 12;
/// Calls under way while things are set up and looked through.
const CALLS_MAX: usize = 16;
/// Pieces of each item at the beginning; more than orders can want.
const STOCKED: u64 = 1_000_000;
/// How often a call that has no definite answer after healing is repeated.
const REPEATS_MAX: usize = 3;

/// What all clients share.
struct Shared {
    client: Client,
    run: String,
    begun: Instant,
    stopped: Cell<bool>,
    history: RefCell<History>,
}

/// The clients at work.
pub(super) struct Clients {
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Makes an item for each shard. `run` is in the names of everything that is made.
    pub(super) async fn set_up(client: Client, run: String) -> Result<Self, Failure> {
        let shards = client.status(StatusRequest {}).await?.shards.len();
        let wanted = shards.min(ITEMS_MAX);
        let names = (0..NAMES_PER_SHARD_MAX * shards as u32).map(|number| format!("chaos-{run}-{number}"));
        let mut made = Box::pin(stream::iter(names.map(|sku| make(&client, sku))).buffered(CALLS_MAX));
        let (mut items, mut covered) = (Vec::new(), BTreeSet::new());
        while items.len() < wanted
            && let Some(item) = made.next().await
        {
            let item = item?;
            if covered.insert(item.shard) {
                items.push(item);
            }
        }
        drop(made);
        let history = History {
            items,
            ..History::default()
        };
        let shared = Shared {
            client,
            run,
            begun: Instant::now(),
            stopped: Cell::new(false),
            history: RefCell::new(history),
        };
        Ok(Self {
            shared: Rc::new(shared),
            tasks: Vec::new(),
        })
    }

    /// Since when times are counted.
    pub(super) fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// Lets them work, with so many writes and reads a second together. To be called within a `LocalSet`.
    pub(super) fn start(&mut self, rate: f64) {
        let items = self.shared.history.borrow().items.len();
        let clients = items * CLIENTS_OF_ITEM;
        let period = Duration::from_secs_f64(clients as f64 / rate);
        for number in 0..clients {
            // Their turns are spread over the period.
            let first = Instant::now() + period.mul_f64(number as f64 / clients as f64);
            let client = Rc::clone(&self.shared).write_and_read(number, number % items, first, period);
            self.tasks.push(spawn_local(client));
        }
        let period = Duration::from_secs_f64(ORDER_CLIENTS as f64 * ORDER_ONE_IN / rate);
        for number in 0..ORDER_CLIENTS {
            let first = Instant::now() + period.mul_f64(number as f64 / ORDER_CLIENTS as f64);
            self.tasks
                .push(spawn_local(Rc::clone(&self.shared).place_orders(number, first, period)));
        }
    }

    /// Lets them end what they are at, and repeats what has no definite answer under its request id.
    pub(super) async fn stop(self) -> History {
        self.shared.stopped.set(true);
        for task in self.tasks {
            task.await.expect("a client of a trial does not panic");
        }
        self.shared.history.borrow_mut().worked_us = self.shared.now_us();
        self.shared.repeat_what_is_open().await;
        self.shared.history.take()
    }
}

async fn make(client: &Client, sku: String) -> Result<Item, Failure> {
    let stock = ReceiveStockRequest {
        sku: sku.clone(),
        quantity: STOCKED,
    };
    client.receive_stock(&format!("{sku}-first"), stock).await?;
    let key = format!("stock/{sku}");
    let shown = client.show_entity(ShowEntityRequest { key }).await?;
    Ok(Item {
        sku,
        shard: shown.shard,
        stocked: STOCKED,
    })
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    async fn write_and_read(self: Rc<Self>, client: usize, item: usize, first: Instant, period: Duration) {
        let sku = self.history.borrow().items[item].sku.clone();
        let mut turns = interval_at(first, period);
        // Who was held up goes on at its pace.
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0_u64.. {
            turns.tick().await;
            if self.stopped.get() {
                return;
            }
            let what = if number % 2 == client as u64 % 2 {
                What::Read
            } else {
                What::Write {
                    request: format!("chaos-{}-{client}-{number}", self.run),
                    quantity: 1 + number % 3,
                }
            };
            let start_us = self.now_us();
            let seen = self.ask(&sku, &what).await;
            let end_us = self.now_us();
            self.history.borrow_mut().operations.push(Operation {
                item,
                what,
                start_us,
                end_us,
                seen,
            });
        }
    }

    /// One call; nothing where its outcome is unknown or it was refused, which is noted.
    async fn ask(&self, sku: &str, what: &What) -> Option<Seen> {
        let answer = match what {
            What::Read => self.client.get_stock(GetStockRequest { sku: sku.to_owned() }).await,
            What::Write { request, quantity } => {
                let message = ReceiveStockRequest {
                    sku: sku.to_owned(),
                    quantity: *quantity,
                };
                self.client.receive_stock(request, message).await
            }
        };
        match answer {
            Ok(StockItem { version, received, .. }) => Some(Seen { version, received }),
            Err(CallError::Refused(status)) => {
                let who = match what {
                    What::Read => format!("a read of stock/{sku}"),
                    What::Write { request, .. } => request.clone(),
                };
                let reason = format!("was refused: {:?}: {}", status.code(), status.message());
                self.history.borrow_mut().refused.push((who, reason));
                None
            }
            Err(CallError::Unreachable { .. } | CallError::Unknown { .. }) => None,
        }
    }

    async fn place_orders(self: Rc<Self>, client: usize, first: Instant, period: Duration) {
        let mut turns = interval_at(first, period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0_usize.. {
            turns.tick().await;
            if self.stopped.get() {
                return;
            }
            let id = format!("chaos-{}-order-{client}-{number}", self.run);
            let lines = self.lines(client + number);
            let told = self.place(&id, lines).await;
            self.history.borrow_mut().orders.push(PlacedOrder { id, told });
        }
    }

    /// Two products, of two shards where there are two.
    fn lines(&self, number: usize) -> Vec<OrderLine> {
        let history = self.history.borrow();
        let items = &history.items;
        let mut chosen = BTreeSet::from([number % items.len(), (number * 7 + 3) % items.len()]);
        let lines = std::iter::from_fn(|| chosen.pop_first());
        lines
            .map(|item| OrderLine {
                sku: items[item].sku.clone(),
                quantity: 1 + number as u32 % 3,
                unit_price: Some(Money {
                    minor: 199,
                    currency: "GBP".to_owned(),
                }),
            })
            .collect()
    }

    async fn place(&self, id: &str, lines: Vec<OrderLine>) -> Option<Told> {
        let message = PlaceOrderRequest {
            order_id: id.to_owned(),
            customer_id: format!("chaos-{}", self.run),
            lines,
            ..PlaceOrderRequest::default()
        };
        match self.client.place_order(id, message).await {
            Ok(reply) => Some(told(reply.order.unwrap_or_default().status())),
            Err(CallError::Refused(status)) => {
                let reason = format!("was refused: {:?}: {}", status.code(), status.message());
                let who = format!("order/{id}");
                self.history.borrow_mut().refused.push((who, reason));
                None
            }
            Err(CallError::Unreachable { .. } | CallError::Unknown { .. }) => None,
        }
    }

    /// What took effect without an answer is answered as it was; the rest takes effect now.
    async fn repeat_what_is_open(&self) {
        let open: Vec<(usize, String, What)> = {
            let history = self.history.borrow();
            let refused: BTreeSet<&str> = history.refused.iter().map(|(request, _)| &**request).collect();
            let all = history.operations.iter().enumerate();
            all.filter(|(_, operation)| operation.seen.is_none())
                .filter(|(_, operation)| match &operation.what {
                    What::Write { request, .. } => !refused.contains(&**request),
                    What::Read => false,
                })
                .map(|(at, operation)| (at, history.items[operation.item].sku.clone(), operation.what.clone()))
                .collect()
        };
        self.history.borrow_mut().repeated = open.len();
        for (at, sku, what) in open {
            for _ in 0..REPEATS_MAX {
                let seen = self.ask(&sku, &what).await;
                if seen.is_some() {
                    let mut history = self.history.borrow_mut();
                    // It may have taken effect at any time until now. That it was waited for is known already.
                    let operation = &history.operations[at];
                    let answered = Operation {
                        end_us: self.now_us(),
                        seen,
                        ..operation.clone()
                    };
                    history.operations[at].what = What::Read;
                    history.operations.push(answered);
                    break;
                }
            }
        }
    }
}

fn told(status: OrderStatus) -> Told {
    match status {
        OrderStatus::Pending => Told::Pending,
        OrderStatus::Confirmed => Told::Confirmed,
        OrderStatus::Refused => Told::Refused,
        OrderStatus::Unspecified | OrderStatus::Cancelling | OrderStatus::Cancelled => Told::Other,
    }
}

/// What the cluster holds of the items in the end.
pub(super) async fn journals(client: &Client, items: &[Item]) -> Result<Vec<Journal>, Failure> {
    let reads = items.iter().map(|item| async move {
        let key = format!("stock/{}", item.sku);
        let shown = client.show_entity(ShowEntityRequest { key }).await?;
        let state: Value = serde_json::from_str(&shown.state_json)
            .map_err(|error| Failure::no(format!("the state of stock/{} is not understood: {error}", item.sku)))?;
        let events = shown.events.into_iter().map(|event| (event.version, event.request_id));
        Ok::<_, Failure>(Journal {
            events: events.collect(),
            received: state["received"].as_u64().unwrap_or_default(),
        })
    });
    let mut reads = Box::pin(stream::iter(reads).buffered(CALLS_MAX));
    let mut journals = Vec::new();
    while let Some(journal) = reads.next().await {
        journals.push(journal?);
    }
    Ok(journals)
}

/// How the orders stand; those that are not there are missing.
pub(super) async fn orders(client: &Client, placed: &[PlacedOrder]) -> Result<HashMap<String, Told>, Failure> {
    let reads = placed.iter().map(|order| async move {
        let request = GetOrderRequest {
            order_id: order.id.clone(),
        };
        match client.get_order(request).await {
            Ok(found) => Ok(Some((order.id.clone(), told(found.status())))),
            Err(error) if error.code() == Some(tonic::Code::NotFound) => Ok(None),
            Err(error) => Err(Failure::from(error)),
        }
    });
    let mut reads = Box::pin(stream::iter(reads).buffered(CALLS_MAX));
    let mut orders = HashMap::new();
    while let Some(order) = reads.next().await {
        orders.extend(order?);
    }
    Ok(orders)
}
