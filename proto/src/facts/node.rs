//! What is on the host that has to do with being a node.

use std::collections::BTreeMap;

use berth_domain::facts::bounds::MOST_NODE_FACTS;
use berth_domain::facts::{
    Directory, Holder, Kubelet, Leftover, ListeningPort, ModuleState, Owner, Runtime, RuntimeState,
};

use super::system::{arch_from_wire, arch_to_wire};
use crate::bounds::{Field, Malformed};
use crate::join::v1;

pub(super) fn runtime_to_wire(runtime: Runtime) -> v1::Runtime {
    let state = match runtime.state {
        RuntimeState::SocketFound => v1::RuntimeState::SocketFound,
        RuntimeState::Answers => v1::RuntimeState::Answers,
        RuntimeState::CriDisabled => v1::RuntimeState::CriDisabled,
        RuntimeState::Silent => v1::RuntimeState::Silent,
    };
    v1::Runtime {
        name: runtime.name,
        socket: runtime.socket,
        version: runtime.version,
        state: state.into(),
        problem: runtime.problem,
    }
}

pub(super) fn runtime_from_wire(wire: v1::Runtime) -> Result<Runtime, Malformed> {
    let field = |name| Field("Runtime", name);
    let state = match v1::RuntimeState::try_from(wire.state) {
        Ok(v1::RuntimeState::Answers) => RuntimeState::Answers,
        Ok(v1::RuntimeState::CriDisabled) => RuntimeState::CriDisabled,
        Ok(v1::RuntimeState::Silent) => RuntimeState::Silent,
        Ok(v1::RuntimeState::SocketFound | v1::RuntimeState::Unspecified) | Err(_) => {
            RuntimeState::SocketFound
        }
    };
    Ok(Runtime {
        name: field("name").plain(wire.name)?,
        socket: field("socket").plain(wire.socket)?,
        version: field("version").fact(wire.version)?,
        state,
        problem: field("problem").fact(wire.problem)?,
    })
}

pub(super) fn kubelet_to_wire(kubelet: Kubelet) -> v1::Kubelet {
    v1::Kubelet { path: kubelet.path, arch: arch_to_wire(kubelet.arch).into(), version: kubelet.version }
}

pub(super) fn kubelet_from_wire(wire: v1::Kubelet) -> Result<Kubelet, Malformed> {
    let field = |name| Field("Kubelet", name);
    Ok(Kubelet {
        path: field("path").plain(wire.path)?,
        arch: arch_from_wire(wire.arch),
        version: field("version").fact(wire.version)?,
    })
}

pub(super) fn modules_to_wire(modules: BTreeMap<String, ModuleState>) -> BTreeMap<String, i32> {
    let state = |state| match state {
        ModuleState::Loaded => v1::ModuleState::Loaded,
        ModuleState::Builtin => v1::ModuleState::Builtin,
        ModuleState::Available => v1::ModuleState::Available,
        ModuleState::Absent => v1::ModuleState::Absent,
    };
    modules.into_iter().map(|(name, found)| (name, state(found).into())).collect()
}

pub(super) fn modules_from_wire(
    wire: BTreeMap<String, i32>,
) -> Result<BTreeMap<String, ModuleState>, Malformed> {
    let state = |wire| match v1::ModuleState::try_from(wire) {
        Ok(v1::ModuleState::Loaded) => Some(ModuleState::Loaded),
        Ok(v1::ModuleState::Builtin) => Some(ModuleState::Builtin),
        Ok(v1::ModuleState::Available) => Some(ModuleState::Available),
        Ok(v1::ModuleState::Absent) => Some(ModuleState::Absent),
        Ok(v1::ModuleState::Unspecified) | Err(_) => None,
    };
    Field("HostFacts", "modules").entries(wire, |found| Ok(state(found)))
}

pub(super) fn directory_to_wire(directory: Directory) -> v1::Directory {
    v1::Directory {
        path: directory.path,
        total_bytes: directory.total_bytes,
        available_bytes: directory.available_bytes,
        total_inodes: directory.total_inodes,
        available_inodes: directory.available_inodes,
        file_system: directory.file_system,
        read_only: directory.read_only,
    }
}

pub(super) fn directory_from_wire(wire: v1::Directory) -> Result<Directory, Malformed> {
    let field = |name| Field("Directory", name);
    Ok(Directory {
        path: field("path").plain(wire.path)?,
        total_bytes: wire.total_bytes,
        available_bytes: wire.available_bytes,
        total_inodes: wire.total_inodes,
        available_inodes: wire.available_inodes,
        file_system: field("file_system").fact(wire.file_system)?,
        read_only: wire.read_only,
    })
}

pub(super) fn port_to_wire(port: ListeningPort) -> v1::ListeningPort {
    v1::ListeningPort {
        port: port.port.into(),
        holder: port.holder.map(|holder| v1::Holder { pid: holder.pid, name: holder.name }),
    }
}

pub(super) fn port_from_wire(wire: v1::ListeningPort) -> Result<ListeningPort, Malformed> {
    let holder = |wire: v1::Holder| -> Result<Holder, Malformed> {
        Ok(Holder { pid: wire.pid, name: Field("Holder", "name").plain(wire.name)? })
    };
    Ok(ListeningPort {
        port: Field("ListeningPort", "port").u16(wire.port)?,
        holder: wire.holder.map(holder).transpose()?,
    })
}

pub(super) fn tools_to_wire(tools: BTreeMap<String, Option<String>>) -> BTreeMap<String, v1::Tool> {
    tools.into_iter().map(|(name, path)| (name, v1::Tool { path })).collect()
}

pub(super) fn tools_from_wire(
    wire: BTreeMap<String, v1::Tool>,
) -> Result<BTreeMap<String, Option<String>>, Malformed> {
    let path = Field("Tool", "path");
    Field("HostFacts", "tools").entries(wire, |tool| path.fact(tool.path).map(Some))
}

pub(super) fn leftover_to_wire(leftover: Leftover) -> v1::Leftover {
    let owner = match leftover.owner {
        Owner::Kubeadm => v1::Owner::Kubeadm,
        Owner::K3s => v1::Owner::K3s,
        Owner::Rke2 => v1::Owner::Rke2,
        Owner::K0s => v1::Owner::K0s,
        Owner::MicroK8s => v1::Owner::Microk8s,
        Owner::Berth => v1::Owner::Berth,
    };
    v1::Leftover { owner: owner.into(), path: leftover.path }
}

pub(super) fn leftovers_from_wire(wire: Vec<v1::Leftover>) -> Result<Vec<Leftover>, Malformed> {
    Field("HostFacts", "leftovers").count(wire.len(), MOST_NODE_FACTS)?;
    let mut leftovers = Vec::new();
    for leftover in wire {
        let path = Field("Leftover", "path").plain(leftover.path)?;
        leftovers.extend(owner_from_wire(leftover.owner).map(|owner| Leftover { owner, path }));
    }
    Ok(leftovers)
}

fn owner_from_wire(wire: i32) -> Option<Owner> {
    match v1::Owner::try_from(wire) {
        Ok(v1::Owner::Kubeadm) => Some(Owner::Kubeadm),
        Ok(v1::Owner::K3s) => Some(Owner::K3s),
        Ok(v1::Owner::Rke2) => Some(Owner::Rke2),
        Ok(v1::Owner::K0s) => Some(Owner::K0s),
        Ok(v1::Owner::Microk8s) => Some(Owner::MicroK8s),
        Ok(v1::Owner::Berth) => Some(Owner::Berth),
        Ok(v1::Owner::Unspecified) | Err(_) => None,
    }
}
