//! What machines stand on: a plain Debian, unpacked once, that each machine lays
//! its own files over; the parts that make it a node, beside it; and for virtual
//! machines a disk with the same Debian and a kernel. Cached outside of any clone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt;
use crate::cache::Cache;
use crate::disk::{self, Disk};
use crate::parts::{self, Parts};
use crate::process::{command, succeed};
use crate::wanted::PATIENCE;

/// The root that machines have in common, and the parts of a node.
#[derive(Clone, Debug)]
pub struct Ground {
    folder: PathBuf,
    disk: Option<Disk>,
}

impl Ground {
    /// Finds it, or makes it: some minutes, once. `say` gets a line about each step.
    ///
    /// # Errors
    /// A package cannot be had, or something does not build.
    pub fn lay(say: &mut dyn FnMut(&str)) -> Result<Self> {
        let recipe = [SUITE, PACKAGES, &LEFT_OUT.join(" "), &parts::recipe()].join("\n");
        let cache = Cache::open(SUITE, &recipe)?;
        cache.step("root", say, |root| debian(PACKAGES, root))?;
        cache.step("parts", say, parts::make)?;
        let disk = Cache::place(VIRTUAL, &virtual_recipe())?.join(DISK);
        Ok(Self { folder: cache.folder().to_owned(), disk: disk.exists().then(|| Disk::at(&disk)) })
    }

    /// The same, and what virtual machines stand on too.
    ///
    /// # Errors
    /// As [`Ground::lay`].
    pub fn lay_for_virtual(say: &mut dyn FnMut(&str)) -> Result<Self> {
        let ground = Self::lay(say)?;
        let cache = Cache::open(VIRTUAL, &virtual_recipe())?;
        let packages = format!("{PACKAGES},{}", disk::PACKAGES);
        cache.step(DISK, say, |folder| disk::make(folder, |root| debian(&packages, root)))?;
        Ok(Self { disk: Some(Disk::at(&cache.folder().join(DISK))), ..ground })
    }

    /// The root file system that all machines share, and none changes.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// What a bundle is made of.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts::new(self.folder.join("parts"))
    }

    /// The disk that virtual machines begin with, if it was laid.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }
}

fn virtual_recipe() -> String {
    [SUITE, PACKAGES, &LEFT_OUT.join(" "), &disk::recipe()].join("\n")
}

/// A plain Debian with systemd, and the tools that a kubelet calls.
fn debian(packages: &str, root: &Path) -> Result<()> {
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap.args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
    mmdebstrap.args(["--aptopt=APT::Install-Recommends \"false\"", "--skip=cleanup/reproducible"]);
    for left_out in LEFT_OUT {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={left_out}"));
    }
    mmdebstrap.arg(format!("--include={packages}")).arg(SUITE).arg(root).arg(apt::source(SUITE)?);
    // A kernel is started without an initial disk here, and the making of one takes long.
    succeed(
        {
            mmdebstrap.env("INITRD", "No");
            mmdebstrap
        },
        PATIENCE,
    )
    .context("unpacking the root of bare machines")?;
    Ok(())
}

/// The last release whose systemd (257) also starts on cgroup v1.
const SUITE: &str = "trixie";
/// The cache of what virtual machines stand on, and its one part.
const VIRTUAL: &str = "virtual";
const DISK: &str = "disk";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,iproute2,iptables,nftables,kmod,ca-certificates,\
    conntrack,ethtool,socat,mount,util-linux,procps,e2fsprogs";
/// What nobody reads on a machine that lives for a minute.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];
