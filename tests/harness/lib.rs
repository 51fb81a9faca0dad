//! What tests with real processes need: a cluster on free ports in a folder of its own, its command line, and the
//! means to kill, pause, wipe and restart its nodes. Nothing here looks inside a node.

mod cluster;
mod command;
mod invoices;
mod ports;
mod subscriber;

pub use cluster::TestCluster;
pub use command::{Finished, playhouse};
pub use invoices::{Invoices, invoices};
pub use ports::free_base_port;
pub use subscriber::Subscriber;

/// The path of the program under test. Cargo tells it to the tests only, so this is a macro.
#[macro_export]
macro_rules! program {
    () => {
        env!("CARGO_BIN_EXE_playhouse-under-test")
    };
}
