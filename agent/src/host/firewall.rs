//! Whether a firewall of the machine is in the way of a node: of the API server's calls
//! to the kubelet, and of the pods' packets. What counts is what the kernel's packet
//! filters do, whoever wrote the rules; who did is asked for the command that opens them.
//! Berth opens none by itself. Nothing is changed by looking.

mod chains;
mod iptables;
mod nft;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use berth_domain::facts::HostFacts;
use berth_domain::node::KUBELET_PORT;

use self::chains::{Need, Table};
use super::program;
use super::survey;
use crate::plan::BRIDGE;

/// How long a filter may take to list its rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found of the machine's firewalls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// What is shut, and who shuts it.
    shut: BTreeSet<(Need, Guard)>,
    /// What could not be seen, and why.
    unseen: Vec<String>,
}

/// Whose rules are in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    Firewalld,
    Ufw,
    /// A chain of the program that lists it.
    Iptables {
        program: &'static str,
        chain: String,
    },
    Nft {
        family: String,
        table: String,
        chain: String,
    },
}

/// Looks at the running system's packet filters. Families of which the machine has no
/// address to be reached at do not count.
pub async fn look(facts: &HostFacts) -> Firewall {
    let reached = facts.links.iter().flat_map(|link| &link.addresses).any(|address| is_global_v6(address));
    tokio::task::spawn_blocking(move || seen(reached)).await.unwrap_or_default()
}

/// `ADDRESS/LENGTH`, as links have them.
fn is_global_v6(address: &str) -> bool {
    let address = address.split('/').next().unwrap_or_default();
    address
        .parse::<Ipv6Addr>()
        .is_ok_and(|address| !address.is_loopback() && !address.is_unicast_link_local())
}

/// Blocks for the programs that list rules.
fn seen(v6: bool) -> Firewall {
    let mut found = Firewall::default();
    let mut tables = match program::run("nft", &["--json", "list", "ruleset"], PATIENCE) {
        Ok(listed) => nft::tables(&listed).unwrap_or_else(|| {
            found.unseen.push("nft's rules are not understood".to_owned());
            Vec::new()
        }),
        Err(error) => {
            found.unseen.push(error.to_string());
            Vec::new()
        }
    };
    tables.retain(|table| v6 || table.family != V6.name);
    for family in if v6 { &[V4, V6][..] } else { &[V4] } {
        // What iptables has put there in its own words, nft cannot read in full.
        let is_iptables = |table: &Table| table.family == family.name && table.name == "filter";
        if tables.iter().any(|table| is_iptables(table) && table.foreign)
            && let Ok(listed) = program::run(family.iptables_nft, &["-S"], PATIENCE)
        {
            tables.retain(|table| !is_iptables(table));
            tables.push(iptables::table(family.iptables_nft, family.name, &listed));
        }
        if has_legacy(family)
            && let Some(table) = family.legacy.iter().find_map(|program| {
                let listed = program::run(program, &["-S"], PATIENCE).ok()?;
                Some(iptables::table(program, family.name, &listed))
            })
        {
            tables.push(table);
        }
    }
    found.shut = tables.iter().flat_map(shut).collect();
    found
}

/// Whether the older filter is in use: to list one that is not would load it.
fn has_legacy(family: &Family) -> bool {
    survey::find(Path::new(family.legacy_tables), |line| (line == "filter").then_some(())).is_some()
}

/// What one table shuts.
fn shut(table: &Table) -> Vec<(Need, Guard)> {
    let mut all = Vec::new();
    for need in Need::ALL {
        for chain in table.chains.shutting(need) {
            all.push((need, guard(table, chain)));
        }
    }
    all
}

fn guard(table: &Table, chain: &str) -> Guard {
    if table.name == "firewalld" {
        return Guard::Firewalld;
    }
    if table.chains.names().any(|name| name.starts_with("ufw-")) {
        return Guard::Ufw;
    }
    match table.lister {
        Some(program) => Guard::Iptables { program, chain: chain.to_owned() },
        None => {
            Guard::Nft { family: table.family.clone(), table: table.name.clone(), chain: chain.to_owned() }
        }
    }
}

