//! Counts what became of every invoice, and reports it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::output::decimal;

/// Latencies are kept from one microsecond.
const LATENCY_US_MIN: u64 = 1;
/// Up to an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// What became of one invoice. Each counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The order stands.
    Confirmed { order_id: String, total_minor: i64 },
    /// Not carried out.
    Refused(String),
    /// Nobody said what became of it.
    Unknown,
    /// Goods were taken back.
    Returned {
        refunded_minor: i64,
        order_ids: Vec<String>,
    },
    /// Goods were written off.
    WrittenOff,
}

/// What became of all invoices.
#[derive(Debug)]
pub(super) struct Tally {
    rows: usize,
    invoices: usize,
    placed: usize,
    confirmed: Vec<(String, i64)>,
    refused: BTreeMap<String, usize>,
    refused_invoices: BTreeMap<String, String>,
    unknown_invoices: Vec<String>,
    returned: usize,
    returned_against: Vec<String>,
    returned_minor: i64,
    write_offs: usize,
    latency_us: Histogram<u64>,
    longest_call: Duration,
    captured_minor: i64,
    refunded_minor: i64,
    elapsed: Duration,
}

impl Tally {
    /// Nothing counted yet of a file with so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows,
            invoices: 0,
            placed: 0,
            confirmed: Vec::new(),
            refused: BTreeMap::new(),
            refused_invoices: BTreeMap::new(),
            unknown_invoices: Vec::new(),
            returned: 0,
            returned_against: Vec::new(),
            returned_minor: 0,
            write_offs: 0,
            latency_us: Histogram::new_with_bounds(LATENCY_US_MIN, LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("the bounds are constants in the right order"),
            longest_call: Duration::ZERO,
            captured_minor: 0,
            refunded_minor: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Counts an invoice.
    pub(super) fn count(&mut self, invoice: String, outcome: Outcome) {
        self.invoices += 1;
        match outcome {
            Outcome::Confirmed { order_id, total_minor } => self.confirmed.push((order_id, total_minor)),
            Outcome::Refused(reason) => {
                *self.refused.entry(reason_kind(&reason)).or_default() += 1;
                self.refused_invoices.insert(invoice, reason);
            }
            Outcome::Unknown => self.unknown_invoices.push(invoice),
            Outcome::Returned {
                refunded_minor,
                order_ids,
            } => {
                self.returned += 1;
                self.returned_minor += refunded_minor;
                self.returned_against.extend(order_ids);
            }
            Outcome::WrittenOff => self.write_offs += 1,
        }
    }

    /// An order was sent, and it took so long until its answer was definite.
    pub(super) fn placed(&mut self, took: Duration) {
        self.placed += 1;
        self.latency_us.saturating_record(took.as_micros() as u64);
        self.waited(took);
    }

    /// A client waited so long for one answer.
    pub(super) fn waited(&mut self, took: Duration) {
        self.longest_call = self.longest_call.max(took);
    }

    /// How long the replay took.
    pub(super) fn took(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// Confirmed orders and their totals by the file.
    pub(super) fn confirmed(&self) -> &[(String, i64)] {
        &self.confirmed
    }

    /// Orders that goods were returned against, and the sum that was acknowledged.
    pub(super) fn returned(&self) -> (&[String], i64) {
        (&self.returned_against, self.returned_minor)
    }

    /// What the payments say.
    pub(super) fn settled(&mut self, captured_minor: i64, refunded_minor: i64) {
        self.captured_minor = captured_minor;
        self.refunded_minor = refunded_minor;
    }

    /// What the file says about the confirmed invoices.
    fn file_minor(&self) -> i64 {
        self.confirmed.iter().map(|(_, total)| total).sum()
    }

    /// Whether nothing is unknown and the money is right to the penny.
    pub(super) fn is_settled(&self) -> bool {
        self.unknown_invoices.is_empty()
            && self.captured_minor == self.file_minor()
            && self.refunded_minor == self.returned_minor
    }

    fn percentile_ms(&self, quantile: f64) -> f64 {
        let us = self.latency_us.value_at_quantile(quantile);
        (us as f64 / 10.0).round() / 100.0
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "rows": self.rows,
            "invoices": self.invoices,
            "orders": {
                "placed": self.placed, "confirmed": self.confirmed.len(), "refused": self.refused,
                "unknown": self.unknown_invoices.len(),
            },
            "refused_invoices": self.refused_invoices,
            "unknown_invoices": self.unknown_invoices,
            "returned": self.returned,
            "write_offs": self.write_offs,
            "captured_minor": self.captured_minor,
            "refunded_minor": self.refunded_minor,
            "file_minor": self.file_minor(),
            "captured_matches_file": self.captured_minor == self.file_minor(),
            "returned_minor": self.returned_minor,
            "latency_ms": {
                "p50": self.percentile_ms(0.5), "p95": self.percentile_ms(0.95), "p99": self.percentile_ms(0.99),
            },
            "longest_gap_ms": self.longest_call.as_millis() as u64,
            "elapsed_ms": self.elapsed.as_millis() as u64,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let refused: usize = self.refused.values().sum();
        let mut text = format!(
            "{} rows, {} invoices in {:.1} s\n  {} orders placed, {} confirmed\n  {refused} invoices refused\n",
            self.rows,
            self.invoices,
            self.elapsed.as_secs_f64(),
            self.placed,
            self.confirmed.len()
        );
        for (reason, count) in &self.refused {
            let _ = writeln!(text, "    {count} × {reason}");
        }
        let _ = writeln!(
            text,
            "  {} returned, {} written off, {} unknown",
            self.returned,
            self.write_offs,
            self.unknown_invoices.len()
        );
        let verdict = if self.captured_minor == self.file_minor() {
            "as the file says, to the penny".to_owned()
        } else {
            format!("but the file says {}", decimal(self.file_minor()))
        };
        let _ = writeln!(
            text,
            "  captured {}, {verdict}; refunded {}",
            decimal(self.captured_minor),
            decimal(self.refunded_minor)
        );
        let _ = write!(
            text,
            "  latency of an order: p50 {} ms, p95 {} ms, p99 {} ms; longest wait of any client {} ms",
            self.percentile_ms(0.5),
            self.percentile_ms(0.95),
            self.percentile_ms(0.99),
            self.longest_call.as_millis()
        );
        text
    }
}

/// The reason without its particulars, which stand after the first colon.
fn reason_kind(reason: &str) -> String {
    reason.split(": ").next().unwrap_or(reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Tally {
        let mut tally = Tally::new(9);
        tally.placed(Duration::from_millis(10));
        tally.placed(Duration::from_millis(30));
        tally.waited(Duration::from_millis(700));
        tally.count(
            "1".to_owned(),
            Outcome::Confirmed {
                order_id: "1".to_owned(),
                total_minor: 765,
            },
        );
        tally.count("2".to_owned(), Outcome::Refused("out of stock: tea".to_owned()));
        tally.count("3".to_owned(), Outcome::Refused("out of stock: cup".to_owned()));
        tally.count(
            "C4".to_owned(),
            Outcome::Returned {
                refunded_minor: 255,
                order_ids: vec!["1".to_owned()],
            },
        );
        tally.count("5".to_owned(), Outcome::WrittenOff);
        tally.settled(765, 255);
        tally
    }

    #[test]
    fn scripts_find_the_agreed_shape() {
        let value = example().json();
        assert_eq!(value["rows"], 9);
        assert_eq!(value["invoices"], 5);
        assert_eq!(
            value["orders"],
            json!({"placed": 2, "confirmed": 1, "refused": {"out of stock": 2}, "unknown": 0})
        );
        assert_eq!(
            value["refused_invoices"],
            json!({"2": "out of stock: tea", "3": "out of stock: cup"})
        );
        assert_eq!(value["returned"], 1);
        assert_eq!(value["write_offs"], 1);
        assert_eq!(value["captured_minor"], 765);
        assert_eq!(value["refunded_minor"], 255);
        assert!(value["latency_ms"]["p50"].as_f64().expect("a number") >= 10.0);
        assert!(value["latency_ms"]["p99"].as_f64().expect("a number") >= 30.0);
        assert_eq!(value["longest_gap_ms"], 700);
    }

    #[test]
    fn a_penny_or_an_unknown_outcome_is_not_settled() {
        assert!(example().is_settled());
        let mut short = example();
        short.settled(764, 255);
        assert!(!short.is_settled());
        assert!(short.text().contains("but the file says 7.65"));
        let mut unknown = example();
        unknown.count("6".to_owned(), Outcome::Unknown);
        assert!(!unknown.is_settled());
    }
}
