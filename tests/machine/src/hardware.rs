//! What QEMU is told to be: the hardware of a virtual machine, and how it is run,
//! by the processor itself where that is proven to work and by emulation elsewhere.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::disk::Disk;
use crate::network;
use crate::process::{command, finish};

/// One virtual machine.
pub(crate) struct Hardware<'a> {
    pub(crate) name: &'a str,
    pub(crate) number: u8,
    /// The kernel it starts.
    pub(crate) disk: &'a Disk,
    /// Its own changes to that disk.
    pub(crate) changes: &'a Path,
    /// An archive that it sees as another drive.
    pub(crate) files: Option<&'a Path>,
    /// Where its TPM is spoken to.
    pub(crate) tpm: &'a Path,
    /// Where its console is written.
    pub(crate) console: &'a Path,
}

impl Hardware<'_> {
    /// The command that runs it, in the network that its line is in.
    ///
    /// # Errors
    /// It cannot be found out how machines run here.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut qemu = command(QEMU);
        let text = |path: &Path| path.display().to_string();
        qemu.args(["-name", self.name]).args(Speed::of_this_host(self.disk)?.words());
        qemu.args(["-smp", "2", "-m", MEMORY, "-machine", "q35"]).args(BARE);
        qemu.arg("-kernel").arg(self.disk.kernel()).arg("-append").arg(self.kernel_line());
        // A write that the guest has not flushed may be lost when QEMU is killed, as in a
        // power cut; one that it has flushed is in the host's file, which lives on.
        let changes = text(self.changes);
        qemu.args(["-drive", &format!("if=none,id=root,file={changes},format=qcow2,cache=writeback")]);
        qemu.args(["-device", "nvme,drive=root,serial=root"]);
        if let Some(files) = self.files {
            let files = text(files);
            qemu.args(["-drive", &format!("if=none,id=files,file={files},format=raw,readonly=on")]);
            qemu.args(["-device", "virtio-blk-pci,drive=files"]);
        }
        let (line, number) = (network::line(self.number), self.number);
        qemu.args(["-netdev", &format!("tap,id=net,ifname={line},script=no,downscript=no")]);
        qemu.args([
            "-device",
            &format!("virtio-net-pci,netdev=net,romfile=,mac=52:54:00:4d:00:{number:02x}"),
        ]);
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu.args(["-uuid", &format!("00000000-0000-4000-8000-0000000000{number:02x}")]);
        qemu.args(["-chardev", &format!("socket,id=tpm,path={}", text(self.tpm))]);
        qemu.args(["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm"]);
        let console = format!("file,id=console,path={},append=on", text(self.console));
        qemu.args(["-chardev", &console, "-serial", "chardev:console"]);
        Ok(qemu)
    }

    /// The kernel's command line; systemd makes the network's configuration of `ip=`.
    fn kernel_line(&self) -> String {
        let (name, own, gateway) = (self.name, network::address(self.number), network::CONTROL);
        let mask = Ipv4Addr::new(255, 255, 255, 0);
        format!(
            "root=/dev/nvme0n1 rw console=ttyS0 quiet mitigations=off panic=-1 net.ifnames=0 \
             systemd.hostname={name} ip={own}::{gateway}:{mask}:{name}:eth0:none"
        )
    }
}

/// How fast machines run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    /// By the processor.
    Kvm,
    /// By emulation, some twenty times slower.
    Emulated,
}

impl Speed {
    /// Found out once for each start of this host: `/dev/kvm` may be there and run no
    /// usual kernel.
    fn of_this_host(disk: &Disk) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Emulated);
        }
        let start = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("telling this start")?;
        let note = disk.note(&format!("kvm-{}", start.trim()));
        if let Ok(works) = fs::read_to_string(&note) {
            return Ok(if works == WORKS { Self::Kvm } else { Self::Emulated });
        }
        let works = kvm_runs(disk);
        fs::write(&note, if works { WORKS } else { "no" }).context("noting whether KVM works")?;
        Ok(if works { Self::Kvm } else { Self::Emulated })
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => KVM,
            // cmpxchg16b is broken in the emulation of QEMU 7.2.
            Self::Emulated => &["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
        }
    }
}

/// Whether the kernel comes as far as to miss its root, and ends.
fn kvm_runs(disk: &Disk) -> bool {
    let mut qemu = command(QEMU);
    qemu.args(KVM).args(["-m", "256", "-machine", "q35"]).args(BARE).arg("-kernel").arg(disk.kernel());
    qemu.args(["-append", "console=ttyS0 panic=-1", "-serial", "stdio"]);
    finish(qemu, PROVEN_WITHIN).is_ok_and(|ran| ran.stdout.contains("Unable to mount root"))
}

/// What a test needs of the hardware: the folder of a machine has room for its names.
pub(crate) fn console_of(folder: &Path) -> PathBuf {
    folder.join("console")
}

const QEMU: &str = "qemu-system-x86_64";
const KVM: &[&str] = &["-accel", "kvm", "-cpu", "host"];
/// Nothing that is not asked for, and no start after an end.
const BARE: [&str; 5] = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"];
/// MiB of memory.
const MEMORY: &str = "2048";
/// A processor that works is done in two or three seconds.
const PROVEN_WITHIN: Duration = Duration::from_secs(20);
const WORKS: &str = "yes";
