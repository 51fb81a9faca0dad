//! What each invoice of a file is: an order, a return, a write-off, or refused and why. Pure.

use std::collections::{BTreeMap, HashMap};

use super::rows::Row;
use crate::cli::price::PriceError;

/// The longest product name that is set up, in characters.
const NAME_CHARS_MAX: usize = 200;

/// A whole file.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of their first rows.
    pub(super) invoices: Vec<Invoice>,
    /// By SKU: what must be there before the first order.
    pub(super) articles: BTreeMap<String, Article>,
}

/// One invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invoice {
    /// As the file has it.
    pub(super) number: String,
    /// Empty for a guest.
    pub(super) customer: String,
    pub(super) work: Work,
}

/// What an invoice asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Goods are sold.
    Order {
        lines: Vec<Line>,
        /// The sum of quantity times price.
        total_minor: i64,
    },
    /// Goods come back.
    Return(BTreeMap<String, u32>),
    /// Goods are damaged or lost.
    WriteOff(Vec<WriteOff>),
    /// It cannot be carried out, for this reason.
    Refused(String),
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) sku: String,
    pub(super) quantity: u32,
    pub(super) price_minor: i64,
}

/// A row of a write-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteOff {
    pub(super) sku: String,
    pub(super) quantity: u64,
    pub(super) reason: String,
}

/// What is set up for one SKU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Article {
    pub(super) name: String,
    /// The highest price of the file; orders carry their own.
    pub(super) price_minor: i64,
    /// What orders and write-offs take.
    pub(super) quantity: u64,
}

impl Plan {
    /// Decides for all rows.
    pub(super) fn of(rows: &[Row]) -> Self {
        let invoices: Vec<Invoice> = grouped(rows)
            .into_iter()
            .map(|(number, rows)| invoice(number, &rows))
            .collect();
        let articles = articles(rows, &invoices);
        Self { invoices, articles }
    }
}

/// Rows by invoice, in the order of first appearance. A row without an invoice number stands for itself.
fn grouped(rows: &[Row]) -> Vec<(String, Vec<&Row>)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        if row.invoice.is_empty() {
            groups.push((format!("row {}", row.number), vec![row]));
            continue;
        }
        let place = *places.entry(&row.invoice).or_insert(groups.len());
        if place == groups.len() {
            groups.push((row.invoice.clone(), Vec::new()));
        }
        groups[place].1.push(row);
    }
    groups
}

fn invoice(number: String, rows: &[&Row]) -> Invoice {
    let work = work(&number, rows).unwrap_or_else(Work::Refused);
    Invoice {
        customer: rows[0].customer.clone(),
        number,
        work,
    }
}

fn work(number: &str, rows: &[&Row]) -> Result<Work, String> {
    if rows[0].invoice.is_empty() {
        return Err("no invoice number".to_owned());
    }
    if let Some((row, fault)) = rows.iter().find_map(|row| Some((row, row.fault.as_ref()?))) {
        return Err(format!("malformed row: row {} {fault}", row.number));
    }
    if rows.iter().any(|row| row.customer != rows[0].customer) {
        return Err("its rows name different customers".to_owned());
    }
    if rows.iter().any(|row| row.quantity == 0) {
        return Err("a quantity is 0".to_owned());
    }
    let is_cancellation = number.starts_with(['C', 'c']);
    let negative = rows.iter().filter(|row| row.quantity < 0).count();
    match (is_cancellation, negative == rows.len(), negative == 0) {
        (true, true, _) => goods_back(rows),
        (true, false, _) => Err("a cancellation has a positive quantity".to_owned()),
        (false, true, _) => Ok(Work::WriteOff(rows.iter().map(|row| write_off(row)).collect())),
        (false, _, true) => order(rows),
        (false, ..) => Err("mixes sold and written-off goods".to_owned()),
    }
}

fn order(rows: &[&Row]) -> Result<Work, String> {
    let mut lines = Vec::with_capacity(rows.len());
    let mut total_minor: i64 = 0;
    for row in rows {
        let price_minor = match row.price {
            Ok(minor) if minor < 0 => return Err("a price is negative".to_owned()),
            Ok(minor) => minor,
            Err(PriceError::FinerThanPenny) => return Err("a price is finer than a penny".to_owned()),
            Err(error) => return Err(format!("a price is {error}")),
        };
        let quantity = u32::try_from(row.quantity).map_err(|_| "a quantity is too large".to_owned())?;
        total_minor = price_minor
            .checked_mul(row.quantity)
            .and_then(|value| total_minor.checked_add(value))
            .ok_or("its total is too large")?;
        lines.push(Line {
            sku: row.sku.clone(),
            quantity,
            price_minor,
        });
    }
    Ok(Work::Order { lines, total_minor })
}

fn goods_back(rows: &[&Row]) -> Result<Work, String> {
    if rows[0].customer.is_empty() {
        return Err("guest return".to_owned());
    }
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for row in rows {
        let quantity = u32::try_from(row.quantity.unsigned_abs()).map_err(|_| "a quantity is too large".to_owned())?;
        let sum = lines.entry(row.sku.clone()).or_default();
        *sum = sum.checked_add(quantity).ok_or("a quantity is too large")?;
    }
    Ok(Work::Return(lines))
}

fn write_off(row: &Row) -> WriteOff {
    WriteOff {
        sku: row.sku.clone(),
        quantity: row.quantity.unsigned_abs(),
        reason: if row.description.is_empty() {
            "no reason given".to_owned()
        } else {
            row.description.clone()
        },
    }
}

/// What the orders and write-offs of the file take, and what it says about each of these SKUs.
fn articles(rows: &[Row], invoices: &[Invoice]) -> BTreeMap<String, Article> {
    let mut articles: BTreeMap<String, Article> = BTreeMap::new();
    let mut take = |sku: &str, quantity: u64| {
        let article = articles.entry(sku.to_owned()).or_default();
        article.quantity = article.quantity.saturating_add(quantity);
    };
    for invoice in invoices {
        match &invoice.work {
            Work::Order { lines, .. } => lines.iter().for_each(|line| take(&line.sku, u64::from(line.quantity))),
            Work::WriteOff(rows) => rows.iter().for_each(|row| take(&row.sku, row.quantity)),
            Work::Return(_) | Work::Refused(_) => {}
        }
    }
    for row in rows {
        let Some(article) = articles.get_mut(&row.sku) else {
            continue;
        };
        // The reasons of write-offs stand in the same column as names.
        if article.name.is_empty() && row.quantity > 0 {
            let name: String = row.description.chars().take(NAME_CHARS_MAX).collect();
            name.trim().clone_into(&mut article.name);
        }
        article.price_minor = article.price_minor.max(row.price.unwrap_or(0));
    }
    for (sku, article) in &mut articles {
        if article.name.is_empty() {
            article.name.clone_from(sku);
        }
    }
    articles
}

#[cfg(test)]
mod tests;
