//! A node's software below the root that files are applied to.

use std::path::{Path, PathBuf};

use super::node::{KUBELETS, first, program};
use super::{Roots, images, read, system};
use crate::plan::{AGENT, Binaries, CONTAINERD, Installed, KUBELET, Unit, WANTS, WRITTEN};

/// Looks for it. `owned` says whether a file is Berth's. Blocks for file reads.
#[must_use]
pub fn installed(roots: &Roots, owned: &dyn Fn(&Path) -> bool) -> Installed {
    let root = &roots.host;
    let named = |name| program(root, name).map(PathBuf::from);
    Installed {
        distribution: system::distribution(root),
        binaries: Binaries {
            kubelet: first(root, &KUBELETS).map(PathBuf::from),
            containerd: named("containerd"),
            runc: named("runc"),
            cni_dir: CNI_DIRECTORIES.iter().find(|path| has_plugins(root, path)).map(PathBuf::from),
        },
        containerd: unit(root, CONTAINERD, owned),
        kubelet: unit(root, KUBELET, owned),
        agent: unit(root, AGENT, owned),
        own_configuration: owned(Path::new("/etc/containerd/config.toml")),
        pause_image: images::pause(root),
        resolv_conf: read::below(root, RESOLV_CONF).is_file().then(|| RESOLV_CONF.into()),
        live: root == Path::new("/"),
    }
}

/// A unit that somebody else has brought, and whether somebody else enables it.
fn unit(root: &Path, name: &str, owned: &dyn Fn(&Path) -> bool) -> Unit {
    let is_theirs = |path: &PathBuf| {
        read::below(root, &path.to_string_lossy()).symlink_metadata().is_ok() && !owned(path)
    };
    // A unit that came in a bundle is in Berth's record too, and is not the agent's to
    // write anew.
    let is_brought = |path: &PathBuf| {
        let text = std::fs::read_to_string(read::below(root, &path.to_string_lossy())).unwrap_or_default();
        is_theirs(path) || !(text.is_empty() || text.starts_with(WRITTEN))
    };
    let mut paths = UNIT_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    Unit { fragment: paths.find(is_brought), enabled: is_theirs(&Path::new(WANTS).join(name)) }
}

/// Whether the plugin that every pod needs is there.
fn has_plugins(root: &Path, directory: &str) -> bool {
    read::below(root, directory).join("loopback").is_file()
}

/// The upstream's place for CNI plugins, then those of distributions' packages.
const CNI_DIRECTORIES: [&str; 4] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni"];

/// Where systemd looks for units, in its order (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// systemd-resolved's list of the real name servers (systemd-resolved.service(8)).
const RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
