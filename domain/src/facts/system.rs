//! Architecture, kernel, operating system, identity, privileges.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

use crate::identity::Digest;

/// An architecture for which Kubernetes is built, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 32-bit ARM.
    Arm,
    /// 32-bit x86.
    #[serde(rename = "386")]
    I386,
    /// 64-bit little-endian POWER.
    Ppc64le,
    /// IBM Z.
    S390x,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit LoongArch.
    Loong64,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 8] = [
        Self::Amd64,
        Self::Arm64,
        Self::Arm,
        Self::I386,
        Self::Ppc64le,
        Self::S390x,
        Self::Riscv64,
        Self::Loong64,
    ];

    /// Go's and Kubernetes' name (`GOARCH`), the value of `kubernetes.io/arch`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Arm => "arm",
            Self::I386 => "386",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::Riscv64 => "riscv64",
            Self::Loong64 => "loong64",
        }
    }

    /// From the kernel's word for it (`uname -m`).
    #[must_use]
    pub fn from_machine(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" | "amd64" => Some(Self::Amd64),
            "aarch64" | "arm64" => Some(Self::Arm64),
            "i386" | "i486" | "i586" | "i686" | "x86" => Some(Self::I386),
            "ppc64le" => Some(Self::Ppc64le),
            "s390x" => Some(Self::S390x),
            "riscv64" => Some(Self::Riscv64),
            "loongarch64" => Some(Self::Loong64),
            other => other.starts_with("arm").then_some(Self::Arm),
        }
    }

    /// From the first 20 bytes of a program: `EI_CLASS`, `EI_DATA` and
    /// `e_machine` of the ELF header (System V ABI). `None` for anything that
    /// is no ELF file, or is one for an architecture not known here.
    #[must_use]
    pub fn from_elf_header(header: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = header.get(..20)?.try_into().ok()?;
        let [0x7f, b'E', b'L', b'F', class, data, .., low, high] = *header else { return None };
        let little_endian = data == 1;
        let machine = if little_endian { [low, high] } else { [high, low] };
        match (u16::from_le_bytes(machine), class, little_endian) {
            (62, 2, true) => Some(Self::Amd64),
            (183, 2, true) => Some(Self::Arm64),
            (40, 1, true) => Some(Self::Arm),
            (3, 1, true) => Some(Self::I386),
            (21, 2, true) => Some(Self::Ppc64le),
            (22, 2, false) => Some(Self::S390x),
            (243, 2, true) => Some(Self::Riscv64),
            (258, 2, true) => Some(Self::Loong64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The running kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kernel {
    /// `uname -r`.
    pub release: Option<String>,
    /// `uname -v`.
    pub version: Option<String>,
}

/// What `os-release(5)` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OsRelease {
    /// `ID`: `debian`.
    pub id: Option<String>,
    /// `VERSION_ID`: `12`.
    pub version: Option<String>,
    /// `PRETTY_NAME`: Kubernetes' `osImage`.
    pub pretty_name: Option<String>,
}

/// What tells this machine from others. None of it is a secret, and none of it
/// proves anything: the machine's key does that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// The kernel's host name.
    pub hostname: Option<String>,
    /// The [`app_specific_id`] of `/etc/machine-id`, which itself stays on the machine.
    pub machine_id: Option<Digest>,
    /// SMBIOS product UUID, lower case: Kubernetes' `systemUUID`.
    pub product_uuid: Option<String>,
    /// SMBIOS product name.
    pub product_name: Option<String>,
    /// SMBIOS vendor.
    pub product_vendor: Option<String>,
    /// SMBIOS serial number.
    pub product_serial: Option<String>,
}

/// Which hierarchy the kernel's control groups form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// One hierarchy per controller. Kubelets from 1.35 on refuse it by default.
    V1,
    /// Version 1 with the unified hierarchy mounted beside it, empty: systemd's
    /// "hybrid" mode, which a kubelet takes for version 1.
    Hybrid,
    /// The unified hierarchy.
    V2,
}

