//! A made-up file of invoices of any length, with what must come of it.

use std::fmt::Write as _;

/// Different products.
const PRODUCTS: usize = 40;
/// Different customers.
const CUSTOMERS: usize = 25;

/// A file of invoices.
#[derive(Debug)]
pub struct Invoices {
    /// The file's content.
    pub csv: String,
    /// How many orders it holds.
    pub orders: u64,
    /// What they cost together.
    pub total_minor: i64,
}

/// So many orders of one to four lines, always the same ones.
pub fn invoices(count: usize) -> Invoices {
    let mut csv = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n".to_owned();
    let mut total_minor = 0;
    for number in 0..count {
        for line in 0..=number % 4 {
            let product = (number * 7 + line * 11) % PRODUCTS;
            let quantity = 1 + (number + line) % 5;
            let price_minor = 99 + product * 13;
            let (pounds, pence) = (price_minor / 100, price_minor % 100);
            let customer = number % CUSTOMERS;
            writeln!(
                csv,
                "{number},P{product},Thing {product},{quantity},2024-01-08,{pounds}.{pence:02},{customer}.0,X"
            )
            .expect("text can be written to a string");
            total_minor += (quantity * price_minor) as i64;
        }
    }
    Invoices {
        csv,
        orders: count as u64,
        total_minor,
    }
}
