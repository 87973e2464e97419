//! Architecture, kernel, operating system, identity, privileges.

use berth_domain::facts::bounds::MOST_CONTROLLERS;
use berth_domain::facts::{
    Arch, Cgroup, CgroupVersion, Clock, Identity, Kernel, OsRelease, Privileges, Swap,
};
use berth_domain::identity::Digest;

use crate::bounds::{Field, Malformed};
use crate::join::v1;

pub(super) const fn arch_to_wire(arch: Option<Arch>) -> v1::Arch {
    match arch {
        None => v1::Arch::Unspecified,
        Some(Arch::Amd64) => v1::Arch::Amd64,
        Some(Arch::Arm64) => v1::Arch::Arm64,
        Some(Arch::Arm) => v1::Arch::Arm,
        Some(Arch::I386) => v1::Arch::I386,
        Some(Arch::Ppc64le) => v1::Arch::Ppc64le,
        Some(Arch::S390x) => v1::Arch::S390x,
        Some(Arch::Riscv64) => v1::Arch::Riscv64,
        Some(Arch::Loong64) => v1::Arch::Loong64,
    }
}

pub(super) fn arch_from_wire(wire: i32) -> Option<Arch> {
    match v1::Arch::try_from(wire) {
        Ok(v1::Arch::Amd64) => Some(Arch::Amd64),
        Ok(v1::Arch::Arm64) => Some(Arch::Arm64),
        Ok(v1::Arch::Arm) => Some(Arch::Arm),
        Ok(v1::Arch::I386) => Some(Arch::I386),
        Ok(v1::Arch::Ppc64le) => Some(Arch::Ppc64le),
        Ok(v1::Arch::S390x) => Some(Arch::S390x),
        Ok(v1::Arch::Riscv64) => Some(Arch::Riscv64),
        Ok(v1::Arch::Loong64) => Some(Arch::Loong64),
        Ok(v1::Arch::Unspecified) | Err(_) => None,
    }
}

pub(super) fn kernel_to_wire(kernel: Kernel) -> v1::Kernel {
    v1::Kernel { release: kernel.release, version: kernel.version }
}

pub(super) fn kernel_from_wire(wire: v1::Kernel) -> Result<Kernel, Malformed> {
    let field = |name| Field("Kernel", name);
    Ok(Kernel {
        release: field("release").fact(wire.release)?,
        version: field("version").fact(wire.version)?,
    })
}

pub(super) fn os_to_wire(os: OsRelease) -> v1::OsRelease {
    v1::OsRelease { id: os.id, version: os.version, pretty_name: os.pretty_name }
}

pub(super) fn os_from_wire(wire: v1::OsRelease) -> Result<OsRelease, Malformed> {
    let field = |name| Field("OsRelease", name);
    Ok(OsRelease {
        id: field("id").fact(wire.id)?,
        version: field("version").fact(wire.version)?,
        pretty_name: field("pretty_name").fact(wire.pretty_name)?,
    })
}

pub(super) fn identity_to_wire(identity: Identity) -> v1::Identity {
    v1::Identity {
        hostname: identity.hostname,
        machine_id: identity.machine_id.map(|id| id.0.to_vec()),
        product_uuid: identity.product_uuid,
        product_name: identity.product_name,
        product_vendor: identity.product_vendor,
        product_serial: identity.product_serial,
    }
}

pub(super) fn identity_from_wire(wire: v1::Identity) -> Result<Identity, Malformed> {
    let field = |name| Field("Identity", name);
    let machine_id = wire.machine_id.map(|id| field("machine_id").array(&id)).transpose()?;
    Ok(Identity {
        hostname: field("hostname").fact(wire.hostname)?,
        machine_id: machine_id.map(Digest),
        product_uuid: field("product_uuid").fact(wire.product_uuid)?,
        product_name: field("product_name").fact(wire.product_name)?,
        product_vendor: field("product_vendor").fact(wire.product_vendor)?,
        product_serial: field("product_serial").fact(wire.product_serial)?,
    })
}

pub(super) fn cgroup_to_wire(cgroup: Cgroup) -> v1::Cgroup {
    let version = match cgroup.version {
        None => v1::CgroupVersion::Unspecified,
        Some(CgroupVersion::V1) => v1::CgroupVersion::V1,
        Some(CgroupVersion::Hybrid) => v1::CgroupVersion::Hybrid,
        Some(CgroupVersion::V2) => v1::CgroupVersion::V2,
    };
    v1::Cgroup { version: version.into(), controllers: cgroup.controllers }
}

pub(super) fn cgroup_from_wire(wire: v1::Cgroup) -> Result<Cgroup, Malformed> {
    let version = match v1::CgroupVersion::try_from(wire.version) {
        Ok(v1::CgroupVersion::V1) => Some(CgroupVersion::V1),
        Ok(v1::CgroupVersion::Hybrid) => Some(CgroupVersion::Hybrid),
        Ok(v1::CgroupVersion::V2) => Some(CgroupVersion::V2),
        Ok(v1::CgroupVersion::Unspecified) | Err(_) => None,
    };
    let controllers = Field("Cgroup", "controllers").plains(wire.controllers, MOST_CONTROLLERS)?;
    Ok(Cgroup { version, controllers })
}

pub(super) fn swap_to_wire(swap: Swap) -> v1::Swap {
    v1::Swap { name: swap.name, size_bytes: swap.size_bytes }
}

pub(super) fn swap_from_wire(wire: v1::Swap) -> Result<Swap, Malformed> {
    Ok(Swap { name: Field("Swap", "name").plain(wire.name)?, size_bytes: wire.size_bytes })
}

pub(super) fn clock_to_wire(clock: Clock) -> v1::Clock {
    v1::Clock {
        synchronised: clock.synchronised,
        service: clock.service,
        boot_time: clock.boot_time,
        uptime_seconds: clock.uptime_seconds,
        source: clock.source,
    }
}

pub(super) fn clock_from_wire(wire: v1::Clock) -> Result<Clock, Malformed> {
    let field = |name| Field("Clock", name);
    Ok(Clock {
        synchronised: wire.synchronised,
        service: field("service").fact(wire.service)?,
        boot_time: wire.boot_time,
        uptime_seconds: wire.uptime_seconds,
        source: field("source").fact(wire.source)?,
    })
}

pub(super) const fn privileges_to_wire(privileges: &Privileges) -> v1::Privileges {
    v1::Privileges { uid: privileges.uid, capabilities: privileges.capabilities }
}

pub(super) const fn privileges_from_wire(wire: &v1::Privileges) -> Privileges {
    Privileges { uid: wire.uid, capabilities: wire.capabilities }
}
