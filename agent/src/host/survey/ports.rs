//! Who listens on the ports that a node needs.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use berth_domain::facts::{Holder, ListeningPort, bounds};
use berth_domain::node::KUBELET_PORT;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::{Roots, read};

/// The kubelet's health and server ports, and kube-proxy's health port.
const PORTS: [u16; 3] = [10248, KUBELET_PORT, 10256];

/// The most file descriptors that are looked at to find a port's holder.
const MOST_DESCRIPTORS: usize = 50_000;

pub(super) fn listening(roots: &Roots) -> Vec<ListeningPort> {
    if roots.is_machine() && PORTS.into_iter().all(is_free) {
        return Vec::new();
    }
    let mut found: BTreeMap<u16, u64> = BTreeMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let mut heading = true;
        let _absent = read::lines(&roots.proc.join(table), |line| {
            // The kernel lists listeners before connections, and of those a node
            // may have a hundred thousand.
            let Some((port, inode)) = listener(line) else {
                return if std::mem::take(&mut heading) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                };
            };
            heading = false;
            if PORTS.contains(&port) {
                found.insert(port, inode);
            }
            ControlFlow::Continue(())
        });
    }
    let holders = if found.is_empty() { BTreeMap::new() } else { holders(roots, &found) };
    let port = |(port, inode)| ListeningPort { port, holder: holders.get(&inode).cloned() };
    found.into_iter().map(port).collect()
}

/// Whether nobody listens on a port at any address, as bind(2) says. The tables tell who
/// does, but to the end of the listeners they cost a walk over all places that the kernel
/// has for connections, in whichever network: milliseconds of a join. False where it cannot
/// be said this way.
fn is_free(port: u16) -> bool {
    hold(port, Ipv4Addr::UNSPECIFIED.into()).is_ok()
        && match hold(port, Ipv6Addr::UNSPECIFIED.into()) {
            // A machine without IPv6 has nobody who listens there.
            Ok(_) | Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => true,
            Err(_) => false,
        }
}

/// A socket that has a port and does not listen. A listener hinders it; it hinders none
/// that begins meanwhile and, as servers do, says that addresses may be used again.
fn hold(port: u16, any: IpAddr) -> rustix::io::Result<OwnedFd> {
    let family = if any.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if any.is_ipv6() {
        set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &SocketAddr::new(any, port))?;
    Ok(socket)
}

/// Port and inode of a line of `/proc/net/tcp` whose state is LISTEN (`0A`).
fn listener(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == "0A").then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

/// The processes that hold these sockets, by the socket's inode.
fn holders(roots: &Roots, sockets: &BTreeMap<u16, u64>) -> BTreeMap<u64, Holder> {
    let mut found = BTreeMap::new();
    let mut budget = MOST_DESCRIPTORS;
    for name in read::names(&roots.proc) {
        let Ok(pid) = name.parse::<u32>() else { continue };
        let process = roots.proc.join(&name);
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            budget = budget.saturating_sub(1);
            let Some(inode) =
                fs::read_link(descriptor.path()).ok().and_then(|link| socket_inode(link.to_str()?))
            else {
                continue;
            };
            if sockets.values().any(|wanted| *wanted == inode) {
                let name = read::text(&process.join("comm")).unwrap_or_default();
                found.insert(inode, Holder { pid, name: bounds::text(&name) });
            }
        }
        if budget == 0 || found.len() == sockets.len() {
            break;
        }
    }
    found
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Below those that the kernel gives away by itself, and others in each process.
    fn some_free_port(after: u16) -> u16 {
        let first = after + u16::try_from(std::process::id() % 5_000).expect("small");
        (first..32_000).find(|port| is_free(*port)).expect("a free port")
    }

    /// Addresses to listen at. A machine without IPv6 has those of IPv4.
    fn addresses(port: u16) -> Vec<IpAddr> {
        let all = ["127.0.0.1", "0.0.0.0", "::1", "::"].map(|text| text.parse().expect("an address"));
        let has_ipv6 = hold(port, Ipv6Addr::UNSPECIFIED.into()).is_ok();
        all.into_iter().filter(|address: &IpAddr| address.is_ipv4() || has_ipv6).collect()
    }

    #[test]
    fn a_port_is_free_unless_somebody_listens_at_some_address_of_it() {
        let port = some_free_port(20_000);
        for address in addresses(port) {
            let listener = TcpListener::bind((address, port)).expect("nobody else listens");
            assert!(!is_free(port), "{address}");
            drop(listener);
            assert!(is_free(port), "{address}");
        }
    }

    #[test]
    fn who_begins_to_listen_while_it_is_looked_at_is_not_hindered() {
        let port = some_free_port(26_000);
        let addresses = addresses(port);
        let _held = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|any| hold(port, any));
        for address in addresses {
            TcpListener::bind((address, port)).expect("nobody else listens");
        }
    }
}
