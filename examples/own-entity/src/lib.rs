//! Seats of a theatre, and bookings of them: an entity and a saga of one's own. `docs/entities.md` walks through all of it.

#![allow(missing_docs, reason = "variants and fields say what they are")]

pub mod booking;
pub mod seat;

use cluster::Registry;

/// Everything that a node carries here.
pub fn registry() -> Registry {
    Registry::new().with::<seat::Seat>().with::<booking::Booking>()
}
