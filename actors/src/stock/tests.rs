//! Stock is conserved whatever it is told, in whatever order.

use cluster::entity::script::{Script, golden};
use proptest::prelude::*;

use super::*;

#[test]
fn golden_scripts() {
    golden::<StockItem>(concat!(env!("CARGO_MANIFEST_DIR"), "/src/stock/golden"));
}

fn order() -> impl Strategy<Value = OrderId> {
    (0..4_u8).prop_map(|n| OrderId::new(format!("o-{n}")).expect("an id"))
}

/// Small quantities that meet each other, and some at the edges.
fn quantity() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..20_u64, 1 => Just(u64::MAX), 1 => Just(crate::QUANTITY_MAX)]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        quantity().prop_map(|quantity| Command::Receive { quantity }),
        (order(), quantity()).prop_map(|(order, quantity)| Command::Reserve { order, quantity }),
        order().prop_map(|order| Command::Release { order }),
        order().prop_map(|order| Command::Commit { order }),
        quantity().prop_map(|quantity| Command::Restock {
            reference: "r-1".to_owned(),
            quantity
        }),
        quantity().prop_map(|quantity| Command::WriteOff {
            quantity,
            reason: "broken".to_owned()
        }),
    ]
}

proptest! {
    #[test]
    fn pieces_are_neither_made_nor_lost(commands in prop::collection::vec(command(), 1..200)) {
        let mut script = Script::<StockItem>::new("85123A");
        for command in commands {
            let received = script.state().received;
            let _ = script.run(command.clone());
            prop_assert!(script.state().is_conserved(), "after {:?}: {:?}", command, script.state());
            if !matches!(command, Command::Receive { .. }) {
                prop_assert_eq!(script.state().received, received);
            }
        }
    }
}
