//! The container runtime: a containerd that nobody else has set up is configured
//! for a kubelet. A runtime that answers already is its owner's, and stays as it is.

use std::path::Path;

use berth_domain::facts::{CgroupVersion, HostFacts};

use super::installed::Installed;
use super::units::{self, CONTAINERD};
use super::{Plan, directory, file, provenance};

/// Where containerd listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// The image that every pod begins with: kubeadm's of Kubernetes 1.36
/// (k/k cmd/kubeadm/app/constants).
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// Plans the runtime's set-up; nothing where there is no containerd, or where a
/// runtime runs that is not Berth's.
#[must_use]
pub fn runtime(facts: &HostFacts, installed: &Installed) -> Plan {
    let Some(program) = installed.binaries.containerd.as_deref().filter(|_| is_ours(facts, installed)) else {
        return Plan::default();
    };
    let mut steps = vec![
        directory("/etc/containerd", 0o755),
        directory("/etc/containerd/conf.d", 0o755),
        file(CONFIGURATION, configuration(facts, installed)),
        directory("/var/lib/containerd", 0o711),
    ];
    steps.extend(units::containerd(&installed.containerd, program));
    let mut plan = Plan { steps, live: Vec::new() };
    plan.live.push(units::running(CONTAINERD, &plan));
    plan
}

/// The image that every pod begins with: the one on the machine, or the usual one.
pub(super) fn pause_image(installed: &Installed) -> &str {
    installed.pause_image.as_deref().unwrap_or(PAUSE_IMAGE)
}

/// Whether Berth sets the runtime up. Facts are of the running system: they say
/// nothing of another root.
fn is_ours(facts: &HostFacts, installed: &Installed) -> bool {
    installed.own_configuration || !installed.live || facts.runtimes.is_empty()
}

/// containerd's configuration, version 3 (containerd 2.0 and later). A file below
/// `conf.d` overrules it.
fn configuration(facts: &HostFacts, installed: &Installed) -> String {
    let word = |path: &Path| path.display().to_string().replace('\'', "");
    let cni = installed.binaries.cni_dir.as_deref().map_or_else(|| CNI_PLUGINS.to_owned(), word);
    let runc = installed.binaries.runc.as_deref().map(word);
    let runc = runc.map_or_else(String::new, |path| format!("BinaryName = '{path}'\n"));
    format!(
        "{}version = 3\n\
         imports = ['/etc/containerd/conf.d/*.toml']\n\
         \n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = '{}'\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         restrict_oom_score_adj = {}\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = ['{cni}']\n\
         conf_dir = '{CNI_CONFIGURATION}'\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         \n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
         {runc}\
         SystemdCgroup = {}\n",
        provenance(None),
        pause_image(installed),
        !may(facts, CAP_SYS_RESOURCE),
        is_systemd_cgroups(facts),
    )
}

/// Whether systemd alone manages the control groups. On cgroup v1 each container
/// would be in hierarchies that systemd does not know, so there runc writes them.
fn is_systemd_cgroups(facts: &HostFacts) -> bool {
    matches!(facts.cgroup.version, Some(CgroupVersion::V2) | None)
}

/// Without it nobody may make a process less likely to be killed for memory, and
/// runc ends when it tries (`capabilities(7)`).
const CAP_SYS_RESOURCE: u32 = 24;

fn may(facts: &HostFacts, capability: u32) -> bool {
    facts.privileges.capabilities.is_none_or(|bits| bits & (1 << capability) != 0)
}

const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// Where CNI plugins are found unless they were found elsewhere.
const CNI_PLUGINS: &str = "/opt/cni/bin";

/// Where the network's configuration is.
pub const CNI_CONFIGURATION: &str = "/etc/cni/net.d";
