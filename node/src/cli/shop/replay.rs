//! Sends what was planned: set-up first, then every invoice, a customer's in order, different customers at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use proto::{
    catalog::v1::{PutProductRequest, ReceiveStockRequest, WriteOffStockRequest},
    common::v1::Money,
    order::v1::{GetOrderRequest, Order, OrderLine, OrderStatus, PlaceOrderRequest, ReturnItemsRequest, ReturnLine},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::Code;

use super::{
    plan::{Article, Invoice, Line, Plan, Work, WriteOff},
    settle::settle,
    tally::{Outcome, Tally},
};
use crate::cli::{
    client::{CallError, Client},
    failure::{Failure, refusal_text},
    order::status_name,
};

/// The file's currency.
const CURRENCY: &str = "GBP";
/// Between two looks at an order whose checkout outlasted its call.
const PENDING_POLL: Duration = Duration::from_millis(100);
/// How long a checkout may outlast its call.
const PENDING_TIMEOUT: Duration = Duration::from_mins(2);

/// One replay of one file.
pub(super) struct Replay {
    pub(super) client: Client,
    pub(super) file_hash: u64,
    pub(super) run: Option<String>,
    /// Invoices a second.
    pub(super) rate: Option<f64>,
    pub(super) concurrency: usize,
    pub(super) bar: ProgressBar,
}

/// What became of one invoice, and what its clients went through.
struct Finished {
    invoice: String,
    outcome: Outcome,
    /// For orders that were sent.
    order_took: Option<Duration>,
    longest_call: Duration,
}

impl Replay {
    /// Carries the whole plan out and reads what was charged.
    pub(super) async fn carry_out(self, plan: Plan, rows: usize) -> Result<Tally, Failure> {
        let mut tally = Tally::new(rows);
        self.set_up(&plan, &mut tally).await?;
        self.start_bar("invoices", plan.invoices.len());
        let started = Instant::now();
        let replay = Arc::new(self);
        replay.send_all(plan.invoices, &mut tally).await;
        tally.took(started.elapsed());
        replay.bar.set_message("payments");
        settle(&replay.client, &mut tally).await;
        Ok(tally)
    }

