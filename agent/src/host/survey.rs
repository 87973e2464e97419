//! Reads the real machine. What cannot be read is an absent fact, never an
//! error: a survey always ends, takes less than a tenth of a second, and runs
//! no program. What has to be asked for (runtimes, the kubelet) is asked by
//! [`complete`], with a deadline each.

mod cpu;
mod cri;
mod devices;
mod endorsement;
mod images;
mod installed;
mod kernel;
mod links;
mod memory;
mod node;
mod ports;
mod read;
mod storage;
mod system;
mod versions;

use std::path::{Path, PathBuf};

use berth_domain::facts::HostFacts;

pub(in crate::host) use images::archives;
pub use installed::installed;
pub(in crate::host) use kernel::{INOTIFY_INSTANCES, sysctl};
pub(in crate::host) use node::{KUBELETS, SOCKETS, program};
pub(in crate::host) use read::{find, lines};
pub use storage::STATE_DIRECTORY;
pub use versions::Versions;

/// Where a survey looks. Facts about the machine come from the live system;
/// only what depends on the directory that files are applied to (space,
/// leftovers) is looked up below `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The proc file system: `/proc`.
    pub proc: PathBuf,
    /// The sysfs: `/sys`.
    pub sys: PathBuf,
    /// The running system's root, for `/etc`, `/run`, `/usr`, `/lib`: `/`.
    pub live: PathBuf,
    /// Where files are applied: `/`, or the directory of `--root`.
    pub host: PathBuf,
}

impl Roots {
    /// The machine that the agent runs on, with files applied below `host`.
    #[must_use]
    pub fn machine(host: &Path) -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), live: "/".into(), host: host.to_owned() }
    }

    /// Whether system calls tell of the same machine as these directories.
    fn is_machine(&self) -> bool {
        self.live == Path::new("/")
    }
}

/// Surveys the machine without asking any other process. Blocks for file reads.
#[must_use]
pub fn survey(roots: &Roots) -> HostFacts {
    let machine = system::machine(roots);
    let release = system::kernel(roots);
    let mounts = storage::Mounts::read(roots);
    let facts = HostFacts {
        arch: machine.as_deref().and_then(berth_domain::facts::Arch::from_machine),
        machine,
        cpu: cpu::cpu(roots),
        memory: memory::memory(roots),
        numa_nodes: memory::numa_nodes(roots),
        huge_pages: memory::huge_pages(&roots.sys.join("kernel/mm/hugepages")),
        disks: devices::disks(roots),
        links: links::links(roots),
        pci_devices: devices::pci_devices(roots),
        tpm: devices::tpm(roots),
        os: system::os_release(roots),
        identity: system::identity(roots),
        virtualization: system::virtualization(roots),
        container: system::container(roots),
        cgroup: kernel::cgroup(roots, &mounts),
        swaps: kernel::swaps(roots),
        clock: system::clock(roots),
        runtimes: node::runtimes(roots),
        kubelet: node::kubelet(roots),
        privileges: kernel::privileges(roots),
        modules: kernel::modules(roots, release.release.as_deref()),
        sysctls: kernel::sysctls(roots),
        directories: storage::directories(roots, &mounts),
        ports: ports::listening(roots),
        tools: node::tools(roots),
        leftovers: storage::leftovers(roots),
        kernel: release,
    };
    facts.bounded()
}

/// Surveys the machine, then asks what only others know: the versions of the
/// runtimes found (CRI `Version`, at most 1 s) and of the kubelet (at most 2 s),
/// the TPM's endorsement key (at most 1 s), all at once. A program that `versions` has
/// heard before is not run again.
pub async fn complete(roots: &Roots, versions: &Versions) -> HostFacts {
    let blocking = roots.clone();
    let mut facts = tokio::task::spawn_blocking(move || survey(&blocking)).await.unwrap_or_default();
    let runtimes = std::mem::take(&mut facts.runtimes);
    let version = node::kubelet_version(roots, facts.kubelet.as_ref(), facts.arch, versions);
    let endorsement = endorsement::key(roots, facts.tpm.as_ref());
    let (runtimes, version, endorsement) = tokio::join!(cri::ask_all(roots, runtimes), version, endorsement);
    facts.runtimes = runtimes;
    if let Some(tpm) = &mut facts.tpm {
        tpm.endorsement_key = endorsement;
    }
    if let Some(kubelet) = &mut facts.kubelet {
        kubelet.version = version;
    }
    facts.bounded()
}

#[cfg(test)]
mod distributions;
#[cfg(test)]
mod tests;
