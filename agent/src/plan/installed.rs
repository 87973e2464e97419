//! What of a node's software stands below the root: the evidence from which
//! runtime and kubelet are set up.

use std::path::PathBuf;

use super::Distribution;

/// A node's software, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// The distribution's family.
    pub distribution: &'static Distribution,
    /// Programs.
    pub binaries: Binaries,
    /// The unit of containerd.
    pub containerd: Unit,
    /// The unit of the kubelet.
    pub kubelet: Unit,
    /// The unit of this agent.
    pub agent: Unit,
    /// Whether containerd's configuration is Berth's.
    pub own_configuration: bool,
    /// The image that every pod begins with, where it lies on the machine.
    pub pause_image: Option<String>,
    /// The list of name servers for pods, where the usual one names a resolver that
    /// only this machine reaches (systemd-resolved's stub).
    pub resolv_conf: Option<PathBuf>,
    /// Whether the root is the running system: nothing is loaded, set or started
    /// elsewhere.
    pub live: bool,
}

/// Where the programs are, as the node sees them; absent where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binaries {
    /// The kubelet.
    pub kubelet: Option<PathBuf>,
    /// containerd.
    pub containerd: Option<PathBuf>,
    /// runc.
    pub runc: Option<PathBuf>,
    /// The directory of the CNI plugins.
    pub cni_dir: Option<PathBuf>,
}

/// A unit of the service manager, as its files are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its file, where it is somebody else's.
    pub fragment: Option<PathBuf>,
    /// Whether somebody else has enabled it.
    pub enabled: bool,
}
