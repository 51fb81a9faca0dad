//! `playhouse product`: what is sold, and at what price.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::{
    catalog::v1::{GetProductRequest, Product as ProductView, PutProductRequest},
    common::v1::Money,
};
use serde_json::json;

use super::{
    client::{ReadArguments, Target},
    failure::Failure,
    order::RequestId,
    output::{amount, print_json, print_text},
    price::parse_price_argument,
};

/// Put and show products.
#[derive(Debug, Subcommand)]
pub(crate) enum Product {
    /// Create a product, or change its name and price.
    Put(Put),
    /// Show a product.
    Show(Show),
}

/// Create a product, or change its name and price.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The stock keeping unit.
    sku: String,
    /// What people call it.
    #[arg(long)]
    name: String,
    /// The price of one, for example 2.55.
    #[arg(long, value_parser = parse_price_argument, allow_hyphen_values = true)]
    price: i64,
    /// ISO 4217.
    #[arg(long, default_value = "GBP")]
    currency: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

/// Show a product.
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

impl Product {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (product, as_json) = match self {
            Self::Put(put) => {
                let client = put.target.connect().await?;
                let message = PutProductRequest {
                    sku: put.sku,
                    name: put.name,
                    price: Some(Money {
                        minor: put.price,
                        currency: put.currency,
                    }),
                };
                (client.put_product(&put.request.get(), message).await?, put.json)
            }
            Self::Show(show) => {
                let client = show.target.connect().await?.reading(show.read);
                (
                    client.get_product(GetProductRequest { sku: show.sku }).await?,
                    show.json,
                )
            }
        };
        print_product(&product, as_json);
        Ok(ExitCode::SUCCESS)
    }
}

fn print_product(product: &ProductView, as_json: bool) {
    if as_json {
        let price = product.price.clone().unwrap_or_default();
        print_json(&json!({
            "sku": product.sku, "name": product.name, "price_minor": price.minor, "currency": price.currency,
            "version": product.version,
        }));
    } else {
        print_text(&format!(
            "{}  {}  {}  version {}",
            product.sku,
            product.name,
            amount(product.price.as_ref()),
            product.version
        ));
    }
}
