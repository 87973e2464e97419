//! Network links from sysfs, and their addresses.

use std::collections::BTreeMap;

use berth_domain::facts::Link;
use if_addrs::IfAddr;

use super::{Roots, read};

pub(super) fn links(roots: &Roots) -> Vec<Link> {
    let class = roots.sys.join("class/net");
    let mut addresses = addresses(roots);
    read::names(&class)
        .into_iter()
        .filter(|name| class.join(name).is_dir())
        .map(|name| {
            let link = class.join(&name);
            Link {
                mac: read::text(&link.join("address")).filter(|mac| mac != "00:00:00:00:00:00"),
                mtu: read::number(&link.join("mtu")),
                // The kernel says -1, or refuses to be read, where it knows no speed.
                speed_mbps: read::number(&link.join("speed")),
                state: read::text(&link.join("operstate")),
                driver: read::target_name(&link.join("device/driver")),
                addresses: addresses.remove(&name).unwrap_or_default(),
                name,
            }
        })
        .collect()
}

/// Addresses with prefix length, by link. They are in no file, so they are
/// known of the running machine only.
fn addresses(roots: &Roots) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if !roots.is_machine() {
        return found;
    }
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let address = match interface.addr {
            IfAddr::V4(v4) => format!("{}/{}", v4.ip, v4.prefixlen),
            IfAddr::V6(v6) => format!("{}/{}", v6.ip, v6.prefixlen),
        };
        found.entry(interface.name).or_default().push(address);
    }
    found
}
