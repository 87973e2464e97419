//! Processors, memory, devices and links. What is absent of one of many devices is left out
//! of what is kept: a large machine has hundreds.

use serde::{Deserialize, Deserializer, Serialize};

use super::bounds;

/// Processors of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Who made it: the CPUID vendor on x86 (`GenuineIntel`), the implementer's
    /// name or number on ARM.
    pub vendor: Option<String>,
    /// The model's name, or its part number where it has no name.
    pub model: Option<String>,
    /// The CPU family's number on x86.
    pub family: Option<u32>,
    /// Packages.
    pub sockets: Option<u32>,
    /// Cores of all packages.
    pub cores: Option<u32>,
    /// Hardware threads that are online: Kubernetes' `cpu`.
    pub threads: Option<u32>,
    /// Instruction set features, in the kernel's words: sorted, each once, one space
    /// between them, as [`bounds::features`] leaves them. One text, as there are up to
    /// hundreds of them and nobody asks for one.
    #[serde(deserialize_with = "features")]
    pub features: String,
}

/// What was kept before the features were one text is a list of them.
fn features<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Kept::deserialize(from)? {
        Kept::Text(text) => text,
        Kept::List(words) => bounds::features(&words.join(" ")),
    })
}

/// Main memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Usable memory, in bytes (`MemTotal`).
    pub total_bytes: Option<u64>,
    /// What new work could take without swapping, in bytes (`MemAvailable`).
    pub available_bytes: Option<u64>,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its hardware threads, as the kernel lists them: `0-3,8-11`.
    pub cpus: String,
    /// Its memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Its own pools of huge pages.
    pub huge_pages: Vec<HugePages>,
}

/// A pool of huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugePages {
    /// Bytes in a page.
    pub page_bytes: u64,
    /// Pages in the pool.
    pub total: u64,
    /// Pages nobody has taken.
    pub free: u64,
}

/// A block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    /// The kernel's name: `nvme0n1`.
    pub name: String,
    /// What its maker calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether it spins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    /// How it is attached or made: `nvme`, `scsi`, `virtio`, `mmc`, `xen`,
    /// `device-mapper`, `raid` or `other`.
    pub kind: String,
}

/// A network link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// The interface's name: `eth0`.
    pub name: String,
    /// Link-layer address, as `aa:bb:cc:dd:ee:ff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Speed in megabits a second, where the driver knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// The kernel's operational state (RFC 2863): `up`, `down`, `unknown`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The driver; absent for links without a device behind them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Addresses with prefix length: `192.0.2.7/24`.
    pub addresses: Vec<String>,
}

/// A PCI device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PciDevice {
    /// Domain, bus, device, function: `0000:01:00.0`.
    pub address: String,
    /// Class, subclass and programming interface: `0x030200`.
    pub class: u32,
    /// Vendor number.
    pub vendor_id: u16,
    /// Device number, given by the vendor.
    pub device_id: u16,
    /// The vendor's name, where the host has the PCI id list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// The device's name, where the host has the PCI id list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The driver bound to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The NUMA node it is nearest to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
}

impl PciDevice {
    /// Display controllers (class 03) and processing accelerators (class 12),
    /// PCI Code and ID Assignment Specification.
    #[must_use]
    pub const fn is_gpu(&self) -> bool {
        matches!(self.class >> 16, 0x03 | 0x12)
    }
}

/// A trusted platform module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tpm {
    /// The kernel's name: `tpm0`.
    pub name: String,
    /// Major version of the specification: 1 or 2.
    pub version: Option<u32>,
    /// `sha256:` and the SHA-256, in hexadecimal, of the endorsement key's
    /// SubjectPublicKeyInfo (RSA 2048, TCG EK Credential Profile); as the machine says
    /// it: nothing is attested.
    pub endorsement_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_kept_as_one_text_and_read_from_a_list_too() {
        let cpu = Cpu { features: "fpu sse".to_owned(), ..Cpu::default() };
        let kept = serde_json::to_value(&cpu).expect("plain data");
        assert_eq!(kept["features"], "fpu sse");
        let listed = serde_json::json!({ "features": ["sse", "fpu", "sse"] });
        for document in [kept, listed] {
            assert_eq!(serde_json::from_value::<Cpu>(document).expect("a kept document"), cpu);
        }
        assert_eq!(serde_json::from_str::<Cpu>("{}").expect("no features"), Cpu::default());
        serde_json::from_str::<Cpu>(r#"{"features":7}"#).expect_err("a number is neither");
    }
}
