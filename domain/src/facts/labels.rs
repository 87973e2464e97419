//! The labels that follow from a machine's facts. `kubernetes.io/hostname` is
//! not among them: the server decides the name.

use crate::labels::{LabelKey, LabelValue, Labels};

use super::HostFacts;

/// The well-known labels that a kubelet sets by itself (`kubernetes.io/os`,
/// `kubernetes.io/arch`) and Berth's few descriptive ones, so that pods can ask
/// for a kind of machine. At most ten.
#[must_use]
pub fn labels(facts: &HostFacts) -> Labels {
    let mut labels = Labels::new();
    let mut put = |key: &str, value: Option<String>| {
        let Some(value) = value.map(|value| label_text(&value)).filter(|value| !value.is_empty()) else {
            return;
        };
        if let (Ok(key), Ok(value)) = (key.parse::<LabelKey>(), value.parse::<LabelValue>()) {
            labels.insert(key, value);
        }
    };
    put("kubernetes.io/os", Some("linux".to_owned()));
    put("kubernetes.io/arch", facts.arch.map(|arch| arch.as_str().to_owned()));
    put("berth.dev/cpu-vendor", facts.cpu.vendor.clone());
    put("berth.dev/cpu-family", facts.cpu.family.map(|family| family.to_string()));
    put("berth.dev/os-release", facts.os.id.clone());
    put("berth.dev/virtualization", facts.virtualization.clone());
    put("berth.dev/tpm", facts.tpm.as_ref().and_then(|tpm| tpm.version).map(|version| version.to_string()));

    let vendors: Vec<u16> =
        facts.gpus().filter_map(|gpu| accelerates(gpu.vendor_id).then_some(gpu.vendor_id)).collect();
    put("berth.dev/gpu-vendor", vendors.first().map(|vendor| vendor_name(*vendor)));
    put(
        "berth.dev/gpu-count",
        vendors.first().map(|first| vendors.iter().filter(|vendor| *vendor == first).count().to_string()),
    );
    labels
}

/// Whether a display controller of this vendor can compute. A server's
/// management controller and a hypervisor's frame buffer cannot.
const fn accelerates(vendor: u16) -> bool {
    matches!(vendor, NVIDIA | AMD | INTEL | HABANA)
}

fn vendor_name(vendor: u16) -> String {
    match vendor {
        NVIDIA => "nvidia".to_owned(),
        AMD => "amd".to_owned(),
        INTEL => "intel".to_owned(),
        HABANA => "habana".to_owned(),
        other => format!("pci-{other:04x}"),
    }
}

/// The text with every character that no label value may have replaced, and
/// cut to 63: Kubernetes refuses a Node for one bad label.
fn label_text(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let edge = |c: char| !c.is_ascii_alphanumeric();
    let text: String = text.chars().map(legal).skip_while(|c| edge(*c)).take(63).collect();
    text.trim_end_matches(edge).to_owned()
}

const NVIDIA: u16 = 0x10de;
const AMD: u16 = 0x1002;
const INTEL: u16 = 0x8086;
const HABANA: u16 = 0x1da3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Arch, Cpu, PciDevice};

    fn shown(facts: &HostFacts) -> Vec<String> {
        labels(facts).iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn a_gpu_machine_says_what_it_is() {
        let gpu = |class, vendor_id| PciDevice { class, vendor_id, ..PciDevice::default() };
        let facts = HostFacts {
            arch: Some(Arch::Arm64),
            cpu: Cpu { vendor: Some("AuthenticAMD".to_owned()), family: Some(25), ..Cpu::default() },
            // A BMC's display, two NVIDIA accelerators, and a network card.
            pci_devices: vec![
                gpu(0x03_00_00, 0x1a03),
                gpu(0x03_02_00, 0x10de),
                gpu(0x03_02_00, 0x10de),
                gpu(0x02_00_00, 0x8086),
            ],
            ..HostFacts::default()
        };
        assert_eq!(
            shown(&facts),
            [
                "berth.dev/cpu-family=25",
                "berth.dev/cpu-vendor=AuthenticAMD",
                "berth.dev/gpu-count=2",
                "berth.dev/gpu-vendor=nvidia",
                "kubernetes.io/arch=arm64",
                "kubernetes.io/os=linux",
            ]
        );
    }

    #[test]
    fn whatever_a_machine_says_the_labels_are_legal() {
        for vendor in ["  ", "-", "Ünïcode Gmb H!", &"x".repeat(500), "\u{1b}[31m"] {
            let cpu = Cpu { vendor: Some(vendor.to_owned()), ..Cpu::default() };
            // A label that is not legal is left out; these are, once cleaned, or empty.
            let count = shown(&HostFacts { cpu, ..HostFacts::default() }).len();
            assert_eq!(
                count,
                if vendor.chars().any(|c| c.is_ascii_alphanumeric()) { 2 } else { 1 },
                "{vendor}"
            );
        }
    }
}