/// Control groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cgroup {
    /// The hierarchy; absent where none is mounted.
    pub version: Option<CgroupVersion>,
    /// Controllers at hand, sorted.
    pub controllers: Vec<String>,
}

/// A swap area in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Swap {
    /// File or device.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// The clock, as far as the machine itself can judge it: how wrong its time is
/// shows only against the server's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Clock {
    /// Whether a time service says that it has set the clock; absent where
    /// none could be asked.
    pub synchronised: Option<bool>,
    /// The time service that runs: `systemd-timesyncd`, `chronyd`, `ntpd`.
    pub service: Option<String>,
    /// When the machine was started, seconds since 1970 by its own clock.
    pub boot_time: Option<u64>,
    /// Seconds since it was started, suspended time included.
    pub uptime_seconds: Option<u64>,
    /// What the kernel counts time with: `tsc`, `kvm-clock`.
    pub source: Option<String>,
}

/// What the agent's process may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Privileges {
    /// Effective user id.
    pub uid: Option<u32>,
    /// Effective capabilities, one bit each (`capabilities(7)`).
    pub capabilities: Option<u64>,
}

/// The id that Berth shows in place of a machine-id: HMAC-SHA-256 of Berth's
/// application id with the machine-id as the key, as `machine-id(5)` asks of
/// everyone who would put a machine-id on a network
/// (`sd_id128_get_machine_app_specific`; here the whole digest is kept).
/// `None` when the text is not 32 hexadecimal digits, or is all zero.
#[must_use]
pub fn app_specific_id(machine_id: &str) -> Option<Digest> {
    let id = HEXLOWER_PERMISSIVE.decode(machine_id.trim().as_bytes()).ok()?;
    if id.len() != 16 || id.iter().all(|byte| *byte == 0) {
        return None;
    }
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &id), &APPLICATION_ID);
    Digest::from_slice(tag.as_ref()).ok()
}

/// Berth's application id, drawn at random once. Changing it changes the
/// machine ids of all machines.
const APPLICATION_ID: [u8; 16] =
    [0x6b, 0x0e, 0x53, 0xd9, 0x1c, 0x7a, 0x4f, 0x2e, 0x9d, 0x83, 0xb4, 0x60, 0xfa, 0x25, 0xc8, 0x17];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_itself_is_never_shown() {
        let machine_id = "0123456789abcdef0123456789abcdef";
        let shown = app_specific_id(&format!("{machine_id}\n")).expect("a legal machine-id");
        assert!(!shown.to_hex().contains(machine_id));
        assert_eq!(app_specific_id(machine_id), Some(shown));
        assert_ne!(app_specific_id("0123456789abcdef0123456789abcdee"), Some(shown));
    }

    #[test]
    fn what_is_no_machine_id_gives_no_id() {
        for text in ["", "uninitialized", "0123", &"0".repeat(32), &"a".repeat(33)] {
            assert_eq!(app_specific_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_programs_architecture_is_in_its_header() {
        let mut header = [0_u8; 20];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        header[18] = 183;
        assert_eq!(Arch::from_elf_header(&header), Some(Arch::Arm64));
        header[4..6].copy_from_slice(&[2, 2]);
        header[18..].copy_from_slice(&[0, 22]);
        assert_eq!(Arch::from_elf_header(&header), Some(Arch::S390x));
        assert_eq!(Arch::from_elf_header(b"#!/bin/sh\nexit 1\n####"), None);
        assert_eq!(Arch::from_elf_header(&header[..19]), None);
    }

    #[test]
    fn a_kernels_word_becomes_kubernetes_word() {
        assert_eq!(Arch::from_machine("armv7l"), Some(Arch::Arm));
        assert_eq!(Arch::from_machine("sparc64"), None);
        for arch in Arch::ALL {
            let json = serde_json::to_string(&arch).expect("a string");
            assert_eq!(json, format!("\"{arch}\""));
        }
    }
}
