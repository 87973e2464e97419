//! Who listens on the ports that a node needs.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

use berth_domain::facts::{Holder, ListeningPort, bounds};

use super::{Roots, read};

/// Where the kubelet serves the API server.
pub(in crate::host) const KUBELET_PORT: u16 = 10250;

/// The kubelet's health and server ports, and kube-proxy's health port.
const PORTS: [u16; 3] = [10248, KUBELET_PORT, 10256];

/// The most file descriptors that are looked at to find a port's holder.
const MOST_DESCRIPTORS: usize = 50_000;

pub(super) fn listening(roots: &Roots) -> Vec<ListeningPort> {
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
