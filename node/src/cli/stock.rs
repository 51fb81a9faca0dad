//! `playhouse stock`: how many of a product there are.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::catalog::v1::{GetStockRequest, ReceiveStockRequest, StockItem, WriteOffStockRequest};
use serde_json::json;

use super::{
    client::{ReadArguments, Target},
    failure::Failure,
    order::RequestId,
    output::{print_json, print_text, render, table},
};

/// Receive, show and write off stock.
#[derive(Debug, Subcommand)]
pub(crate) enum Stock {
    /// Take goods in.
    Receive(Receive),
    /// Take damaged or lost goods out of what is on hand.
    WriteOff(WriteOff),
    /// Show how many there are.
    Show(Show),
}

/// Take goods in.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// The stock keeping unit.
    sku: String,
    /// How many.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    quantity: u64,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

/// Take damaged or lost goods out of what is on hand.
#[derive(Debug, Args)]
pub(crate) struct WriteOff {
    /// The stock keeping unit.
    sku: String,
    /// How many.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    quantity: u64,
    /// Why.
    #[arg(long, default_value = "written off by hand")]
    reason: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

/// Show how many there are.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The stock keeping unit.
    sku: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    target: Target,
}

impl Stock {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (item, as_json, token) = match self {
            Self::Receive(receive) => {
                let client = receive.target.connect().await?;
                let message = ReceiveStockRequest {
                    sku: receive.sku,
                    quantity: receive.quantity,
                };
                (
                    client.receive_stock(&receive.request.get(), message).await?,
                    receive.json,
                    client.version_token(),
                )
            }
            Self::WriteOff(write_off) => {
                let client = write_off.target.connect().await?;
                let message = WriteOffStockRequest {
                    sku: write_off.sku,
                    quantity: write_off.quantity,
                    reason: write_off.reason,
                };
                (
                    client.write_off_stock(&write_off.request.get(), message).await?,
                    write_off.json,
                    client.version_token(),
                )
            }
            Self::Show(show) => {
                let client = show.target.connect().await?.reading(show.read);
                let item = client.get_stock(GetStockRequest { sku: show.sku }).await?;
                (item, show.json, client.version_token())
            }
        };
        print_stock(&item, as_json, token.as_deref());
        Ok(ExitCode::SUCCESS)
    }
}

fn print_stock(item: &StockItem, as_json: bool, token: Option<&str>) {
    if as_json {
        print_json(&json!({
            "sku": item.sku, "on_hand": item.on_hand, "reserved": item.reserved, "sold": item.sold,
            "written_off": item.written_off, "received": item.received, "version": item.version,
            "version_token": token,
        }));
        return;
    }
    let mut table = table(&["sku", ">on hand", ">reserved", ">sold", ">written off", ">received"]);
    let counts = [item.on_hand, item.reserved, item.sold, item.written_off, item.received];
    table.add_row(std::iter::once(item.sku.clone()).chain(counts.iter().map(u64::to_string)));
    print_text(&render(&table));
}
