//! What an operator knows of nodes that Berth cannot see by itself: on which addresses,
//! and by which DNS names, each is reached. A file, not an object of the cluster: who
//! may write it is whoever may configure the server, and Berth's account needs no right
//! for it. A ConfigMap that is mounted as the file serves all replicas.

mod file;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use berth_domain::name::NodeName;
use berth_program::config::parse;
use serde::Deserialize;

pub(crate) use file::load;
pub use file::{InventoryError, InventoryFile};

use super::serving::{MOST_NAMES, Reserved, is_of_one_machine};

/// What is whose. Nothing in it is held twice, or is the cluster's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    addresses: BTreeMap<IpAddr, NodeName>,
    names: BTreeMap<String, NodeName>,
    nodes: usize,
}

/// The file's fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Form {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    #[serde(default)]
    nodes: Vec<Entry>,
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "config.berth.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Deserialize)]
enum Kind {
    NodeInventory,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: NodeName,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    dns_names: Vec<NodeName>,
}

/// Fields that cannot be, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(Vec<(String, String)>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (field, problem)) in self.0.iter().take(MOST_TOLD).enumerate() {
            write!(f, "{}{field}: {problem}", if place == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Inventory {
    /// Reads the text of a file; `path` is for the error only.
    ///
    /// # Errors
    /// The first thing that is not understood; else every entry that cannot be, by its
    /// field, with what it may be.
    fn read(text: &str, path: &Path, reserved: &Reserved) -> Result<Self, InventoryError> {
        let form: Form = parse("berth-server", text, path)?;
        let (mut all, mut wrong) = (Self { nodes: form.nodes.len(), ..Self::default() }, Wrong(Vec::new()));
        let written: BTreeSet<&NodeName> = form.nodes.iter().map(|entry| &entry.name).collect();
        let mut above = BTreeSet::new();
        for (place, entry) in form.nodes.iter().enumerate() {
            let mut note = |field: String, problem: String| {
                wrong.0.push((format!("nodes[{place}].{field}"), problem));
            };
            if !above.insert(&entry.name) {
                note("name".to_owned(), format!("{} is written above; write it once", entry.name));
            }
            let count = entry.addresses.len().saturating_add(entry.dns_names.len());
            if count > MOST_OF_ONE {
                let problem = format!("{count} addresses and names; a node may have {MOST_OF_ONE}");
                note("addresses".to_owned(), problem);
                continue;
            }
            for (place, address) in entry.addresses.iter().enumerate() {
                if let Err(problem) = all.take_address(address.to_canonical(), &entry.name, reserved) {
                    note(format!("addresses[{place}]"), problem);
                }
            }
            for (place, name) in entry.dns_names.iter().enumerate() {
                let is_node = *name != entry.name && written.contains(name);
                let taken = match is_node {
                    true => Err(format!("{name} is the name of another node; take it out")),
                    false => all.take_name(name.as_str(), &entry.name, reserved),
                };
                if let Err(problem) = taken {
                    note(format!("dnsNames[{place}]"), problem);
                }
            }
        }
        match wrong.0.is_empty() {
            true => Ok(all),
            false => Err(InventoryError::Entries { path: path.to_owned(), wrong }),
        }
    }

    fn take_address(&mut self, address: IpAddr, node: &NodeName, reserved: &Reserved) -> Result<(), String> {
        if reserved.holds(&address.to_string()) {
            return Err(format!("{address} is the cluster's own; take it out"));
        }
        if !is_of_one_machine(address) {
            return Err(format!("{address} is no address of one machine alone; take it out"));
        }
        match self.addresses.insert(address, node.clone()) {
            None => Ok(()),
            Some(before) => Err(format!("{address} is given to {before} already; keep it at one of them")),
        }
    }

    fn take_name(&mut self, name: &str, node: &NodeName, reserved: &Reserved) -> Result<(), String> {
        if reserved.holds(name) {
            return Err(format!("{name} is the cluster's own; take it out"));
        }
        match self.names.insert(name.to_owned(), node.clone()) {
            None => Ok(()),
            Some(before) => Err(format!("{name} is given to {before} already; keep it at one of them")),
        }
    }

    /// Whose an address is.
    pub(super) fn holder(&self, address: IpAddr) -> Option<&NodeName> {
        self.addresses.get(&address)
    }

    /// Whose a DNS name is, in whichever case it is written (RFC 4343).
    pub(super) fn holder_of_name(&self, name: &str) -> Option<&NodeName> {
        self.names.get(&name.to_ascii_lowercase())
    }
}

/// What one node may have beside its Node's name.
const MOST_OF_ONE: usize = MOST_NAMES - 1;

/// The most problems of one file that are told in one line.
const MOST_TOLD: usize = 5;
