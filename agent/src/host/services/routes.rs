//! The way to the pods of other nodes, and out of the cluster: routes and one rule of
//! the packet filter, both marked as Berth's, so that what is not is left alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use berth_domain::pods::{PodRoute, PodRoutes};
use ipnet::IpNet;

use crate::host::program;
use crate::plan::BRIDGE;

/// How long ip(8) or nft(8) may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes exactly these routes stand, and lets pods out. Blocks.
pub(super) fn lay(routes: &PodRoutes) -> io::Result<()> {
    let orders = orders(&routes.others, &standing()?);
    if !orders.is_empty() {
        // One that cannot be laid does not keep the others.
        program::feed("ip", &["-force", "-batch", "-"], &orders, PATIENCE)?;
    }
    program::feed("nft", &["-f", "-"], &filter(routes), PATIENCE).map(drop)
}

/// Takes all of it away; says whether there was anything. Blocks.
pub(super) fn clear() -> io::Result<bool> {
    let mut any = false;
    for family in FAMILIES {
        let table = [family, TABLE];
        if program::run("nft", &[&["list", "table"], &table[..]].concat(), PATIENCE).is_ok() {
            program::run("nft", &[&["delete", "table"], &table[..]].concat(), PATIENCE)?;
            any = true;
        }
    }
    let standing = standing()?;
    if standing.is_empty() {
        return Ok(any);
    }
    program::feed("ip", &["-batch", "-"], &orders(&[], &standing), PATIENCE)?;
    Ok(true)
}

/// The ranges that Berth's routes lead to now.
fn standing() -> io::Result<BTreeSet<IpNet>> {
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        let listed = program::run("ip", &[family, "route", "show", "proto", PROTOCOL], PATIENCE)?;
        found.extend(listed.lines().filter_map(|line| range(line.split(' ').next()?)));
    }
    Ok(found)
}

/// A destination as ip(8) prints it: a host's has no length.
fn range(printed: &str) -> Option<IpNet> {
    printed.parse().ok().or_else(|| Some(IpNet::from(printed.parse::<std::net::IpAddr>().ok()?)))
}

/// What ip(8) is to do: old ones go first, as a range may have moved.
fn orders(wanted: &[PodRoute], standing: &BTreeSet<IpNet>) -> String {
    let mut orders = String::new();
    for range in standing.iter().filter(|range| wanted.iter().all(|route| route.range != **range)) {
        // Writing to a String cannot fail.
        let _ = writeln!(orders, "route delete {range} proto {PROTOCOL}");
    }
    for PodRoute { range, via } in wanted {
        let _ = writeln!(orders, "route replace {range} via {via} proto {PROTOCOL}");
    }
    orders
}

/// The packet filter's table, taken away and made anew in one step: what leaves the
/// pods' own world bears the node's address.
fn filter(routes: &PodRoutes) -> String {
    let mut text = String::new();
    for (family, is_v4) in FAMILIES.into_iter().zip([true, false]) {
        let of = |ranges: Vec<IpNet>| -> Vec<String> {
            let ours = ranges.into_iter().filter(|range| range.addr().is_ipv4() == is_v4);
            ours.map(|range| range.to_string()).collect()
        };
        let _ = writeln!(text, "table {family} {TABLE}\ndelete table {family} {TABLE}");
        let own = of(routes.own.clone());
        if own.is_empty() {
            continue;
        }
        let others = of(routes.others.iter().map(|route| route.range).collect());
        let inside = [own.clone(), others].concat().join(", ");
        let own = own.join(", ");
        let _ = writeln!(
            text,
            "table {family} {TABLE} {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
             {family} saddr {{ {own} }} {family} daddr != {{ {inside} }} oifname != \"{BRIDGE}\" masquerade\n }}\n}}"
        );
    }
    text
}

/// A routing protocol number that nobody has (iproute2, rt_protos): the mark of ours.
const PROTOCOL: &str = "98";

/// The name of the packet filter's table.
const TABLE: &str = "berth_pods";

/// The packet filter's names of IPv4 and IPv6.
const FAMILIES: [&str; 2] = ["ip", "ip6"];

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> PodRoutes {
        let route = |range: &str, via: &str| PodRoute {
            range: range.parse().expect("a range"),
            via: via.parse().expect("an address"),
        };
        PodRoutes {
            own: vec!["10.244.1.0/24".parse().expect("a range")],
            others: vec![route("10.244.2.0/24", "10.77.0.102"), route("fd00:2::/64", "fd00::102")],
        }
    }

    #[test]
    fn a_route_that_is_no_longer_wanted_goes() {
        let standing =
            ["10.244.2.0/24", "10.244.9.0/24", "10.244.7.1"].map(|text| range(text).expect("a range"));
        assert_eq!(
            orders(&routes().others, &BTreeSet::from(standing)),
            "route delete 10.244.7.1/32 proto 98\n\
             route delete 10.244.9.0/24 proto 98\n\
             route replace 10.244.2.0/24 via 10.77.0.102 proto 98\n\
             route replace fd00:2::/64 via fd00::102 proto 98\n"
        );
    }

    #[test]
    fn pods_are_seen_as_they_are_by_pods_and_as_their_node_by_others() {
        let filter = filter(&routes());
        assert!(filter.contains(
            "ip saddr { 10.244.1.0/24 } ip daddr != { 10.244.1.0/24, 10.244.2.0/24 } oifname != \"cni0\" masquerade"
        ));
        assert!(filter.ends_with("delete table ip6 berth_pods\n"), "{filter}");
    }
}
