//! The network of pods: who brings it, and where the pods of which node are.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most other nodes whose pods one node is told of: a bridge with routes is for
/// small clusters.
pub const MOST_ROUTES: usize = 512;

/// The most address ranges of one node's own pods: one of each family.
pub const MOST_RANGES: usize = 2;

/// Who makes the network of a node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodNetwork {
    /// Somebody else: an add-on brings its own configuration.
    #[default]
    None,
    /// The agent: a bridge on each node, and routes between the nodes, which must be
    /// able to reach each other without a router in between.
    Bridge,
}

impl PodNetwork {
    /// True if somebody else makes it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Where pods are, as one node is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRoutes {
    /// The ranges of the node's own pods, as the cluster has given them out
    /// (`spec.podCIDRs`); at most [`MOST_RANGES`].
    pub own: Vec<IpNet>,
    /// The ranges of the others, in their order; at most [`MOST_ROUTES`].
    pub others: Vec<PodRoute>,
}

/// Where the pods of another node are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRoute {
    /// Their addresses.
    pub range: IpNet,
    /// Their node's address, of the same family.
    pub via: IpAddr,
}

impl PodRoute {
    /// The route, if a packet could take it: not to everywhere, and by an address of
    /// the same family that one machine can have.
    #[must_use]
    pub fn checked(range: IpNet, via: IpAddr) -> Option<Self> {
        let family = range.addr().is_ipv4() == via.is_ipv4();
        let of_a_machine = !via.is_loopback() && !via.is_unspecified() && !via.is_multicast();
        (family && of_a_machine && is_for_pods(&range)).then_some(Self { range: range.trunc(), via })
    }
}

/// Whether a range can be that of one node's pods: neither everything, nor this
/// machine, nor what is not one host's.
#[must_use]
pub fn is_for_pods(range: &IpNet) -> bool {
    let address = range.network();
    range.prefix_len() >= WIDEST
        && !address.is_loopback()
        && !address.is_multicast()
        && !matches!(address, IpAddr::V4(address) if address.is_link_local() || address.is_unspecified())
}

/// The shortest prefix of a node's range: a server that is wrong, or an enemy's, must
/// not draw a node's whole traffic to itself.
const WIDEST: u8 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_would_draw_other_traffic_is_none() {
        let route = |range: &str, via: &str| {
            PodRoute::checked(range.parse().expect("a range"), via.parse().expect("an address"))
        };
        assert!(route("10.244.1.0/24", "10.77.0.102").is_some());
        assert!(route("fd00:1::/64", "fd00::2").is_some());
        for (range, via) in [
            ("0.0.0.0/0", "10.77.0.102"),
            ("8.0.0.0/7", "10.77.0.102"),
            ("127.0.0.0/24", "10.77.0.102"),
            ("224.0.0.0/24", "10.77.0.102"),
            ("169.254.0.0/16", "10.77.0.102"),
            ("10.244.1.0/24", "127.0.0.1"),
            ("10.244.1.0/24", "fd00::2"),
            ("::/0", "fd00::2"),
        ] {
            assert_eq!(route(range, via), None, "{range} via {via}");
        }
    }
}
