//! After the replay: what was really charged and given back, read from each order's payment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use proto::payment::v1::GetPaymentRequest;
use tokio::time::{Instant, sleep};

use super::tally::Tally;
use crate::cli::client::Client;

/// Money moves behind the confirmation; it must have arrived by then.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks.
const SETTLE_POLL: Duration = Duration::from_millis(100);
/// Payments read at once.
const READS_IN_FLIGHT_MAX: usize = 64;

/// Reads the payments until they hold what was promised, or time is up; then the tally has what they say.
pub(super) async fn settle(client: &Client, tally: &mut Tally) {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let totals: BTreeMap<String, i64> = tally.confirmed().iter().cloned().collect();
    let (against, acknowledged_minor) = tally.returned();
    let mut books = Books::default();
    let mut open: BTreeSet<String> = totals.keys().chain(against).cloned().collect();
    loop {
        books.read(client, &open).await;
        let refunds_open = books.refunded(against) < acknowledged_minor;
        open.retain(|id| {
            let short = totals.get(id).is_some_and(|total| books.captured(id) < *total);
            short || (refunds_open && against.contains(id))
        });
        if open.is_empty() || Instant::now() > deadline {
            break;
        }
        sleep(SETTLE_POLL).await;
    }
    let captured = totals.keys().map(|id| books.captured(id)).sum();
    let refunded = books.refunded(against);
    tally.settled(captured, refunded);
}

/// Captured and refunded by order.
#[derive(Default)]
struct Books(BTreeMap<String, (i64, i64)>);

impl Books {
    async fn read(&mut self, client: &Client, orders: &BTreeSet<String>) {
        let reads = orders.iter().map(|id| async move {
            let payment = client
                .get_payment(GetPaymentRequest { order_id: id.clone() })
                .await
                .ok()?;
            let minor = |money: Option<proto::common::v1::Money>| money.map_or(0, |m| m.minor);
            Some((id.clone(), (minor(payment.captured), minor(payment.refunded))))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS_IN_FLIGHT_MAX);
        while let Some(read) = reads.next().await {
            // A free order has no payment.
            self.0.extend(read);
        }
    }

    fn captured(&self, order: &str) -> i64 {
        self.0.get(order).map_or(0, |(captured, _)| *captured)
    }

    fn refunded(&self, orders: &[String]) -> i64 {
        let orders: BTreeSet<&String> = orders.iter().collect();
        orders
            .into_iter()
            .filter_map(|id| self.0.get(id))
            .map(|(_, refunded)| refunded)
            .sum()
    }
}