impl Firewall {
    /// Whether nothing is shut, and all could be seen.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.shut.is_empty() && self.unseen.is_empty()
    }

    /// What is in the way, in a sentence; nothing where nothing is.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let of = |needs: &[Need], what: &str| {
            let guards = self.shut.iter().filter(|(need, _)| needs.contains(need));
            let guards: BTreeSet<String> = guards.map(|(_, guard)| guard.named()).collect();
            let guards: Vec<String> = guards.into_iter().collect();
            (!guards.is_empty()).then(|| format!("{} {what}", guards.join(" and ")))
        };
        let unseen = || format!("what is shut could not be seen in full: {}", self.unseen.join("; "));
        let all: Vec<String> = [
            of(&[Need::Kubelet], &kubelet_shut()),
            of(&[Need::FromPods, Need::ToPods], &pods_shut()),
            (!self.unseen.is_empty()).then(unseen),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// The command that opens it.
    #[must_use]
    pub fn mend(&self) -> Option<String> {
        let mut commands: Vec<String> = Vec::new();
        for command in self.shut.iter().flat_map(|(need, guard)| guard.opening(*need)) {
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
        if self.shut.iter().any(|(_, guard)| *guard == Guard::Firewalld) {
            commands.push("firewall-cmd --reload".to_owned());
        }
        (!commands.is_empty()).then(|| commands.join(" && "))
    }
}

impl Guard {
    fn named(&self) -> String {
        match self {
            Self::Firewalld => "firewalld".to_owned(),
            Self::Ufw => "ufw".to_owned(),
            Self::Iptables { program, chain } => format!("{program}'s chain {chain}"),
            Self::Nft { family, table, chain } => format!("nft's chain {family} {table} {chain}"),
        }
    }

    fn opening(&self, need: Need) -> Vec<String> {
        let command = match (self, need) {
            (Self::Firewalld, Need::Kubelet) => {
                format!("firewall-cmd --permanent --add-port={KUBELET_PORT}/tcp")
            }
            (Self::Firewalld, Need::FromPods) => {
                format!("firewall-cmd --permanent --zone=trusted --add-interface={BRIDGE}")
            }
            // Into a zone others come by a policy alone (firewalld.policies(5)).
            (Self::Firewalld, Need::ToPods) => {
                return FIREWALLD_TO_PODS.map(|words| format!("firewall-cmd --permanent {words}")).to_vec();
            }
            (Self::Ufw, Need::Kubelet) => format!("ufw allow {KUBELET_PORT}/tcp"),
            (Self::Ufw, Need::FromPods) => format!("ufw route allow in on {BRIDGE}"),
            (Self::Ufw, Need::ToPods) => format!("ufw route allow out on {BRIDGE}"),
            (Self::Iptables { program, chain }, need) => {
                let matching = match need {
                    Need::Kubelet => format!("-p tcp --dport {KUBELET_PORT}"),
                    Need::FromPods => format!("-i {BRIDGE}"),
                    Need::ToPods => format!("-o {BRIDGE}"),
                };
                format!("{program} -I {chain} {matching} -j ACCEPT")
            }
            (Self::Nft { family, table, chain }, need) => {
                let matching = match need {
                    Need::Kubelet => format!("tcp dport {KUBELET_PORT}"),
                    Need::FromPods => format!("iifname {BRIDGE}"),
                    Need::ToPods => format!("oifname {BRIDGE}"),
                };
                format!("nft insert rule {family} {table} {chain} {matching} accept")
            }
        };
        vec![command]
    }
}

fn kubelet_shut() -> String {
    format!("lets nobody in to the kubelet's port {KUBELET_PORT}/tcp: kubectl logs and exec would not work")
}

fn pods_shut() -> String {
    format!("forwards no packets of pods, where they are at the bridge {BRIDGE}")
}

/// A version of the Internet Protocol, as the filters name it.
struct Family {
    name: &'static str,
    /// What lists the rules that iptables keeps in nft's filter.
    iptables_nft: &'static str,
    /// What lists those of the older filter: by its own name, and where it is the only one.
    legacy: [&'static str; 2],
    legacy_tables: &'static str,
}

const V4: Family = Family {
    name: "ip",
    iptables_nft: "iptables-nft",
    legacy: ["iptables-legacy", "iptables"],
    legacy_tables: "/proc/net/ip_tables_names",
};

const V6: Family = Family {
    name: "ip6",
    iptables_nft: "ip6tables-nft",
    legacy: ["ip6tables-legacy", "ip6tables"],
    legacy_tables: "/proc/net/ip6_tables_names",
};

const FIREWALLD_TO_PODS: [&str; 4] = [
    "--new-policy=to-pods",
    "--policy=to-pods --add-ingress-zone=ANY",
    "--policy=to-pods --add-egress-zone=trusted",
    "--policy=to-pods --set-target=ACCEPT",
];

#[cfg(test)]
mod tests;
