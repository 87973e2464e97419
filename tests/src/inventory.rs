//! All there is of a bare machine, to compare it with itself at another time.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_machine::Machine;

/// Files with their modes and contents, units, mounts, links, routes, rules.
#[derive(Debug)]
pub struct Inventory(BTreeSet<String>);

impl Inventory {
    /// What is on a machine now.
    ///
    /// # Panics
    /// The machine cannot be looked at.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        let said = machine.run(&["/bin/sh", "-c", EVERYTHING], PATIENCE).expect("a shell");
        assert!(said.stdout.lines().count() > 1000, "{}", said.stderr);
        Self(said.stdout.lines().map(str::to_owned).collect())
    }

    /// What is there at one time only, and is not explained by docs/machine.md.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        self.0.symmetric_difference(&other.0).filter(|line| !is_explained(line)).cloned().collect()
    }
}

/// docs/machine.md: the packet filter's tables that a kubelet has made stay, empty, with
/// chains that let all pass.
fn is_explained(line: &str) -> bool {
    let chains =
        ["chain OUTPUT {", "chain INPUT {", "chain PREROUTING {", "chain POSTROUTING {", "chain FORWARD {"];
    let line = line.trim();
    line.is_empty()
        || line == "}"
        || chains.contains(&line)
        || (line.starts_with("table ip") && line.ends_with('{'))
        || (line.starts_with("type ") && line.ends_with("policy accept;"))
}

/// An emulated machine takes a while.
const PATIENCE: Duration = Duration::from_secs(240);

const EVERYTHING: &str = r"
list() { find $1 -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
  -o -path /var/log/journal -o -path /var/lib/systemd -o -path /etc/credstore \) -prune -o -printf '%M %u %p %l\n'; }
list /; list /var
find /etc /opt /usr/local /var/lib -xdev -type f -not -path '/var/lib/systemd/*' -not -path '/etc/credstore/*' -exec sha256sum {} +
systemctl list-unit-files --state=enabled --plain --no-legend
systemctl list-units --type=service --state=running --plain --no-legend | cut -d' ' -f1
cut -d' ' -f1-3 /proc/mounts
ip -o link | cut -d' ' -f2 | cut -d@ -f1
ip route; ip -6 route
nft list ruleset
# Not `sysctl -a`: it looks everywhere, and what it looks at is mounted.
grep -s . /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/* /proc/sys/net/ipv6/conf/all/forwarding
";
