//! What makes a bare machine a node, as a bundle takes it: kubelet, container
//! runtime, network plugins, images. None of it is on the machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use berth_kubernetes::{Program, Programs, module_folder, version};

use crate::apt::Suite;
use crate::image::{self, Image};
use crate::process::{command, succeed};
use crate::wanted::PATIENCE;

/// The parts, in a folder: `bin`, `cni` and `images`.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
}

impl Parts {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of all that comes with the runtime: `bin/containerd`,
    /// `bin/containerd-shim-runc-v2`, `bin/ctr`, `bin/runc`; `cni/bridge` and its like;
    /// `images/pause.tar` and `images/busybox.tar`, as `ctr images import` takes them.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kubelet.
    ///
    /// # Errors
    /// It is not built.
    pub fn kubelet(&self) -> Result<PathBuf> {
        Programs::of_this_machine()?.path(Program::Kubelet)
    }
}

/// Fetches and makes all but the kubelet.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("berth-parts-").tempdir().context("making a folder")?;
    let packages = work.path().join("packages");
    Suite::listed(SUITE, &work.path().join("apt"))?.unpacked(&PACKAGES, &packages)?;
    for (from, to) in TAKEN {
        let to = folder.join(to);
        let parent = to.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let from = packages.join(from);
        fs::copy(&from, &to).with_context(|| format!("taking {}", from.display()))?;
    }
    let images = folder.join("images");
    fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    let files = work.path().join("pause");
    fs::create_dir(&files).context("making the folder of an image")?;
    compile_pause(&files.join("pause"))?;
    image::write(&Image { name: PAUSE, entrypoint: &["/pause"], files: &files }, &images.join("pause.tar"))?;
    let files = work.path().join("busybox");
    let bin = files.join("bin");
    fs::create_dir_all(&bin).context("making the folder of an image")?;
    fs::copy(packages.join(BUSYBOX), bin.join("busybox")).context("taking busybox")?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).with_context(|| format!("linking {applet} to busybox"))?;
    }
    image::write(&Image { name: PODS, entrypoint: &["/bin/sh"], files: &files }, &images.join("busybox.tar"))
}

/// The pause program from the pinned Kubernetes' own source.
fn compile_pause(to: &Path) -> Result<()> {
    let source = module_folder("k8s.io/kubernetes")?.join("build/pause/linux/pause.c");
    let mut cc = command("cc");
    cc.args(["-Os", "-Wall", "-static", &format!("-DVERSION={}", version()), "-o"]).arg(to).arg(source);
    succeed(cc, PATIENCE).context("compiling pause")?;
    Ok(())
}

/// What another folder in the cache is made for.
pub(crate) fn recipe() -> String {
    let taken = TAKEN.map(|(from, to)| format!("{from} {to}")).join("\n");
    [SUITE, &PACKAGES.join(" "), &taken, PAUSE, PODS, &APPLETS.join(" "), version()].join("\n")
}

/// The image that holds a pod's namespaces: the project's own build of upstream's
/// source, so not under upstream's name.
pub const PAUSE: &str = "localhost/berth/pause:1";
/// The image for pods of tests: a shell, a web server, a web client.
pub const PODS: &str = "localhost/berth/busybox:1";

/// The suite with a containerd that this kubelet wants (2.x), whose programs run
/// on the C library of the machines' root.
const SUITE: &str = "forky";
const PACKAGES: [&str; 4] = ["containerd", "runc", "containernetworking-plugins", "busybox-static"];
const BUSYBOX: &str = "busybox-static/usr/bin/busybox";
/// Files of packages, and their places in the folder.
const TAKEN: [(&str, &str); 9] = [
    ("containerd/usr/bin/containerd", "bin/containerd"),
    ("containerd/usr/bin/containerd-shim-runc-v2", "bin/containerd-shim-runc-v2"),
    ("containerd/usr/bin/ctr", "bin/ctr"),
    ("runc/usr/sbin/runc", "bin/runc"),
    ("containernetworking-plugins/usr/lib/cni/bridge", "cni/bridge"),
    ("containernetworking-plugins/usr/lib/cni/host-local", "cni/host-local"),
    ("containernetworking-plugins/usr/lib/cni/loopback", "cni/loopback"),
    ("containernetworking-plugins/usr/lib/cni/portmap", "cni/portmap"),
    ("containernetworking-plugins/usr/lib/cni/firewall", "cni/firewall"),
];
const APPLETS: [&str; 11] =
    ["sh", "httpd", "wget", "sleep", "cat", "echo", "hostname", "id", "ip", "mkdir", "ls"];
