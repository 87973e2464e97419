//! The disk that virtual machines begin with: the Debian of all machines with a
//! kernel of its own and a way in, as one file system; and beside it the kernel, which
//! starts without a boot loader or an initial disk: what it needs to mount a root
//! from NVMe is built in.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{SOON, command, succeed};
use crate::wanted::PATIENCE;

/// A disk, its kernel, and the key that opens the machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The file system, which machines lay their own changes over.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    /// The private key of root's way in.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// A file beside it, for what was found out about it here.
    pub(crate) fn note(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Makes all of it in a new folder; `debian` unpacks the root.
pub(crate) fn make(folder: &Path, debian: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))?;
    let root = folder.join("root");
    debian(&root)?;
    take_kernel(&root, &folder.join(KERNEL))?;
    let mut keygen = command("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "berth", "-f"]).arg(folder.join(KEY));
    succeed(keygen, SOON).context("making the key of a machine")?;
    let public = folder.join(format!("{KEY}.pub"));
    furnish(&root, &fs::read_to_string(public).context("reading the key of a machine")?)?;
    let image = folder.join(IMAGE);
    let file = File::create(&image).context("making a disk")?;
    file.set_len(SIZE).context("making a disk")?;
    let mut mke2fs = command("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]).arg(&root).arg(&image);
    succeed(mke2fs, PATIENCE).context("making a file system")?;
    fs::remove_dir_all(&root).context("removing what is on the disk now")
}

/// Moves the one kernel out of the root, which needs none of `/boot`.
fn take_kernel(root: &Path, to: &Path) -> Result<()> {
    let boot = root.join("boot");
    let kernel = fs::read_dir(&boot).context("reading /boot of a machine")?.flatten();
    let kernel = kernel
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
    fs::copy(kernel.context("the root has no kernel")?, to).context("taking the kernel")?;
    for entry in fs::read_dir(&boot).context("reading /boot of a machine")?.flatten() {
        fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
    }
    Ok(())
}

/// A way in for root, an address from the kernel's command line, and no work that
/// nobody waits for.
fn furnish(root: &Path, key: &str) -> Result<()> {
    let etc = root.join("etc");
    let units = etc.join("systemd/system");
    for wants in ["sysinit.target.wants", "multi-user.target.wants"] {
        fs::create_dir_all(units.join(wants)).context("making a machine's files")?;
    }
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).with_context(|| format!("masking {unit}"))?;
    }
    for (wants, unit) in ENABLED {
        let link = units.join(wants).join(unit);
        if !link.is_symlink() {
            symlink(format!("/usr/lib/systemd/system/{unit}"), link)
                .with_context(|| format!("enabling {unit}"))?;
        }
    }
    let ssh = root.join("root/.ssh");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&ssh).context("making a machine's files")?;
    for (path, mode, text) in [
        (ssh.join("authorized_keys"), 0o600, key),
        (etc.join("ssh/sshd_config.d/machine.conf"), 0o644, SSHD),
        (etc.join("fstab"), 0o644, "/dev/nvme0n1 / ext4 defaults 0 0\n"),
        (etc.join("hostname"), 0o644, "localhost\n"),
        (etc.join("hosts"), 0o644, "127.0.0.1 localhost\n"),
        (etc.join("resolv.conf"), 0o644, "nameserver 10.77.0.1\n"),
        // Empty: each machine gets its own at its first start, from its hardware's.
        (etc.join("machine-id"), 0o444, ""),
        (etc.join("modprobe.d/machine.conf"), 0o644, UNUSED_MODULES),
    ] {
        // A link would lead to a file of this host.
        let _absent = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What another folder in the cache is made for.
pub(crate) fn recipe() -> String {
    let enabled = ENABLED.map(|(wants, unit)| format!("{wants}/{unit}")).join(" ");
    [PACKAGES, &MASKED.join(" "), &enabled, SSHD, UNUSED_MODULES, &SIZE.to_string(), RECIPE].join("\n")
}

/// Counts what changes here without another word above changing.
const RECIPE: &str = "1";
/// A kernel for virtual hardware, and the way in.
pub(crate) const PACKAGES: &str = "linux-image-cloud-amd64,openssh-server";
const IMAGE: &str = "root.ext4";
const KERNEL: &str = "vmlinuz";
const KEY: &str = "key";
/// Bytes of the disk; its file holds no more than what was written.
const SIZE: u64 = 6 << 30;
const SSHD: &str = "UseDNS no\nPrintMotd no\nPrintLastLog no\nMaxSessions 64\n\
    SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
/// Modules for hardware that QEMU shows, and that no test looks at.
const UNUSED_MODULES: &str = "blacklist kvm_amd\nblacklist kvm_intel\nblacklist kvm\nblacklist i2c_i801\n\
    blacklist ahci\nblacklist psmouse\nblacklist pcspkr\n";
const ENABLED: [(&str, &str); 2] = [
    ("sysinit.target.wants", "systemd-network-generator.service"),
    ("multi-user.target.wants", "systemd-networkd.service"),
];
const MASKED: [&str; 10] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-timesyncd.service",
];
