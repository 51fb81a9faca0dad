//! Several engines in one process, over real sockets and real disks: what only they can show together. One program, because each
//! would be linked with the whole engine.

mod breakers;
mod engines;
mod groups;
mod history;
mod membership;
mod pressure;
mod projections;
mod reads;
mod sagas;
mod schema;
mod streams;
mod supervision;
mod three_nodes;
mod timers;
