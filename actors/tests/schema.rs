//! What the domain stores is as committed in `schema`; docs/schema.md says what to do when it is not.

use cluster::Registry;

#[test]
fn what_is_stored_is_as_committed() {
    let registry = Registry::new()
        .with::<actors::product::Product>()
        .with::<actors::stock::StockItem>()
        .with::<actors::customer::Customer>()
        .with::<actors::payment::Payment>()
        .with::<actors::order::Order>();
    cluster::schema::check(&registry, concat!(env!("CARGO_MANIFEST_DIR"), "/schema"));
}
