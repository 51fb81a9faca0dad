//! Three nodes in this process, a seat that two want at the same time, and a node that is killed.
//!
//! ```text
//! cargo run -p own-entity
//! ```

use std::error::Error;

use cluster::{CallError, LocalCluster, Services, saga};
use own_entity::{
    booking::{Booking, Order, Receipt, Wanted},
    registry,
    seat::Seat,
};

/// A bank that declines stolen cards.
fn bank() -> Services {
    Services::new().with_fn("bank", |_, order: Order| async move {
        println!("  the bank is asked: {order:?}");
        Ok::<_, CallError>(match order {
            Order::Charge { card, .. } if card.starts_with("stolen") => Receipt::Declined,
            Order::Charge { .. } | Order::Refund { .. } => Receipt::Done,
        })
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut three = LocalCluster::start(3, registry(), bank()).await?;
    println!("three nodes run in {}", three.folder().display());
    for (id, card) in [("b-1", "stolen-1"), ("b-2", "ann-7"), ("b-3", "bob-9")] {
        let wanted = Wanted {
            seat: "row-1-7".to_owned(),
            card: card.to_owned(),
            cents: 2_500,
        };
        three.ask::<Booking>(id, &saga::Command::Start(wanted)).await?;
        let ended = three.until::<Booking>(id, |state| state.phase.end().is_some()).await;
        let booking = ended.map_err(|state| format!("{id} does not end: {state:?}"))?;
        let why = booking.reason.map(|reason| format!(": {reason}"));
        println!("{id} is {}{}", booking.phase.as_str(), why.unwrap_or_default());
    }
    three.kill(1).await;
    let seat = three.read::<Seat>("row-1-7").await?;
    println!("node 1 is killed; row-1-7 is {seat:?}");
    three.restart(1).await?;
    three.stop_all().await;
    Ok(())
}
