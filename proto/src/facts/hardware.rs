//! Processors, memory, devices and links.

use berth_domain::facts::bounds::{MOST_ADDRESSES, MOST_HUGE_PAGE_SIZES};
use berth_domain::facts::{Cpu, Disk, HugePages, Link, Memory, NumaNode, PciDevice, Tpm};

use super::all;
use crate::bounds::{Field, Malformed};
use crate::join::v1;

pub(super) fn cpu_to_wire(cpu: Cpu) -> v1::Cpu {
    v1::Cpu {
        vendor: cpu.vendor,
        model: cpu.model,
        family: cpu.family,
        sockets: cpu.sockets,
        cores: cpu.cores,
        threads: cpu.threads,
        feature_words: cpu.features,
        ..v1::Cpu::default()
    }
}

pub(super) fn cpu_from_wire(wire: v1::Cpu) -> Result<Cpu, Malformed> {
    let field = |name| Field("Cpu", name);
    Ok(Cpu {
        vendor: field("vendor").fact(wire.vendor)?,
        model: field("model").fact(wire.model)?,
        family: wire.family,
        sockets: wire.sockets,
        cores: wire.cores,
        threads: wire.threads,
        features: field("feature_words").features(wire.feature_words)?,
    })
}

pub(super) const fn memory_to_wire(memory: &Memory) -> v1::Memory {
    v1::Memory { total_bytes: memory.total_bytes, available_bytes: memory.available_bytes }
}

pub(super) const fn memory_from_wire(wire: &v1::Memory) -> Memory {
    Memory { total_bytes: wire.total_bytes, available_bytes: wire.available_bytes }
}

pub(super) fn numa_node_to_wire(node: NumaNode) -> v1::NumaNode {
    v1::NumaNode {
        id: node.id,
        cpus: node.cpus,
        memory_bytes: node.memory_bytes,
        huge_pages: all(node.huge_pages, huge_pages_to_wire),
    }
}

pub(super) fn numa_node_from_wire(wire: v1::NumaNode) -> Result<NumaNode, Malformed> {
    let field = |name| Field("NumaNode", name);
    Ok(NumaNode {
        id: wire.id,
        cpus: field("cpus").plain(wire.cpus)?,
        memory_bytes: wire.memory_bytes,
        huge_pages: field("huge_pages").each(wire.huge_pages, MOST_HUGE_PAGE_SIZES, huge_pages_from_wire)?,
    })
}

pub(super) fn huge_pages_to_wire(pool: HugePages) -> v1::HugePages {
    v1::HugePages { page_bytes: pool.page_bytes, total: pool.total, free: pool.free }
}

pub(super) fn huge_pages_from_wire(wire: v1::HugePages) -> Result<HugePages, Malformed> {
    Ok(HugePages { page_bytes: wire.page_bytes, total: wire.total, free: wire.free })
}

pub(super) fn disk_to_wire(disk: Disk) -> v1::Disk {
    v1::Disk {
        name: disk.name,
        model: disk.model,
        size_bytes: disk.size_bytes,
        rotational: disk.rotational,
        kind: disk.kind,
    }
}

pub(super) fn disk_from_wire(wire: v1::Disk) -> Result<Disk, Malformed> {
    let field = |name| Field("Disk", name);
    Ok(Disk {
        name: field("name").plain(wire.name)?,
        model: field("model").fact(wire.model)?,
        size_bytes: wire.size_bytes,
        rotational: wire.rotational,
        kind: field("kind").plain(wire.kind)?,
    })
}

pub(super) fn link_to_wire(link: Link) -> v1::Link {
    v1::Link {
        name: link.name,
        mac: link.mac,
        mtu: link.mtu,
        speed_mbps: link.speed_mbps,
        state: link.state,
        driver: link.driver,
        addresses: link.addresses,
    }
}

pub(super) fn link_from_wire(wire: v1::Link) -> Result<Link, Malformed> {
    let field = |name| Field("Link", name);
    Ok(Link {
        name: field("name").plain(wire.name)?,
        mac: field("mac").fact(wire.mac)?,
        mtu: wire.mtu,
        speed_mbps: wire.speed_mbps,
        state: field("state").fact(wire.state)?,
        driver: field("driver").fact(wire.driver)?,
        addresses: field("addresses").plains(wire.addresses, MOST_ADDRESSES)?,
    })
}

pub(super) fn pci_device_to_wire(device: PciDevice) -> v1::PciDevice {
    v1::PciDevice {
        address: device.address,
        class: device.class,
        vendor_id: device.vendor_id.into(),
        device_id: device.device_id.into(),
        vendor: device.vendor,
        device: device.device,
        driver: device.driver,
        numa_node: device.numa_node,
    }
}

pub(super) fn pci_device_from_wire(wire: v1::PciDevice) -> Result<PciDevice, Malformed> {
    let field = |name| Field("PciDevice", name);
    Ok(PciDevice {
        address: field("address").plain(wire.address)?,
        class: wire.class,
        vendor_id: field("vendor_id").u16(wire.vendor_id)?,
        device_id: field("device_id").u16(wire.device_id)?,
        vendor: field("vendor").fact(wire.vendor)?,
        device: field("device").fact(wire.device)?,
        driver: field("driver").fact(wire.driver)?,
        numa_node: wire.numa_node,
    })
}

pub(super) fn tpm_to_wire(tpm: Tpm) -> v1::Tpm {
    v1::Tpm { name: tpm.name, version: tpm.version, endorsement_key: tpm.endorsement_key }
}

pub(super) fn tpm_from_wire(wire: v1::Tpm) -> Result<Tpm, Malformed> {
    let field = |name| Field("Tpm", name);
    Ok(Tpm {
        name: field("name").plain(wire.name)?,
        version: wire.version,
        endorsement_key: field("endorsement_key").fact(wire.endorsement_key)?,
    })
}
