//! Seats and bookings on three engines over real sockets and disks, one of which is killed.

use cluster::{CallError, LocalCluster, Services, saga, saga::Phase};
use own_entity::{
    booking::{Booking, Order, Receipt, Wanted},
    registry,
    seat::{Seat, State},
};

fn bank() -> Services {
    Services::new().with_fn("bank", |_, _: Order| async { Ok::<_, CallError>(Receipt::Done) })
}

async fn book(three: &LocalCluster, id: &str, seat: &str) {
    let wanted = Wanted {
        seat: seat.to_owned(),
        card: "ann-7".to_owned(),
        cents: 2_500,
    };
    let started = three.ask::<Booking>(id, &saga::Command::Start(wanted)).await;
    started.expect("it is started");
}

async fn ended(three: &LocalCluster, id: &str) -> Phase {
    let ended = three.until::<Booking>(id, |state| state.phase.end().is_some()).await;
    ended.expect("it ends").phase
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_end_though_a_node_is_killed_and_are_there_when_it_is_back() {
    let mut three = LocalCluster::start(3, registry(), bank()).await.expect("they start");
    for n in 0..12 {
        book(&three, &format!("a-{n}"), &format!("row-1-{n}")).await;
    }
    three.kill(1).await;
    for n in 0..12 {
        assert_eq!(ended(&three, &format!("a-{n}")).await, Phase::Completed);
        book(&three, &format!("b-{n}"), &format!("row-1-{n}")).await;
    }
    three.restart(1).await.expect("it starts again");
    for n in 0..12 {
        assert_eq!(ended(&three, &format!("b-{n}")).await, Phase::Undone);
    }
    three.stop_all().await;
    three.restart_all().await.expect("they start again");
    for n in 0..12 {
        let seat = three.read::<Seat>(&format!("row-1-{n}")).await;
        assert_eq!(seat.expect("it is there"), State::SoldTo(format!("a-{n}")));
    }
}
