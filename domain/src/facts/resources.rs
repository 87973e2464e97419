//! What a Node offers: capacity and allocatable, by the kubelet's rules
//! (`pkg/kubelet/nodestatus/setters.go`, `pkg/kubelet/cm/node_container_manager_linux.go`).

use std::collections::BTreeMap;

use super::HostFacts;
use crate::quantity::Quantity;

/// Amounts by resource name, as in a Node's `status.capacity`.
pub type Resources = BTreeMap<String, Quantity>;

/// The kubelet's default for the pods of one node.
pub const MAX_PODS: u64 = 110;

/// What is kept from pods. The default is the kubelet's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserved {
    /// `kubeReserved`: for the kubelet and the runtime.
    pub kube: Resources,
    /// `systemReserved`: for the operating system.
    pub system: Resources,
    /// `evictionHard` of `memory.available`.
    pub eviction_memory: Quantity,
    /// `evictionHard` of `nodefs.available`, in percent of the file system;
    /// more than 100 counts as 100.
    pub eviction_nodefs_percent: u8,
}

impl Default for Reserved {
    fn default() -> Self {
        Self {
            kube: Resources::new(),
            system: Resources::new(),
            eviction_memory: Quantity::from_bytes(100 << 20),
            eviction_nodefs_percent: 10,
        }
    }
}

/// Everything the machine has. `ephemeral-storage` is the file system of the
/// kubelet's directory; a resource whose size is unknown is left out.
#[must_use]
pub fn capacity(facts: &HostFacts) -> Resources {
    let mut capacity = Resources::from([("pods".to_owned(), Quantity::from_units(MAX_PODS))]);
    if let Some(threads) = facts.cpu.threads {
        capacity.insert("cpu".to_owned(), Quantity::from_units(threads.into()));
    }
    if let Some(bytes) = facts.memory.total_bytes {
        capacity.insert("memory".to_owned(), Quantity::from_bytes(bytes));
    }
    if let Some(directory) = facts.directories.iter().find(|directory| directory.path == KUBELET_DIRECTORY) {
        capacity.insert("ephemeral-storage".to_owned(), Quantity::from_bytes(directory.total_bytes));
    }
    for pool in &facts.huge_pages {
        let name = format!("{HUGE_PAGES}{}", Quantity::from_bytes(pool.page_bytes));
        capacity.insert(name, Quantity::from_bytes(pool.page_bytes.saturating_mul(pool.total)));
    }
    capacity
}

/// What pods may ask for: the capacity less the reservations, less the eviction
/// thresholds; and huge pages are taken out of the memory they are made of.
#[must_use]
pub fn allocatable(facts: &HostFacts, reserved: &Reserved) -> Resources {
    let capacity = capacity(facts);
    let huge_pages: Vec<Quantity> =
        capacity.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)).map(|(_, amount)| *amount).collect();
    let left = |(name, amount): (&String, &Quantity)| {
        let mut left = *amount;
        for reservation in [&reserved.kube, &reserved.system] {
            left = reservation.get(name).map_or(left, |amount| left.less(*amount));
        }
        match name.as_str() {
            "memory" => {
                left = huge_pages
                    .iter()
                    .fold(left.less(reserved.eviction_memory), |left, pool| left.less(*pool));
            }
            "ephemeral-storage" => {
                let percent = u64::from(reserved.eviction_nodefs_percent.min(100));
                let bytes = u64::try_from(amount.value()).unwrap_or(0);
                // In this order it cannot overflow; it may keep up to 100 bytes too few.
                left = left.less(Quantity::from_bytes(bytes / 100 * percent));
            }
            _ => {}
        }
        (name.clone(), left)
    };
    capacity.iter().map(left).collect()
}

/// Whose file system is the node's ephemeral storage (`nodefs`).
const KUBELET_DIRECTORY: &str = "/var/lib/kubelet";
const HUGE_PAGES: &str = "hugepages-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Cpu, Directory, HugePages, Memory};

    fn machine() -> HostFacts {
        HostFacts {
            cpu: Cpu { threads: Some(8), ..Cpu::default() },
            memory: Memory { total_bytes: Some(16 << 30), available_bytes: None },
            huge_pages: vec![
                HugePages { page_bytes: 2 << 20, total: 512, free: 512 },
                HugePages { page_bytes: 1 << 30, total: 0, free: 0 },
            ],
            directories: vec![Directory {
                path: "/var/lib/kubelet".to_owned(),
                total_bytes: 100_000_000_000,
                ..Directory::default()
            }],
            ..HostFacts::default()
        }
    }

    fn shown(resources: &Resources) -> Vec<String> {
        resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn capacity_is_what_the_machine_has() {
        assert_eq!(
            shown(&capacity(&machine())),
            [
                "cpu=8",
                "ephemeral-storage=97656250Ki",
                "hugepages-1Gi=0",
                "hugepages-2Mi=1Gi",
                "memory=16Gi",
                "pods=110"
            ]
        );
    }

    #[test]
    fn pods_get_what_reservations_and_evictions_leave() {
        let reserved = Reserved {
            kube: Resources::from([
                ("cpu".to_owned(), Quantity::from_milli(250)),
                ("memory".to_owned(), Quantity::from_bytes(512 << 20)),
            ]),
            system: Resources::from([("cpu".to_owned(), Quantity::from_milli(250))]),
            ..Reserved::default()
        };
        assert_eq!(
            shown(&allocatable(&machine(), &reserved)),
            [
                "cpu=7500m",
                "ephemeral-storage=87890625Ki",
                "hugepages-1Gi=0",
                "hugepages-2Mi=1Gi",
                "memory=14748Mi",
                "pods=110"
            ]
        );
    }

    #[test]
    fn nothing_is_ever_less_than_nothing() {
        let reserved = Reserved {
            system: Resources::from([("cpu".to_owned(), Quantity::from_units(9))]),
            eviction_memory: Quantity::from_bytes(1 << 40),
            eviction_nodefs_percent: 255,
            ..Reserved::default()
        };
        let allocatable = allocatable(&machine(), &reserved);
        for name in ["cpu", "memory", "ephemeral-storage"] {
            assert_eq!(allocatable.get(name), Some(&Quantity::ZERO), "{name}");
        }
    }

    #[test]
    fn a_machine_that_told_nothing_offers_pods_alone() {
        assert_eq!(shown(&capacity(&HostFacts::default())), ["pods=110"]);
    }
}
