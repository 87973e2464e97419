//! The survey's facts on the wire. Bounds are those of `domain::facts::bounds`:
//! what is sent is brought within them, what breaks them is refused.

mod hardware;
mod node;
mod system;

use std::collections::BTreeMap;

use berth_domain::facts::HostFacts;
use berth_domain::facts::bounds::{
    self, LONGEST_FEATURES, LONGEST_TEXT, MOST_DISKS, MOST_HUGE_PAGE_SIZES, MOST_LINKS, MOST_NODE_FACTS,
    MOST_NUMA_NODES, MOST_PCI_DEVICES, MOST_RUNTIMES, MOST_SWAPS,
};

use crate::bounds::{Field, Malformed};
use crate::join::v1;

/// Facts for the wire, within their bounds.
#[must_use]
pub fn facts_to_wire(facts: &HostFacts) -> v1::HostFacts {
    let facts = facts.clone().bounded();
    v1::HostFacts {
        arch: system::arch_to_wire(facts.arch).into(),
        machine: facts.machine,
        cpu: Some(hardware::cpu_to_wire(facts.cpu)),
        memory: Some(hardware::memory_to_wire(&facts.memory)),
        numa_nodes: all(facts.numa_nodes, hardware::numa_node_to_wire),
        huge_pages: all(facts.huge_pages, hardware::huge_pages_to_wire),
        disks: all(facts.disks, hardware::disk_to_wire),
        links: all(facts.links, hardware::link_to_wire),
        pci_devices: all(facts.pci_devices, hardware::pci_device_to_wire),
        tpm: facts.tpm.map(hardware::tpm_to_wire),
        kernel: Some(system::kernel_to_wire(facts.kernel)),
        os: Some(system::os_to_wire(facts.os)),
        identity: Some(system::identity_to_wire(facts.identity)),
        virtualization: facts.virtualization,
        container: facts.container,
        cgroup: Some(system::cgroup_to_wire(facts.cgroup)),
        swaps: all(facts.swaps, system::swap_to_wire),
        clock: Some(system::clock_to_wire(facts.clock)),
        runtimes: all(facts.runtimes, node::runtime_to_wire),
        kubelet: facts.kubelet.map(node::kubelet_to_wire),
        privileges: Some(system::privileges_to_wire(&facts.privileges)),
        modules: node::modules_to_wire(facts.modules),
        sysctls: facts.sysctls,
        directories: all(facts.directories, node::directory_to_wire),
        ports: all(facts.ports, node::port_to_wire),
        tools: node::tools_to_wire(facts.tools),
        leftovers: all(facts.leftovers, node::leftover_to_wire),
    }
}

