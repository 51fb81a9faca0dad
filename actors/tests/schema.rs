//! What the domain stores is as committed in `schema`; docs/schema.md says what to do when it is not.

#[test]
fn what_is_stored_is_as_committed() {
    cluster::schema::check(&actors::registry(), concat!(env!("CARGO_MANIFEST_DIR"), "/schema"));
}
