//! The closed list of checks: their ids, headings and descriptions.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A heading of the checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Who the machine is.
    Identity,
    /// Users, swap, clock, size.
    OperatingSystem,
    /// Cgroups, modules, settings.
    Kernel,
    /// The container runtime.
    ContainerRuntime,
    /// The kubelet and what it calls.
    Kubelet,
    /// Ports.
    Network,
    /// Disks.
    Storage,
    /// What other joins have left.
    Leftovers,
}

impl Group {
    /// The heading.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::OperatingSystem => "operating system",
            Self::Kernel => "kernel",
            Self::ContainerRuntime => "container runtime",
            Self::Kubelet => "kubelet",
            Self::Network => "network",
            Self::Storage => "storage",
            Self::Leftovers => "leftovers",
        }
    }
}

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $group:ident, $description:literal;)+) => {
        /// A check. Ids are stable, and kubeadm's where the meaning is the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CheckId {
            $($(#[doc = $doc])+ $name,)+
        }

        impl CheckId {
            /// Every check, in the order in which they are shown.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The id as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The heading it stands under.
            #[must_use]
            pub const fn group(self) -> Group {
                match self { $(Self::$name => Group::$group,)+ }
            }

            /// What should be so.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)+ }
            }
        }
    };
}

checks! {
    /// The node name's grammar.
    Hostname = "Hostname", Identity, "the host name can be a node name";
    /// A machine-id to tell machines apart by.
    MachineId = "MachineId", Identity, "the machine has a machine-id";
    /// Root, with the capabilities that a join needs.
    IsPrivilegedUser = "IsPrivilegedUser", OperatingSystem, "the agent has root's privileges";
    /// Swap.
    Swap = "Swap", OperatingSystem, "swap is off";
    /// A time service.
    Clock = "Clock", OperatingSystem, "a time service keeps the clock";
    /// Processors enough for a node.
    NumCpu = "NumCPU", OperatingSystem, "there is a processor for the node's own work";
    /// Memory enough for a node.
    Mem = "Mem", OperatingSystem, "there is memory for the node's own work";
    /// The cgroup hierarchy.
    Cgroups = "Cgroups", Kernel, "cgroup v2 is in use";
    /// The images' file system.
    ModuleOverlay = "Module-overlay", Kernel, "the module overlay can be had";
    /// Filtering of bridged packets.
    ModuleBrNetfilter = "Module-br_netfilter", Kernel, "the module br_netfilter can be had";
    /// Forwarding between pods.
    IpForward = "FileContent--proc-sys-net-ipv4-ip_forward", Kernel, "IPv4 packets are forwarded";
    /// Bridged packets pass the packet filter.
    BridgeNetfilter = "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", Kernel, "bridged packets pass the packet filter";
    /// A runtime that answers.
    Cri = "CRI", ContainerRuntime, "a container runtime answers";
    /// A kubelet for this machine.
    Kubelet = "Kubelet", Kubelet, "a kubelet for this machine is installed";
    /// What mounts volumes.
    ToolMount = "FileExisting-mount", Kubelet, "mount is installed";
    /// What forgets connections.
    ToolConntrack = "FileExisting-conntrack", Kubelet, "conntrack is installed";
    /// What filters packets.
    ToolPacketFilter = "FileExisting-iptables", Kubelet, "iptables or nft is installed";
    /// The kubelet's port.
    Port10250 = "Port-10250", Network, "the kubelet's port 10250 is free";
    /// What packet filters shut.
    Firewall = "Firewall", Network, "no firewall is in the way of kubelet and pods";
    /// Space for images, pods and logs.
    DiskSpace = "DiskSpace", Storage, "there is space for pods and images";
    /// Files of another join.
    Leftovers = "Leftovers", Leftovers, "no other join has left files";
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is the id of no check.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no check; write `all`, or ids as `berth-agent check -o json` shows them")]
pub struct NotACheck(String);

impl FromStr for CheckId {
    type Err = NotACheck;

    /// Upper and lower case do not differ, as with kubeadm.
    fn from_str(text: &str) -> Result<Self, NotACheck> {
        let text = text.trim();
        Self::ALL
            .into_iter()
            .find(|id| id.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NotACheck(text.chars().take(80).collect()))
    }
}

/// Parses `--ignore-preflight-errors`: ids with commas between, or `all`.
///
/// # Errors
/// Names the first part that is the id of no check.
pub fn ignored(text: &str) -> Result<BTreeSet<CheckId>, NotACheck> {
    let mut ids = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part.eq_ignore_ascii_case("all") {
            ids.extend(CheckId::ALL);
        } else {
            ids.insert(part.parse()?);
        }
    }
    Ok(ids)
}
