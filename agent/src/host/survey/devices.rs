//! Disks, PCI devices and the TPM, from sysfs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use berth_domain::facts::{Disk, PciDevice, Tpm, bounds};

use super::{Roots, read};

/// Block devices that hold data: neither loop devices nor memory.
pub(super) fn disks(roots: &Roots) -> Vec<Disk> {
    let block = roots.sys.join("block");
    let holds_data = |name: &String| {
        !["loop", "ram", "zram", "fd", "sr"].iter().any(|kind| read::numbered(name, kind).is_some())
    };
    read::names(&block)
        .into_iter()
        .filter(holds_data)
        .map(|name| {
            let disk = block.join(&name);
            // The kernel counts sectors of 512 bytes, whatever the disk's own are.
            let sectors: Option<u64> = read::number(&disk.join("size"));
            Disk {
                kind: kind(&name).to_owned(),
                model: read::text(&disk.join("device/model")),
                size_bytes: sectors.and_then(|sectors| sectors.checked_mul(512)),
                rotational: read::number::<u8>(&disk.join("queue/rotational")).map(|spins| spins != 0),
                name,
            }
        })
        .collect()
}

fn kind(name: &str) -> &'static str {
    let kinds = [
        ("nvme", "nvme"),
        ("vd", "virtio"),
        ("sd", "scsi"),
        ("mmcblk", "mmc"),
        ("xvd", "xen"),
        ("dm-", "device-mapper"),
        ("md", "raid"),
    ];
    kinds.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or("other", |(_, kind)| kind)
}

pub(super) fn pci_devices(roots: &Roots) -> Vec<PciDevice> {
    let bus = roots.sys.join("bus/pci/devices");
    let mut devices: Vec<PciDevice> = read::names(&bus)
        .into_iter()
        .take(bounds::MOST_PCI_DEVICES)
        .map(|address| {
            let device = bus.join(&address);
            let id = |name| read::text(&device.join(name)).and_then(|text| hexadecimal(&text));
            let short = |name| id(name).and_then(|id| u16::try_from(id).ok()).unwrap_or(0);
            PciDevice {
                class: id("class").unwrap_or(0),
                vendor_id: short("vendor"),
                device_id: short("device"),
                vendor: None,
                device: None,
                driver: read::target_name(&device.join("driver")),
                // The kernel says -1 where there is no nearest node.
                numa_node: read::number(&device.join("numa_node")),
                address,
            }
        })
        .collect();
    name_devices(roots, &mut devices);
    devices
}

pub(super) fn tpm(roots: &Roots) -> Option<Tpm> {
    let class = roots.sys.join("class/tpm");
    let name = read::names(&class).into_iter().find(|name| read::numbered(name, "tpm").is_some())?;
    let version = read::number(&class.join(&name).join("tpm_version_major"));
    Some(Tpm { name, version, endorsement_key: None })
}

/// Puts in the names of vendors and devices where the host has the PCI id list
/// (`pci.ids`: a line `vvvv  Vendor`, then lines `\tdddd  Device`).
fn name_devices(roots: &Roots, devices: &mut [PciDevice]) {
    if devices.is_empty() {
        return;
    }
    let mut vendors = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut vendor = None;
    // The list has more than a megabyte, a machine some dozen devices.
    let wanted = |devices: &[PciDevice], id: u16| devices.iter().any(|device| device.vendor_id == id);
    let lists = ["usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids"];
    let _absent = lists.iter().find_map(|list| {
        read::lines(&roots.live.join(list), |line| {
            if let Some(line) = line.strip_prefix('\t') {
                if let (Some(vendor), Some((id, name))) = (vendor, entry(line))
                    && devices.iter().any(|device| (device.vendor_id, device.device_id) == (vendor, id))
                {
                    names.insert((vendor, id), bounds::text(name));
                }
            } else {
                let found = entry(line).filter(|(id, _)| wanted(devices, *id));
                vendor = found.map(|(id, _)| id);
                vendors.extend(found.map(|(id, name)| (id, bounds::text(name))));
            }
            ControlFlow::Continue(())
        })
    });
    for device in devices {
        device.vendor = vendors.get(&device.vendor_id).cloned();
        device.device = names.get(&(device.vendor_id, device.device_id)).cloned();
    }
}

fn entry(line: &str) -> Option<(u16, &str)> {
    let (id, name) = line.split_once("  ")?;
    (id.len() == 4).then_some(())?;
    Some((u16::from_str_radix(id, 16).ok()?, name))
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
