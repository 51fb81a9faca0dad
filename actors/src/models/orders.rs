//! Lists of orders: of a customer, or by where they stand, in the order of their ids, page by page.

use cluster::{
    Entity as _, ProjectedEvent, Projection, Rows,
    projection::{key, last_part, prefix},
};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId},
    money::Money,
    order::{Event, Order, Status},
};

/// The most orders of one page.
pub const ORDERS_LEN_MAX: u32 = 500;
/// Orders of a page where the question does not say.
const ORDERS_LEN_USUAL: u32 = 50;

/// The projection `orders`.
#[derive(Debug)]
pub struct Orders;

/// What can be asked; without any condition, all orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Only those of this customer.
    #[serde(default)]
    pub customer: Option<CustomerId>,
    /// Only those that stand here.
    #[serde(default)]
    pub status: Option<Status>,
    /// Only those behind this one: the `next` of the page before.
    #[serde(default)]
    pub after: Option<OrderId>,
    /// So many, at most [`ORDERS_LEN_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A page of orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their ids.
    pub orders: Vec<Listed>,
    /// Where the next page begins; absent with the last one.
    pub next: Option<String>,
}

/// An order in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// What is known of it.
    #[serde(flatten)]
    pub order: Known,
}

/// What the list knows of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Who wants it; nobody for a guest.
    pub customer: Option<CustomerId>,
    /// Where it stands.
    pub status: Status,
    /// What it costs.
    pub total: Money,
    /// The number of its lines.
    pub lines: u64,
    /// When it was placed, in milliseconds since 1970.
    pub placed_ms: u64,
    /// When it came to where it stands.
    pub changed_ms: u64,
}

impl Query {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(ORDERS_LEN_USUAL) as usize
    }
}

/// Where an event leads; `None` where the order stays where it stands.
fn status_after(event: &Event) -> Option<Status> {
    match event {
        Event::Confirmed => Some(Status::Confirmed),
        Event::Refused { .. } => Some(Status::Refused),
        Event::CancelRequested { .. } | Event::GivingBack { .. } => Some(Status::Cancelling),
        Event::Cancelled => Some(Status::Cancelled),
        Event::Placed { .. }
        | Event::Settled
        | Event::SettledUnpaid { .. }
        | Event::GivenBack { .. }
        | Event::GiveBackFailed { .. }
        | Event::LinesReturned { .. }
        | Event::ReturnUndone { .. } => None,
    }
}

fn by_status(status: Status, id: &str) -> Vec<u8> {
    key(["status", &status.to_string(), id])
}

impl Projection for Orders {
    const NAME: &'static str = "orders";
    const VERSION: u32 = 1;
    const KINDS: &'static [&'static str] = &[Order::KIND];
    type Query = Query;
    type Partial = Vec<Listed>;
    type Answer = Page;

    fn check(query: &Query) -> Result<(), String> {
        if (1..=ORDERS_LEN_MAX as usize).contains(&query.limit()) {
            return Ok(());
        }
        Err(format!(
            "has the limit {}; it must be between 1 and {ORDERS_LEN_MAX}",
            query.limit()
        ))
    }

    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        let Some(of_order) = event.of::<Order>() else { return };
        let (id, at_ms) = (event.id(), event.at_ms());
        let order = key(["order", id]);
        if let Event::Placed { customer, lines, total } = of_order {
            if let Some(customer) = &customer {
                rows.put(key(["customer", customer, id]), &());
            }
            rows.put(by_status(Status::Pending, id), &());
            let known = Known {
                customer,
                status: Status::Pending,
                total,
                lines: lines.len() as u64,
                placed_ms: at_ms,
                changed_ms: at_ms,
            };
            return rows.put(order, &known);
        }
        if let (Some(status), Some(mut known)) = (status_after(&of_order), rows.get::<Known>(&order))
            && status != known.status
        {
            rows.remove(by_status(known.status, id));
            rows.put(by_status(status, id), &());
            (known.status, known.changed_ms) = (status, at_ms);
            rows.put(order, &known);
        }
    }

    fn query(rows: &Rows<'_>, query: &Query) -> Vec<Listed> {
        let from = match (&query.customer, query.status) {
            (Some(customer), _) => prefix(["customer", customer]),
            (None, Some(status)) => prefix(["status", &status.to_string()]),
            (None, None) => prefix(["order"]),
        };
        let after = query.after.as_ref().map(|after| [&from[..], after.as_bytes()].concat());
        let mut orders = Vec::new();
        let mut take = |id: &str, known: Option<Known>| {
            if let Some(order) = known.filter(|known| query.status.is_none_or(|status| known.status == status)) {
                let id = id.to_owned();
                orders.push(Listed { id, order });
            }
            // One more than is asked for says whether there is another page.
            orders.len() <= query.limit()
        };
        if query.customer.is_none() && query.status.is_none() {
            rows.scan(&from, after.as_deref(), |key, known: Known| {
                take(last_part(key), Some(known))
            });
        } else {
            rows.scan(&from, after.as_deref(), |at, (): ()| {
                let id = last_part(at);
                take(id, rows.get(key(["order", id])))
            });
        }
        orders
    }

    fn merge(parts: Vec<Vec<Listed>>, query: &Query) -> Page {
        let mut orders = parts.concat();
        orders.sort_by(|a, b| a.id.cmp(&b.id));
        let is_last = orders.len() <= query.limit();
        orders.truncate(query.limit());
        let next = orders.last().filter(|_| !is_last).map(|order| order.id.clone());
        Page { orders, next }
    }
}
