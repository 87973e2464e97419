//! What initialization changes: the modules and settings that a node needs from
//! the next boot on and now, and the directories that every node has.

use berth_domain::facts::{HostFacts, ModuleState};

use super::{Live, Plan, directory, file, provenance};

/// Plans the host's preparation.
#[must_use]
pub fn host(facts: &HostFacts) -> Plan {
    let mut steps = vec![
        directory("/etc/modules-load.d", 0o755),
        file(MODULES_FILE, modules(facts)),
        directory("/etc/sysctl.d", 0o755),
        file(SYSCTL_FILE, sysctls()),
    ];
    steps.extend(DIRECTORIES.map(|(path, mode)| directory(path, mode)));
    Plan { steps, live: live(facts) }
}

/// What the running kernel lacks of it. A setting that comes with a module is there
/// once the module is loaded; another that is not there is not this kernel's.
fn live(facts: &HostFacts) -> Vec<Live> {
    let is_available = |name: &str| facts.modules.get(name) == Some(&ModuleState::Available);
    let modules = MODULES.into_iter().filter(|name| is_available(name)).map(|name| Live::Module { name });
    let is_wanting = |name: &str, value: &str| match facts.sysctls.get(name) {
        Some(found) => found != value,
        None => name.starts_with("net.bridge.") && is_available("br_netfilter"),
    };
    let settings = SYSCTLS
        .into_iter()
        .filter(|(name, value)| is_wanting(name, value))
        .map(|(name, value)| Live::Setting { name, value });
    modules.chain(settings).collect()
}

/// `modules-load.d(5)`. What is part of the kernel needs no loading.
fn modules(facts: &HostFacts) -> String {
    let needed = MODULES.iter().filter(|name| match facts.modules.get(**name) {
        Some(ModuleState::Builtin) => false,
        Some(ModuleState::Loaded | ModuleState::Available | ModuleState::Absent) | None => true,
    });
    needed.fold(provenance(None), |text, name| text + name + "\n")
}

/// `sysctl.d(5)`.
fn sysctls() -> String {
    SYSCTLS.iter().fold(provenance(None), |text, (name, value)| format!("{text}{name} = {value}\n"))
}

const MODULES_FILE: &str = "/etc/modules-load.d/berth.conf";

const SYSCTL_FILE: &str = "/etc/sysctl.d/90-berth.conf";

/// The images' file system, and filtering of bridged packets.
const MODULES: [&str; 2] = ["overlay", "br_netfilter"];

/// Kubernetes' network requirements of a node.
const SYSCTLS: [(&str, &str); 4] = [
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
];

/// kubeadm's layout, and where CNI looks.
const DIRECTORIES: [(&str, u32); 8] = [
    ("/etc/kubernetes", 0o755),
    ("/etc/kubernetes/kubelet.conf.d", 0o755),
    ("/etc/kubernetes/manifests", 0o755),
    ("/etc/kubernetes/pki", 0o755),
    ("/var/lib/kubelet", 0o750),
    ("/var/lib/kubelet/pki", 0o700),
    ("/etc/cni", 0o755),
    ("/etc/cni/net.d", 0o755),
];
