//! What the survey of a host finds, what follows from it for the Node
//! (resources, labels), and how much of it may go into one message.
//!
//! Every fact may be absent: a survey reports what it could read.

pub mod bounds;
mod hardware;
mod labels;
mod node;
mod resources;
mod system;

pub use hardware::{Cpu, Disk, HugePages, Link, Memory, NumaNode, PciDevice, Tpm};
pub use labels::labels;
pub use node::{
    Directory, Holder, Kubelet, Leftover, ListeningPort, ModuleState, Owner, Runtime, RuntimeState,
};
pub use resources::{MAX_PODS, Reserved, Resources, allocatable, capacity};
pub use system::{
    Arch, Cgroup, CgroupVersion, Clock, Identity, Kernel, OsRelease, Privileges, Swap, app_specific_id,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything a survey found on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostFacts {
    /// The kernel's architecture, if it is one that Kubernetes knows.
    pub arch: Option<Arch>,
    /// The architecture in the kernel's own word (`uname -m`), such as `x86_64`.
    pub machine: Option<String>,
    /// Processors.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// NUMA nodes, by number.
    pub numa_nodes: Vec<NumaNode>,
    /// Pools of huge pages of the whole machine, one per page size.
    pub huge_pages: Vec<HugePages>,
    /// Block devices that hold data, by name.
    pub disks: Vec<Disk>,
    /// Network links, by name.
    pub links: Vec<Link>,
    /// PCI devices, by address. [`HostFacts::gpus`] picks the accelerators.
    pub pci_devices: Vec<PciDevice>,
    /// The TPM, if there is one.
    pub tpm: Option<Tpm>,
    /// The kernel that runs.
    pub kernel: Kernel,
    /// The operating system's `os-release`.
    pub os: OsRelease,
    /// Which machine it is.
    pub identity: Identity,
    /// The hypervisor the machine runs under (`kvm`, `vmware`, ...), `vm-other`
    /// for one without a name; absent on bare metal and where unknown.
    pub virtualization: Option<String>,
    /// The container manager the agent itself runs under, if any.
    pub container: Option<String>,
    /// Control groups.
    pub cgroup: Cgroup,
    /// Swap areas in use.
    pub swaps: Vec<Swap>,
    /// Clock.
    pub clock: Clock,
    /// Container runtimes whose socket exists.
    pub runtimes: Vec<Runtime>,
    /// The kubelet, if one is installed.
    pub kubelet: Option<Kubelet>,
    /// What the agent's own process may do.
    pub privileges: Privileges,
    /// Kernel modules that a node needs, by name.
    pub modules: BTreeMap<String, ModuleState>,
    /// Kernel settings that a node needs, by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Directories that the kubelet and the runtime fill, by path.
    pub directories: Vec<Directory>,
    /// Ports of interest on which something listens.
    pub ports: Vec<ListeningPort>,
    /// Programs that the kubelet and kube-proxy call: the path of each one
    /// found; `None` for one that was looked for and is not there.
    pub tools: BTreeMap<String, Option<String>>,
    /// Files that another way of joining has left.
    pub leftovers: Vec<Leftover>,
}

impl HostFacts {
    /// Display controllers and processing accelerators among the PCI devices.
    pub fn gpus(&self) -> impl Iterator<Item = &PciDevice> {
        self.pci_devices.iter().filter(|device| device.is_gpu())
    }
}
