//! Ports of this machine that nobody listens on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below those that systems give out by themselves: so a connection that somebody opens does not take one while its node is away.
const PORTS: Range<u16> = 10_000..20_000;

/// How far this process has come in [`PORTS`]: nobody in it gets a port of somebody else. Each process begins elsewhere.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS.len() as u16)));

/// Listeners on so many of them.
pub(super) fn listeners(count: usize) -> io::Result<Vec<TcpListener>> {
    let bound = PORTS.filter_map(|_| {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u16;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    });
    let listeners: Vec<TcpListener> = bound.take(count).collect();
    if listeners.len() < count {
        let Range { start, end } = PORTS;
        let reason = format!("fewer than {count} ports of this machine between {start} and {end} are free");
        return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    }
    Ok(listeners)
}

/// Addresses of this machine that nobody listens on just now. No two calls of one process give the same, so that it stays so until
/// the caller takes it, unless another process does.
///
/// # Panics
/// When there is no free port.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners = listeners(count).expect("free ports");
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
    listeners.iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_is_given_what_somebody_else_was() {
        let given: Vec<SocketAddr> = (0..4).flat_map(|_| free_addresses(50)).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 200);
        assert!(given.iter().all(|address| PORTS.contains(&address.port())));
    }
}
