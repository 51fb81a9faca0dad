//! `playhouse shop`: replays a file of invoices as the shop's customers, over gRPC like any client.
//!
//! | an invoice that | is |
//! | --- | --- |
//! | has positive quantities only | an order, one line a row, at the row's price; price 0 is a free line, no customer is a guest |
//! | begins with C and has negative quantities only | a return against that customer's latest confirmed orders |
//! | has negative quantities only, without C | a write-off, one a row |
//! | is anything else | refused with its reason, and counted |
//!
//! Stock is set up first: exactly what the file's orders and write-offs take. A customer's next invoice waits for the
//! one before; different customers go at the same time. Everything is sent under request ids made of the file's
//! content, `--run` and the invoice's place, so replaying a file again changes nothing and gives the same answers;
//! another `--run` makes it new business with order and customer ids of its own.
//!
//! `rows` reads the file, `plan` decides what each invoice is, `replay` sends, `settle` reads what was charged, `tally`
//! counts and reports.

mod plan;
mod replay;
mod rows;
mod settle;
mod tally;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::{plan::Plan, replay::Replay};
use super::{
    client::Target,
    failure::{EXIT_NO, Failure},
    output::{print_json, print_text},
};

/// Invoices that are under way at once.
const CONCURRENCY_DEFAULT: usize = 32;
/// The most that makes sense for one client.
const CONCURRENCY_MAX: usize = 4_096;

/// Replay a file of invoices as clients.
#[derive(Debug, Args)]
pub(crate) struct Shop {
    /// CSV with a header, plain or gzip: InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID.
    #[arg(long, value_name = "FILE")]
    orders: PathBuf,
    /// Invoices a second; as fast as the cluster answers without it.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Invoices under way at once.
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY_DEFAULT, value_parser = parse_concurrency)]
    concurrency: usize,
    /// A name for this run: its orders and customers get ids of their own. Without it, a file that was replayed before
    /// changes nothing.
    #[arg(long, value_name = "NAME", value_parser = parse_run)]
    run: Option<String>,
    /// How long a client repeats one call before its outcome counts as unknown.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Shop {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let file = rows::read(&self.orders)?;
        let plan = Plan::of(&file.rows);
        let client = self.target.connect_for(Duration::from_secs(self.patience)).await?;
        let bar = progress_bar();
        let replay = Replay {
            client,
            file_hash: file.hash,
            run: self.run,
            rate: self.rate,
            concurrency: self.concurrency,
            bar: bar.clone(),
        };
        let tally = replay.carry_out(plan, file.rows.len()).await;
        bar.finish_and_clear();
        let tally = tally?;
        if self.json {
            print_json(&tally.json());
        } else {
            print_text(&tally.text());
        }
        Ok(if tally.is_settled() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_NO)
        })
    }
}

fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:16} {bar:40} {pos}/{len} {per_sec} {eta}")
        .expect("the template is a constant and well formed");
    ProgressBar::new(0).with_style(style)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.01..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("the rate must be a number from 0.01 to 1000000".to_owned()),
    }
}

fn parse_concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=CONCURRENCY_MAX).contains(&count) => Ok(count),
        _ => Err(format!("the concurrency must be from 1 to {CONCURRENCY_MAX}")),
    }
}

fn parse_run(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=32).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 32 letters, digits, dots, dashes or underscores".to_owned())
    }
}
