//! What machines stand on: a plain Debian, unpacked once, that each machine lays
//! its own files over; and the parts that make it a node, beside it. Cached
//! outside of any clone; another recipe is another folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::apt;
use crate::parts::{self, Parts};
use crate::process::{command, succeed};
use crate::wanted::PATIENCE;

/// The root that machines have in common, and the parts of a node.
#[derive(Clone, Debug)]
pub struct Ground {
    folder: PathBuf,
}

impl Ground {
    /// Finds it, or makes it: some minutes, once. `say` gets a line about each step.
    ///
    /// # Errors
    /// A package cannot be had, or something does not build.
    pub fn lay(say: &mut dyn FnMut(&str)) -> Result<Self> {
        let folder = cache()?;
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let ground = Self { folder };
        // A second one waits here, and then finds the work done.
        let lock =
            File::create(ground.folder.join(".lock")).context("making the lock of the machines' cache")?;
        lock.lock().context("waiting for another who makes the same root")?;
        ground.step("root", say, debian)?;
        ground.step("parts", say, parts::make)?;
        Ok(ground)
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

    /// Made beside its place and renamed: what is half made is never found.
    fn step(&self, name: &str, say: &mut dyn FnMut(&str), make: fn(&Path) -> Result<()>) -> Result<()> {
        let done = self.folder.join(name);
        if done.exists() {
            return Ok(());
        }
        let began = Instant::now();
        say(&format!("making the {name} of bare machines, once: some minutes"));
        let unfinished = self.folder.join(format!("{name}.new"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("removing {}", unfinished.display()))?;
        }
        make(&unfinished)?;
        fs::rename(&unfinished, &done).with_context(|| format!("putting {name} into its place"))?;
        say(&format!("made the {name} in {} s", began.elapsed().as_secs()));
        Ok(())
    }
}

/// A plain Debian with systemd, and the tools that a kubelet calls.
fn debian(root: &Path) -> Result<()> {
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap.args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
    mmdebstrap.args(["--aptopt=APT::Install-Recommends \"false\"", "--skip=cleanup/reproducible"]);
    for left_out in LEFT_OUT {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={left_out}"));
    }
    mmdebstrap.arg(format!("--include={PACKAGES}")).arg(SUITE).arg(root).arg(apt::source(SUITE)?);
    succeed(mmdebstrap, PATIENCE).context("unpacking the root of bare machines")?;
    Ok(())
}

/// The folder of this recipe's results.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| home.join(".cache")));
    let base = base.context("no place for a cache; to mend: set HOME or XDG_CACHE_HOME")?;
    let recipe = [SUITE, PACKAGES, &LEFT_OUT.join(" "), &parts::recipe()].join("\n");
    let hash = HEXLOWER.encode(digest(&SHA256, recipe.as_bytes()).as_ref());
    Ok(base.join("berth/machine").join(format!("{SUITE}-{}", hash.get(..12).unwrap_or(&hash))))
}

/// The last release whose systemd (257) also starts on cgroup v1.
const SUITE: &str = "trixie";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,iproute2,iptables,nftables,kmod,ca-certificates,\
    conntrack,ethtool,socat,mount,util-linux,procps,e2fsprogs";
/// What nobody reads on a machine that lives for a minute.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];