    /// Products and stock. Repeating it with the same file and run changes nothing.
    async fn set_up(&self, plan: &Plan, tally: &mut Tally) -> Result<(), Failure> {
        self.start_bar("products, stock", plan.articles.len());
        let calls = plan
            .articles
            .iter()
            .enumerate()
            .map(|(place, (sku, article))| self.set_up_one(place, sku, article));
        let mut calls = stream::iter(calls).buffer_unordered(self.concurrency);
        while let Some(result) = calls.next().await {
            match result {
                Ok(took) => tally.waited(took),
                // Its orders will be refused and counted; the others go on.
                Err((sku, CallError::Refused(status))) => {
                    eprintln!("{sku:?} cannot be set up: {}", refusal_text(&status));
                }
                Err((_, error)) => return Err(error.into()),
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    async fn set_up_one(&self, place: usize, sku: &str, article: &Article) -> Result<Duration, (String, CallError)> {
        let failed = |error| (sku.to_owned(), error);
        let product = PutProductRequest {
            sku: sku.to_owned(),
            name: article.name.clone(),
            price: Some(pounds(article.price_minor)),
        };
        let started = Instant::now();
        self.client
            .put_product(&self.request_id("product", place, 0), product)
            .await
            .map_err(failed)?;
        let between = Instant::now();
        let delivery = ReceiveStockRequest {
            sku: sku.to_owned(),
            quantity: article.quantity,
        };
        self.client
            .receive_stock(&self.request_id("stock", place, 0), delivery)
            .await
            .map_err(failed)?;
        Ok((between - started).max(between.elapsed()))
    }

    /// Every invoice, at the asked rate and concurrency.
    async fn send_all(self: &Arc<Self>, invoices: Vec<Invoice>, tally: &mut Tally) {
        let started = Instant::now();
        let free = Arc::new(Semaphore::new(self.concurrency));
        // When a customer's latest invoice has ended, its next may begin.
        let mut latest: HashMap<String, oneshot::Receiver<()>> = HashMap::new();
        let mut running = JoinSet::new();
        for (place, invoice) in invoices.into_iter().enumerate() {
            if let Some(rate) = self.rate {
                sleep_until(started + Duration::from_secs_f64(place as f64 / rate)).await;
            }
            let (ended, has_ended) = oneshot::channel::<()>();
            let before = if invoice.customer.is_empty() {
                None
            } else {
                latest.insert(invoice.customer.clone(), has_ended)
            };
            let (replay, free) = (Arc::clone(self), Arc::clone(&free));
            running.spawn(async move {
                if let Some(before) = before {
                    let _ = before.await; // Also ends when the sender is dropped.
                }
                let _permit = free.acquire().await;
                let finished = replay.send(place, invoice).await;
                drop(ended);
                finished
            });
            while let Some(finished) = running.try_join_next() {
                self.count(finished.expect("an invoice's task does not panic"), tally);
            }
        }
        while let Some(finished) = running.join_next().await {
            self.count(finished.expect("an invoice's task does not panic"), tally);
        }
    }

    fn count(&self, finished: Finished, tally: &mut Tally) {
        self.bar.inc(1);
        if let Some(took) = finished.order_took {
            tally.placed(took);
        }
        tally.waited(finished.longest_call);
        tally.count(finished.invoice, finished.outcome);
    }

    async fn send(&self, place: usize, invoice: Invoice) -> Finished {
        let started = Instant::now();
        let mut longest_call = Duration::ZERO;
        let mut order_took = None;
        let outcome = match invoice.work {
            Work::Refused(reason) => Outcome::Refused(reason),
            Work::Order { lines, total_minor } => {
                let outcome = self
                    .place(place, &invoice.number, &invoice.customer, &lines, total_minor)
                    .await;
                order_took = Some(started.elapsed());
                outcome
            }
            Work::Return(lines) => {
                let outcome = self.take_back(place, &invoice.number, &invoice.customer, lines).await;
                longest_call = started.elapsed();
                outcome
            }
            Work::WriteOff(rows) => self.write_off(place, rows, &mut longest_call).await,
        };
        Finished {
            invoice: invoice.number,
            outcome,
            order_took,
            longest_call,
        }
    }

    async fn place(&self, place: usize, number: &str, customer: &str, lines: &[Line], total_minor: i64) -> Outcome {
        let order_id = self.own(number);
        let lines = lines.iter().map(|line| OrderLine {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: Some(pounds(line.price_minor)),
        });
        let message = PlaceOrderRequest {
            order_id: order_id.clone(),
            customer_id: self.own(customer),
            lines: lines.collect(),
            currency: CURRENCY.to_owned(),
            ..Default::default()
        };
        let order = match self
            .client
            .place_order(&self.request_id("order", place, 0), message)
            .await
        {
            Ok(reply) => reply.order.unwrap_or_default(),
            Err(error) => return not_done(error),
        };
        let order = self.at_rest(&order_id, order).await;
        match order.status() {
            OrderStatus::Confirmed => Outcome::Confirmed { order_id, total_minor },
            OrderStatus::Refused | OrderStatus::Cancelled | OrderStatus::Cancelling if order.reason.is_empty() => {
                Outcome::Refused(status_name(order.status()).to_owned())
            }
            OrderStatus::Refused | OrderStatus::Cancelled | OrderStatus::Cancelling => Outcome::Refused(order.reason),
            OrderStatus::Pending | OrderStatus::Unspecified => Outcome::Unknown,
        }
    }

    /// The order once its checkout has ended, if the answer came before that.
    async fn at_rest(&self, order_id: &str, mut order: Order) -> Order {
        let deadline = Instant::now() + PENDING_TIMEOUT;
        while order.status() == OrderStatus::Pending && Instant::now() < deadline {
            sleep(PENDING_POLL).await;
            let request = GetOrderRequest {
                order_id: order_id.to_owned(),
            };
            if let Ok(read) = self.client.get_order(request).await {
                order = read;
            }
        }
        order
    }

    async fn take_back(
        &self,
        place: usize,
        number: &str,
        customer: &str,
        lines: impl IntoIterator<Item = (String, u32)>,
    ) -> Outcome {
        let message = ReturnItemsRequest {
            return_id: self.own(number),
            customer_id: self.own(customer),
            lines: lines
                .into_iter()
                .map(|(sku, quantity)| ReturnLine { sku, quantity })
                .collect(),
        };
        match self
            .client
            .return_items(&self.request_id("return", place, 0), message)
            .await
        {
            Ok(reply) => Outcome::Returned {
                refunded_minor: reply.refunded.map_or(0, |money| money.minor),
                order_ids: reply.order_ids,
            },
            Err(error) => not_done(error),
        }
    }

    async fn write_off(&self, place: usize, rows: Vec<WriteOff>, longest_call: &mut Duration) -> Outcome {
        for (index, row) in rows.into_iter().enumerate() {
            let message = WriteOffStockRequest {
                sku: row.sku,
                quantity: row.quantity,
                reason: row.reason,
            };
            let started = Instant::now();
            let result = self
                .client
                .write_off_stock(&self.request_id("write-off", place, index), message)
                .await;
            *longest_call = (*longest_call).max(started.elapsed());
            match result.map_err(not_done) {
                Ok(_) => {}
                Err(Outcome::Refused(reason)) if index > 0 => {
                    return Outcome::Refused(format!("partly written off: {reason}"));
                }
                Err(outcome) => return outcome,
            }
        }
        Outcome::WrittenOff
    }

    /// The same for the same file, run and place, whenever it is sent.
    fn request_id(&self, what: &str, place: usize, part: usize) -> String {
        let run = self.run.as_deref().unwrap_or_default();
        format!("shop-{:016x}-{run}-{what}-{place}-{part}", self.file_hash)
    }

    /// An id of the file in this run. A guest stays a guest.
    fn own(&self, id: &str) -> String {
        match &self.run {
            Some(run) if !id.is_empty() => format!("{run}-{id}"),
            _ => id.to_owned(),
        }
    }

    fn start_bar(&self, message: &'static str, length: usize) {
        self.bar.reset();
        self.bar.set_message(message);
        self.bar.set_length(length as u64);
    }
}

fn not_done(error: CallError) -> Outcome {
    match error {
        CallError::Refused(status) if status.code() == Code::Internal => Outcome::Unknown,
        CallError::Refused(status) => Outcome::Refused(refusal_text(&status)),
        // It may have taken effect in an attempt whose answer was lost.
        CallError::Unreachable { .. } | CallError::Unknown { .. } => Outcome::Unknown,
    }
}

fn pounds(minor: i64) -> Money {
    Money {
        minor,
        currency: CURRENCY.to_owned(),
    }
}

#[cfg(test)]
mod tests;
