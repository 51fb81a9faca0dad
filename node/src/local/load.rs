//! The demo's customers: a few products, stock that never runs dry, and orders at a steady rate, some of which the
//! payment provider declines. A client like any other.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use proto::{
    catalog::v1::{GetStockRequest, PutProductRequest, ReceiveStockRequest},
    common::v1::Money,
    order::v1::{OrderLine, OrderStatus, PlaceOrderRequest},
};
use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};
use ulid::Ulid;

use crate::cli::{CallError, Client};

/// What the demo sells: SKU, name, price in pence.
const PRODUCTS: [(&str, &str, i64); 5] = [
    ("demo-teapot", "Enamel teapot", 1_495),
    ("demo-cup", "Cup and saucer", 425),
    ("demo-lantern", "Glass lantern", 895),
    ("demo-bunting", "Paper bunting", 255),
    ("demo-clock", "Kitchen clock", 2_250),
];
/// Stock is topped up below this.
const ON_HAND_MIN: u64 = 10_000;
/// By so much.
const TOP_UP: u64 = 50_000;
/// How often stock is looked at.
const TOP_UP_INTERVAL: Duration = Duration::from_secs(2);
/// The demo's customers.
const CUSTOMERS: u32 = 40;
/// One order in so many is paid with a card that is declined.
const DECLINE_ONE_IN: u64 = 25;
/// Orders that may be under way; the load skips its turn over this.
const IN_FLIGHT_MAX: usize = 256;
/// How long one call may take, repetitions included.
const PATIENCE: Duration = Duration::from_secs(20);

/// What has become of the demo's orders.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    confirmed: Cell<u64>,
    refused: Cell<u64>,
    unknown: Cell<u64>,
}

impl Tally {
    /// In one line for people.
    pub(crate) fn text(&self) -> String {
        format!(
            "demo load: {} orders confirmed, {} refused, {} without a definite answer",
            self.confirmed.get(),
            self.refused.get(),
            self.unknown.get()
        )
    }
}

/// Puts load on the cluster until it is dropped.
pub(crate) async fn run(addresses: &[SocketAddr], orders_per_s: f64, tally: Rc<Tally>) {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let Ok(client) = Client::new(&addresses, PATIENCE) else {
        return;
    };
    let run = Ulid::generate().to_string();
    set_up(&client, &run).await;
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            tokio::join!(top_up(&client, &run), place_orders(&client, &run, orders_per_s, &tally));
        })
        .await;
}

async fn set_up(client: &Client, run: &str) {
    for (sku, name, minor) in PRODUCTS {
        let message = PutProductRequest {
            sku: sku.to_owned(),
            name: name.to_owned(),
            price: Some(pounds(minor)),
        };
        // Without it the orders are refused, which the tally shows.
        let _ = client.put_product(&format!("demo-{run}-product-{sku}"), message).await;
    }
    receive_what_is_short(client, run, 0).await;
}

async fn top_up(client: &Client, run: &str) {
    let mut ticks = interval(TOP_UP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1.. {
        ticks.tick().await;
        receive_what_is_short(client, run, round).await;
    }
}

async fn receive_what_is_short(client: &Client, run: &str, round: u64) {
    for (sku, ..) in PRODUCTS {
        let sku = sku.to_owned();
        let on_hand = match client.get_stock(GetStockRequest { sku: sku.clone() }).await {
            Ok(item) => item.on_hand,
            // A product that never had stock may be unknown.
            Err(error) if error.code() == Some(tonic::Code::NotFound) => 0,
            Err(_) => continue,
        };
        if on_hand < ON_HAND_MIN {
            let id = format!("demo-{run}-stock-{sku}-{round}");
            let _ = client
                .receive_stock(&id, ReceiveStockRequest { sku, quantity: TOP_UP })
                .await;
        }
    }
}

async fn place_orders(client: &Client, run: &str, orders_per_s: f64, tally: &Rc<Tally>) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / orders_per_s));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let free = Rc::new(Semaphore::new(IN_FLIGHT_MAX));
    for number in 1_u64.. {
        ticks.tick().await;
        if free.available_permits() == 0 {
            continue;
        }
        let (client, free, tally) = (client.clone(), Rc::clone(&free), Rc::clone(tally));
        let request_id = format!("demo-{run}-order-{number}");
        tokio::task::spawn_local(async move {
            let Ok(_permit) = free.acquire().await else {
                return;
            };
            let reply = client.place_order(&request_id, order(number)).await;
            let counter = match reply.map(|reply| reply.order.unwrap_or_default().status()) {
                Ok(OrderStatus::Confirmed) => &tally.confirmed,
                Ok(_) | Err(CallError::Refused(_)) => &tally.refused,
                Err(_) => &tally.unknown,
            };
            counter.set(counter.get() + 1);
        });
    }
}

/// An order of one to three products.
fn order(number: u64) -> PlaceOrderRequest {
    let first = rand::random_range(0..PRODUCTS.len());
    let lines = (0..rand::random_range(1..=3)).map(|k| OrderLine {
        sku: PRODUCTS[(first + k) % PRODUCTS.len()].0.to_owned(),
        quantity: rand::random_range(1..=4),
        unit_price: None,
    });
    PlaceOrderRequest {
        customer_id: format!("demo-{}", rand::random_range(1..=CUSTOMERS)),
        lines: lines.collect(),
        card: if number.is_multiple_of(DECLINE_ONE_IN) {
            CARD_DECLINED.to_owned()
        } else {
            String::new()
        },
        ..Default::default()
    }
}

/// A test card that the provider declines.
const CARD_DECLINED: &str = "4000000000000002";

fn pounds(minor: i64) -> Money {
    Money {
        minor,
        currency: "GBP".to_owned(),
    }
}
