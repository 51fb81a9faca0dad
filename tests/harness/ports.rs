//! Ports that nobody uses.

use std::net::TcpListener;

/// Base ports are tried from here,
const BASE_PORT_MIN: u16 = 20_000;
/// to below those that the system gives out by itself,
const BASE_PORT_MAX: u16 = 32_000;
/// in steps that leave each cluster room.
const BASE_PORT_STEP: u16 = 100;
/// The payment provider's place above the base port, and that of the nodes' HTTP ports above their own.
const PROVIDER_OFFSET: u16 = 90;
const HTTP_OFFSET: u16 = 80;

/// A base port with room for so many nodes and the provider. Another process may still be quicker.
pub fn free_base_port(nodes: u16) -> u16 {
    let steps = (BASE_PORT_MAX - BASE_PORT_MIN) / BASE_PORT_STEP;
    loop {
        let base = BASE_PORT_MIN + rand::random_range(0..steps) * BASE_PORT_STEP;
        let http = (1..=nodes).map(|node| HTTP_OFFSET + node);
        let mut wanted = (1..=nodes).chain(http).chain([PROVIDER_OFFSET]);
        if wanted.all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok()) {
            return base;
        }
    }
}
