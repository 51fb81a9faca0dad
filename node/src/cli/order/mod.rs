//! `playhouse order`: place, show, watch, cancel and return.

mod line;
mod view;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::order::v1::{
    CancelOrderRequest, GetOrderRequest, OrderStatus, PlaceOrderRequest, ReturnItemsRequest, ReturnLine,
};
use serde_json::{Value, json};

use self::line::Line;
pub(crate) use self::view::status_name;
use super::{
    client::{CallError, ReadArguments, Target},
    failure::{EXIT_NO, EXIT_UNREACHABLE, Failure},
    output::{amount, print_json, print_text},
};

/// Place, show, watch, cancel and return orders.
#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Place an order and wait until it is confirmed or refused.
    Place(Place),
    /// Show an order.
    Show(Show),
    /// Show each event of an order as it happens, until the order is at rest.
    Watch(Show),
    /// Cancel an order; a confirmed one is refunded and restocked.
    Cancel(Cancel),
    /// Take goods back from a customer, against the latest confirmed orders that hold them.
    Return(Return),
}

/// The idempotency key of a command.
#[derive(Debug, Clone, Args)]
pub(crate) struct RequestId {
    /// Repeat a command with the same id and it takes effect once; a new one is made up otherwise.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl RequestId {
    /// The one given, or a new one.
    pub(crate) fn get(&self) -> String {
        self.request_id
            .clone()
            .unwrap_or_else(|| format!("cli-{}", ulid::Ulid::generate()))
    }
}

/// Place an order and wait until it is confirmed or refused.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Who orders; a guest without it.
    #[arg(long, default_value = "")]
    customer: String,
    /// What and how many, and a price if one was agreed: SKU:QTY or SKU:QTY@PRICE.
    #[arg(long = "line", value_name = "SKU:QTY", required = true)]
    lines: Vec<Line>,
    /// The order's id; the platform makes one up otherwise.
    #[arg(long, value_name = "ID", default_value = "")]
    id: String,
    /// The card to charge; the provider says which test cards it declines.
    #[arg(long, default_value = "")]
    card: String,
    /// ISO 4217.
    #[arg(long, default_value = "GBP")]
    currency: String,
    /// Answer as soon as the order is durably placed.
    #[arg(long)]
    no_wait: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

/// Which order.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The order's id.
    id: String,
    /// JSON, one line for each answer.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    target: Target,
}

/// Cancel an order; a confirmed one is refunded and restocked.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The order's id.
    id: String,
    /// Why.
    #[arg(long, default_value = "cancelled by hand")]
    reason: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

/// Take goods back from a customer, against the latest confirmed orders that hold them.
#[derive(Debug, Args)]
pub(crate) struct Return {
    /// Who brings them back.
    #[arg(long)]
    customer: String,
    /// What and how many: SKU:QTY.
    #[arg(long = "line", value_name = "SKU:QTY", required = true)]
    lines: Vec<Line>,
    /// The return's id; the platform makes one up otherwise.
    #[arg(long, value_name = "ID", default_value = "")]
    id: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

impl Order {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Place(place) => place.run().await,
            Self::Show(show) => show.run().await,
            Self::Watch(show) => watch::run(&show.id, show.json, &show.target).await,
            Self::Cancel(cancel) => cancel.run().await,
            Self::Return(goods) => goods.run().await,
        }
    }
}

impl Place {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request_id = self.request.get();
        let message = PlaceOrderRequest {
            order_id: self.id.clone(),
            customer_id: self.customer,
            lines: self
                .lines
                .iter()
                .map(|line| line.to_order_line(&self.currency))
                .collect(),
            card: self.card,
            currency: self.currency,
            no_wait: self.no_wait,
        };
        let reply = match client.place_order(&request_id, message).await {
            Ok(reply) => reply,
            Err(CallError::Unknown { after, .. }) => {
                if self.json {
                    let order_id = if self.id.is_empty() {
                        Value::Null
                    } else {
                        Value::String(self.id)
                    };
                    print_json(&json!({
                        "order_id": order_id, "status": "unknown", "total_minor": null, "trace_id": "",
                        "request_id": request_id,
                    }));
                }
                eprintln!(
                    "error: no definite answer within {:.1} s: the outcome is unknown",
                    after.as_secs_f64()
                );
                eprintln!("  help: it is safe to repeat the command with `--request-id {request_id}`");
                return Ok(ExitCode::from(EXIT_UNREACHABLE));
            }
            Err(error) => return Err(error.into()),
        };
        let order = reply.order.unwrap_or_default();
        if self.json {
            let mut value = view::order_json(&order);
            value["trace_id"] = Value::String(reply.trace_id);
            value["request_id"] = Value::String(request_id);
            print_json(&value);
        } else {
            let trace = format!("trace: playhouse trace show {}{}", reply.trace_id, self.target.words());
            print_text(&format!("{}\n\n{trace}", view::order_text(&order)));
        }
        let accepted = self.no_wait || order.status() == OrderStatus::Confirmed;
        Ok(if accepted {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_NO)
        })
    }
}

impl Show {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?.reading(self.read);
        let order = client.get_order(GetOrderRequest { order_id: self.id }).await?;
        view::print_order(&order, self.json);
        Ok(ExitCode::SUCCESS)
    }
}

impl Cancel {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let message = CancelOrderRequest {
            order_id: self.id,
            reason: self.reason,
        };
        let order = client.cancel_order(&self.request.get(), message).await?;
        view::print_order(&order, self.json);
        Ok(ExitCode::SUCCESS)
    }
}

impl Return {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let lines = self.lines.iter().map(|line| ReturnLine {
            sku: line.sku.clone(),
            quantity: line.quantity,
        });
        let message = ReturnItemsRequest {
            return_id: self.id,
            customer_id: self.customer,
            lines: lines.collect(),
        };
        let reply = client.return_items(&self.request.get(), message).await?;
        let refunded = reply.refunded.as_ref();
        if self.json {
            print_json(&json!({
                "return_id": reply.return_id, "refunded_minor": refunded.map_or(0, |m| m.minor),
                "currency": refunded.map_or("", |m| &m.currency), "order_ids": reply.order_ids,
            }));
        } else {
            let orders = reply.order_ids.join(", ");
            print_text(&format!(
                "return {}: refunded {} against {orders}",
                reply.return_id,
                amount(refunded)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
