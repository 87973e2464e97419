//! Ports that nobody listens on. They lie below the range from which the kernel
//! takes ports for outgoing connections, so that a component can be stopped and
//! find its port free when it starts again.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

/// A port that is free on the address and on every address of this machine.
/// Processes begin at different places, and no port is given twice by one.
pub(crate) fn free_port(address: IpAddr) -> Result<u16> {
    let begin = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..LAST - FIRST {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % u32::from(LAST - FIRST);
        let Ok(offset) = u16::try_from(offset) else { continue };
        let port = FIRST + offset;
        let free = |address: IpAddr| TcpListener::bind((address, port)).is_ok();
        if free(address) && free(Ipv4Addr::UNSPECIFIED.into()) {
            return Ok(port);
        }
    }
    None.with_context(|| format!("no port from {FIRST} to {LAST} is free on {address}"))
}

static NEXT: AtomicU32 = AtomicU32::new(0);
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Ports between two processes with neighbouring ids.
const STRIDE: u32 = 41;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> =
            (0..50).map(|_| free_port(Ipv4Addr::LOCALHOST.into()).expect("a port")).collect();
        let different: std::collections::BTreeSet<&u16> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }

    #[test]
    fn a_port_that_is_held_is_passed_over() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let held = holder.local_addr().expect("it is bound").port();
        for _ in 0..50 {
            assert_ne!(free_port(Ipv4Addr::LOCALHOST.into()).expect("a port"), held);
        }
    }
}