/// Facts from the wire. What a later version may add is left out: a word that
/// this one does not know is no fact.
///
/// # Errors
/// The field that breaks its bounds.
pub fn facts_from_wire(wire: v1::HostFacts) -> Result<HostFacts, Malformed> {
    let field = |name| Field("HostFacts", name);
    Ok(HostFacts {
        arch: system::arch_from_wire(wire.arch),
        machine: field("machine").fact(wire.machine)?,
        cpu: hardware::cpu_from_wire(wire.cpu.unwrap_or_default())?,
        memory: hardware::memory_from_wire(&wire.memory.unwrap_or_default()),
        numa_nodes: field("numa_nodes").each(
            wire.numa_nodes,
            MOST_NUMA_NODES,
            hardware::numa_node_from_wire,
        )?,
        huge_pages: field("huge_pages").each(
            wire.huge_pages,
            MOST_HUGE_PAGE_SIZES,
            hardware::huge_pages_from_wire,
        )?,
        disks: field("disks").each(wire.disks, MOST_DISKS, hardware::disk_from_wire)?,
        links: field("links").each(wire.links, MOST_LINKS, hardware::link_from_wire)?,
        pci_devices: field("pci_devices").each(
            wire.pci_devices,
            MOST_PCI_DEVICES,
            hardware::pci_device_from_wire,
        )?,
        tpm: wire.tpm.map(hardware::tpm_from_wire).transpose()?,
        kernel: system::kernel_from_wire(wire.kernel.unwrap_or_default())?,
        os: system::os_from_wire(wire.os.unwrap_or_default())?,
        identity: system::identity_from_wire(wire.identity.unwrap_or_default())?,
        virtualization: field("virtualization").fact(wire.virtualization)?,
        container: field("container").fact(wire.container)?,
        cgroup: system::cgroup_from_wire(wire.cgroup.unwrap_or_default())?,
        swaps: field("swaps").each(wire.swaps, MOST_SWAPS, system::swap_from_wire)?,
        clock: system::clock_from_wire(wire.clock.unwrap_or_default())?,
        runtimes: field("runtimes").each(wire.runtimes, MOST_RUNTIMES, node::runtime_from_wire)?,
        kubelet: wire.kubelet.map(node::kubelet_from_wire).transpose()?,
        privileges: system::privileges_from_wire(&wire.privileges.unwrap_or_default()),
        modules: node::modules_from_wire(wire.modules)?,
        sysctls: field("sysctls").entries(wire.sysctls, |value| field("sysctls").plain(value).map(Some))?,
        directories: field("directories").each(
            wire.directories,
            MOST_NODE_FACTS,
            node::directory_from_wire,
        )?,
        ports: field("ports").each(wire.ports, MOST_NODE_FACTS, node::port_from_wire)?,
        tools: node::tools_from_wire(wire.tools)?,
        leftovers: node::leftovers_from_wire(wire.leftovers)?,
    })
}

/// A text of a fact is not as [`bounds::text`] leaves it.
#[derive(Debug, thiserror::Error)]
#[error("it has white space around it")]
struct NotTrimmed;

/// The features of a processor are not as [`bounds::features`] leaves them.
#[derive(Debug, thiserror::Error)]
#[error("it must be sorted words of printable ASCII, each once, with one space between them")]
struct NotFeatures;

/// A number of a fact does not fit into 16 bits.
#[derive(Debug, thiserror::Error)]
#[error("it is {found}, and 65535 is the most")]
struct TooHigh {
    found: u32,
}

impl Field {
    /// A text as [`bounds::text`] would leave it.
    fn plain(self, text: String) -> Result<String, Malformed> {
        if bounds::is_text(&text) {
            return Ok(text);
        }
        self.text(text, LONGEST_TEXT)?;
        Err(self.invalid(NotTrimmed))
    }

    /// A text that may be absent.
    fn fact(self, text: Option<String>) -> Result<Option<String>, Malformed> {
        text.map(|text| self.plain(text)).transpose()
    }

    fn plains(self, texts: Vec<String>, most: usize) -> Result<Vec<String>, Malformed> {
        self.each(texts, most, |text| self.plain(text))
    }

    /// A processor's features as [`bounds::features`] would leave them.
    fn features(self, text: String) -> Result<String, Malformed> {
        self.count(text.len(), LONGEST_FEATURES)?;
        if bounds::are_features(&text) { Ok(text) } else { Err(self.invalid(NotFeatures)) }
    }

    fn u16(self, number: u32) -> Result<u16, Malformed> {
        u16::try_from(number).map_err(|_| self.invalid(TooHigh { found: number }))
    }

    fn each<W, T>(
        self,
        items: Vec<W>,
        most: usize,
        read: impl FnMut(W) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        self.count(items.len(), most)?;
        items.into_iter().map(read).collect()
    }

    /// A map by name; what reads as `None` is left out.
    fn entries<W, T>(
        self,
        wire: BTreeMap<String, W>,
        read: impl Fn(W) -> Result<Option<T>, Malformed>,
    ) -> Result<BTreeMap<String, T>, Malformed> {
        self.count(wire.len(), MOST_NODE_FACTS)?;
        let mut entries = BTreeMap::new();
        for (key, value) in wire {
            let key = self.plain(key)?;
            if let Some(value) = read(value)? {
                entries.insert(key, value);
            }
        }
        Ok(entries)
    }
}

fn all<T, W>(items: Vec<T>, to_wire: fn(T) -> W) -> Vec<W> {
    items.into_iter().map(to_wire).collect()
}
