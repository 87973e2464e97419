//! Mounts, the space for what a node fills, and what other joins have left.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use berth_domain::facts::{Directory, Leftover, Owner};
use rustix::fs::StatVfsMountFlags;

use super::{Roots, read};

/// Where an agent keeps its own state, on every machine. A directory that is
/// there and is not the running agent's own tells of an older Berth.
pub const STATE_DIRECTORY: &str = "/var/lib/berth";

/// Directories that fill: the kubelet's, the runtimes', and those of the files
/// that a join writes.
const DIRECTORIES: [&str; 5] =
    ["/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods", "/etc/kubernetes", "/opt/cni/bin"];

/// What each way of joining leaves. One path is enough to tell whose it is.
const LEFTOVERS: [(Owner, &str); 17] = [
    (Owner::Kubeadm, "/etc/kubernetes/kubelet.conf"),
    (Owner::Kubeadm, "/etc/kubernetes/bootstrap-kubelet.conf"),
    (Owner::Kubeadm, "/etc/kubernetes/admin.conf"),
    (Owner::Kubeadm, "/etc/kubernetes/pki/ca.crt"),
    (Owner::Kubeadm, "/etc/kubernetes/manifests/kube-apiserver.yaml"),
    (Owner::Kubeadm, "/var/lib/kubelet/config.yaml"),
    (Owner::Kubeadm, "/var/lib/kubelet/kubeadm-flags.env"),
    (Owner::Kubeadm, "/var/lib/kubelet/pki/kubelet-client-current.pem"),
    (Owner::K3s, "/var/lib/rancher/k3s/agent"),
    (Owner::K3s, "/var/lib/rancher/k3s/server"),
    (Owner::K3s, "/etc/rancher/k3s/k3s.yaml"),
    (Owner::Rke2, "/var/lib/rancher/rke2/agent"),
    (Owner::Rke2, "/var/lib/rancher/rke2/server"),
    (Owner::Rke2, "/etc/rancher/rke2/rke2.yaml"),
    (Owner::K0s, "/var/lib/k0s"),
    (Owner::MicroK8s, "/var/snap/microk8s/current"),
    (Owner::Berth, STATE_DIRECTORY),
];

/// What kubeadm writes and Berth never does.
const KUBEADM_ONLY: [&str; 3] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
];

/// The mounted file systems.
pub(super) struct Mounts {
    types: BTreeMap<PathBuf, String>,
}

impl Mounts {
    pub(super) fn read(roots: &Roots) -> Self {
        let mut types = BTreeMap::new();
        let _absent = read::lines(&roots.proc.join("self/mountinfo"), |line| {
            // A later mount on the same point hides the earlier one.
            types.extend(mount(line));
            ControlFlow::Continue(())
        });
        Self { types }
    }

    /// The type of the file system that is mounted on exactly this path.
    pub(super) fn type_of(&self, path: &str) -> Option<&str> {
        self.types.get(Path::new(path)).map(String::as_str)
    }

    /// The type of the file system that holds this path.
    fn type_holding(&self, path: &Path) -> Option<&str> {
        path.ancestors().find_map(|ancestor| self.types.get(ancestor)).map(String::as_str)
    }
}

/// Mount point and type of a line of `/proc/self/mountinfo`: the point is the fifth
/// field, the type the first behind the dash that ends the optional fields (proc(5)).
fn mount(line: &str) -> Option<(PathBuf, String)> {
    let (mount, source) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    Some((point.into(), source.split(' ').next()?.to_owned()))
}

/// The space for each directory; where it is not there yet, the space of the
/// nearest ancestor that is, which will hold it.
pub(super) fn directories(roots: &Roots, mounts: &Mounts) -> Vec<Directory> {
    let space = |path: &&str| {
        let wanted = read::below(&roots.host, path);
        let existing = wanted.ancestors().find(|ancestor| ancestor.exists())?.canonicalize().ok()?;
        let found = rustix::fs::statvfs(&existing).ok()?;
        Some(Directory {
            path: (*path).to_owned(),
            total_bytes: found.f_blocks.checked_mul(found.f_frsize)?,
            available_bytes: found.f_bavail.checked_mul(found.f_frsize)?,
            total_inodes: found.f_files,
            available_inodes: found.f_favail,
            file_system: mounts.type_holding(&existing).map(ToOwned::to_owned),
            read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    };
    DIRECTORIES.iter().filter_map(space).collect()
}

/// The files that other ways of joining have left below the host's root.
pub(super) fn leftovers(roots: &Roots) -> Vec<Leftover> {
    let found = LEFTOVERS.iter().filter(|(_, path)| is_left(&read::below(&roots.host, path)));
    let mut found: Vec<Leftover> =
        found.map(|(owner, path)| Leftover { owner: *owner, path: (*path).to_owned() }).collect();
    // Berth writes kubeadm's layout: without a file that only kubeadm writes,
    // and with a Berth beside them, the files are Berth's.
    let is_kubeadms = found.iter().any(|leftover| KUBEADM_ONLY.contains(&leftover.path.as_str()));
    let is_berths = found.iter().any(|leftover| leftover.owner == Owner::Berth);
    if is_berths && !is_kubeadms {
        found
            .iter_mut()
            .filter(|leftover| leftover.owner == Owner::Kubeadm)
            .for_each(|leftover| leftover.owner = Owner::Berth);
    }
    found
}

/// Whether something is there: an empty directory is nothing (packages and
/// units make those), and a dangling link is something.
fn is_left(path: &Path) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    !metadata.is_dir() || path.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}
