//! The business domain as pure entities: what a shop sells, holds, promises, charges and takes back.
//!
//! Nothing here knows a socket, a disk, a clock or a task. Each folder is one kind of entity; its `mod.rs` says what the
//! thing is and which promises it keeps. Reading order: [`money`] and [`ids`], then [`product`], [`stock`], [`customer`],
//! [`payment`], [`order`], the two sagas that drive them, [`checkout`] and [`returns`], and what all of it adds up to: [`models`].
//!
//! An order, its checkout and its payment share one id, and with it one shard: what they say to each other crosses no
//! network.

pub mod checkout;
pub mod customer;
pub mod ids;
mod judge;
pub mod models;
pub mod money;
pub mod order;
pub mod payment;
mod plan;
pub mod product;
pub mod returns;
pub mod stock;

pub use ids::{CustomerId, IdError, OrderId, ReturnId, Sku};
pub use money::{Currency, Money, MoneyError};

/// The largest quantity that one line or one delivery may have.
pub const QUANTITY_MAX: u64 = 1_000_000_000;
/// The longest reason that a person may give, in bytes.
pub const REASON_LEN_MAX: usize = 500;

/// All kinds of entities that the platform carries, and its read models.
pub fn registry() -> cluster::Registry {
    cluster::Registry::new()
        .with::<product::Product>()
        .with::<stock::StockItem>()
        .with::<customer::Customer>()
        .with::<payment::Payment>()
        .with::<order::Order>()
        .with::<checkout::Checkout>()
        .with::<returns::Return>()
        .with_projection::<models::Sales>()
        .with_projection::<models::Orders>()
        .with_projection::<models::Levels>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_is_registered() {
        let names: Vec<_> = super::registry().names().collect();
        assert_eq!(
            names,
            ["checkout", "customer", "order", "payment", "product", "return", "stock"]
        );
    }
}
