//! What is on the host that has to do with being a node.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Arch;

/// How a container runtime behaved when it was asked for its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeState {
    /// Its socket exists; it was not asked.
    #[default]
    SocketFound,
    /// It answers CRI `Version`.
    Answers,
    /// It answers, and says that CRI is not implemented: containerd with its CRI plugin
    /// switched off, or one that could not load.
    CriDisabled,
    /// Nothing answered within the deadline, or nobody listens.
    Silent,
}

/// A container runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// What it calls itself, or what usually listens on this socket.
    pub name: String,
    /// The path of its socket.
    pub socket: String,
    /// Its version, when it answered.
    pub version: Option<String>,
    /// How it behaved.
    pub state: RuntimeState,
    /// Why its CRI plugin could not load, in its own words.
    pub problem: Option<String>,
}

/// An installed kubelet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kubelet {
    /// Where it is.
    pub path: String,
    /// The architecture it is built for, from its ELF header; absent for a
    /// file that is no program for an architecture that Kubernetes knows.
    pub arch: Option<Arch>,
    /// What `kubelet --version` prints, without the word in front: `v1.36.1`.
    pub version: Option<String>,
}

/// Where a kernel module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleState {
    /// Loaded.
    Loaded,
    /// Part of the kernel.
    Builtin,
    /// Among the kernel's module files.
    Available,
    /// Nowhere.
    Absent,
}

impl ModuleState {
    /// The state as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Builtin => "builtin",
            Self::Available => "available",
            Self::Absent => "absent",
        }
    }
}

/// A directory that a node fills, and the file system that holds or would hold it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Directory {
    /// The path as the node will see it.
    pub path: String,
    /// Size of its file system in bytes.
    pub total_bytes: u64,
    /// What an unprivileged process could still write, in bytes.
    pub available_bytes: u64,
    /// Inodes of the file system; 0 where it counts none.
    pub total_inodes: u64,
    /// Inodes that are free.
    pub available_inodes: u64,
    /// The file system's type: `ext4`.
    pub file_system: Option<String>,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// A process that holds something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// A port on which something listens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListeningPort {
    /// The TCP port.
    pub port: u16,
    /// Who listens, where the agent may see it.
    pub holder: Option<Holder>,
}

/// Whose way of joining left a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// kubeadm, or another tool that uses its layout.
    Kubeadm,
    /// k3s.
    K3s,
    /// RKE2.
    Rke2,
    /// k0s.
    K0s,
    /// MicroK8s.
    MicroK8s,
    /// Berth.
    Berth,
}

impl Owner {
    /// Every owner.
    pub const ALL: [Self; 6] = [Self::Kubeadm, Self::K3s, Self::Rke2, Self::K0s, Self::MicroK8s, Self::Berth];

    /// The name as its makers write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::MicroK8s => "microk8s",
            Self::Berth => "an older Berth",
        }
    }

    /// The command that takes its files away.
    #[must_use]
    pub const fn undo(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm reset",
            Self::K3s => "k3s-agent-uninstall.sh (k3s-uninstall.sh on a k3s server)",
            Self::Rke2 => "rke2-uninstall.sh",
            Self::K0s => "k0s reset",
            Self::MicroK8s => "snap remove --purge microk8s",
            Self::Berth => "berth-agent reset",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A file that another way of joining has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// Whose it is.
    pub owner: Owner,
    /// Where it lies, as the node would see it.
    pub path: String,
}
