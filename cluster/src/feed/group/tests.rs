//! A consumer group by its golden scripts.

use super::Group;
use crate::entity::script::golden;

#[test]
fn golden_scripts() {
    golden::<Group>(concat!(env!("CARGO_MANIFEST_DIR"), "/src/feed/group/golden"));
}
