//! Rules about being a node: runtime, kubelet, tools, ports, space, leftovers.

use std::collections::BTreeSet;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{Directory, HostFacts, Leftover, Owner, Runtime, RuntimeState};
use berth_domain::node::KUBELET_PORT;
use berth_domain::phase::Phase;
use berth_domain::quantity::Quantity;

use super::machine::found;
use super::{CheckId, CheckPolicy, Verdict};
use crate::host::cri::unserved;
use crate::host::survey;

pub(super) fn runtime(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let named = |runtime: &Runtime| {
        let version = runtime.version.as_deref().unwrap_or("of unknown version");
        vec![("runtime", format!("{} {version}", runtime.name)), ("socket", runtime.socket.clone())]
    };
    let in_state = |state| facts.runtimes.iter().find(|runtime| runtime.state == state);
    if let Some(runtime) = in_state(RuntimeState::Answers) {
        return Verdict::Good(named(runtime));
    }
    if let Some(runtime) = in_state(RuntimeState::CriDisabled) {
        return Verdict::Bad(no_cri(facts, runtime, Phase::Initialization));
    }
    if let Some(runtime) = in_state(RuntimeState::SocketFound) {
        return Verdict::Odd {
            finding: named(runtime),
            told: format!("{} has a socket and was not asked", runtime.socket),
            mend: "",
        };
    }
    let silent: Vec<&str> = facts.runtimes.iter().map(|runtime| runtime.socket.as_str()).collect();
    let sockets = if silent.is_empty() { survey::SOCKETS.map(|(_, socket)| socket).to_vec() } else { silent };
    Verdict::Bad(found(Code::RuntimeMissing).with("sockets", sockets.join(", ")))
}

/// Why a runtime that answers serves no CRI.
pub(super) fn no_cri(facts: &HostFacts, runtime: &Runtime, phase: Phase) -> Diagnosis {
    let instances = facts.sysctls.get(survey::INOTIFY_INSTANCES).map(String::as_str);
    unserved(phase, (&runtime.name, &runtime.socket), runtime.problem.as_deref(), instances)
}

pub(super) fn kubelet(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let Some(kubelet) = &facts.kubelet else {
        return Verdict::Bad(found(Code::KubeletMissing).with("paths", survey::KUBELETS.join(", ")));
    };
    let finding = vec![
        ("path", kubelet.path.clone()),
        ("arch", kubelet.arch.map_or("unknown", |arch| arch.as_str()).to_owned()),
        ("version", kubelet.version.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    match (kubelet.arch, facts.arch) {
        (Some(built), Some(machine)) if built != machine => Verdict::Odd {
            finding,
            told: format!("{} is built for {built}, and this machine is {machine}", kubelet.path),
            mend: "install the kubelet for this machine's architecture",
        },
        (None, _) => Verdict::Odd {
            finding,
            told: format!("{} is no program for an architecture of Kubernetes", kubelet.path),
            mend: "install the kubelet again: the file is damaged or a script",
        },
        (Some(_), _) => Verdict::Good(finding),
    }
}

/// One of several programs, any of which does.
pub(super) fn tool(facts: &HostFacts, any_of: &[&str], package: &'static str) -> Verdict {
    let path = any_of.iter().find_map(|tool| facts.tools.get(*tool)?.as_ref());
    match path {
        Some(path) => Verdict::Good(vec![("path", path.clone())]),
        None => {
            Verdict::Bad(found(Code::ToolMissing).with("tool", any_of.join(" or ")).with("package", package))
        }
    }
}

pub(super) fn kubelet_port(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let Some(port) = facts.ports.iter().find(|port| port.port == KUBELET_PORT) else {
        return Verdict::Good(vec![("port", KUBELET_PORT.to_string())]);
    };
    let holder = port.holder.as_ref().map_or_else(|| "an unknown process".to_owned(), ToString::to_string);
    Verdict::Bad(found(Code::PortTaken).with("port", KUBELET_PORT).with("holder", holder))
}

/// Looks at the fullest of the directories that pods and images fill.
pub(super) fn disk_space(facts: &HostFacts, policy: &CheckPolicy) -> Verdict {
    let filled = facts.directories.iter().filter(|directory| FILLED.contains(&directory.path.as_str()));
    let Some(fullest) = filled.min_by_key(|directory| directory.available_bytes) else {
        return Verdict::unread("the free space");
    };
    let wanted = Quantity::from_bytes(policy.min_free_bytes).to_string();
    if fullest.available_bytes >= policy.min_free_bytes {
        return match facts.directories.iter().find(|directory| has_no_inode(directory)) {
            Some(directory) => space(directory, "0 inodes".to_owned(), "inodes".to_owned()),
            None => Verdict::Good(vec![
                ("path", fullest.path.clone()),
                ("found", mebibytes(fullest.available_bytes)),
                ("wanted", wanted),
            ]),
        };
    }
    space(fullest, mebibytes(fullest.available_bytes), wanted)
}

fn space(directory: &Directory, free: String, wanted: String) -> Verdict {
    Verdict::Bad(
        found(Code::DiskSpaceTooLow).with("path", &directory.path).with("found", free).with("wanted", wanted),
    )
}

/// File systems that make inodes as they need them count none at all.
fn has_no_inode(directory: &Directory) -> bool {
    directory.total_inodes > 0 && directory.available_inodes == 0
}

pub(super) fn leftovers(facts: &HostFacts, policy: &CheckPolicy) -> Verdict {
    let is_own = |leftover: &&Leftover| {
        let below = |own: &String| {
            leftover
                .path
                .strip_prefix(own.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        policy.own.iter().any(below)
    };
    let left: Vec<&Leftover> = facts.leftovers.iter().filter(|leftover| !is_own(leftover)).collect();
    if left.is_empty() {
        return Verdict::Good(Vec::new());
    }
    let owners: BTreeSet<Owner> = left.iter().map(|leftover| leftover.owner).collect();
    let names: Vec<&str> = owners.iter().map(|owner| owner.as_str()).collect();
    let undo: Vec<&str> = owners.iter().map(|owner| owner.undo()).collect();
    let mut paths: Vec<&str> = left.iter().map(|leftover| leftover.path.as_str()).take(MOST_PATHS).collect();
    let more = format!("{} more", left.len().saturating_sub(MOST_PATHS));
    if left.len() > MOST_PATHS {
        paths.push(&more);
    }
    Verdict::Bad(
        found(Code::LeftoversFound)
            .with("owner", names.join(" and "))
            .with("paths", paths.join(", "))
            .with("undo", undo.join("; "))
            .with("check", CheckId::Leftovers),
    )
}

/// Whole mebibytes, rounded down: what a person compares.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{}Mi", bytes >> 20)
}

/// The directories that pods and images fill.
const FILLED: [&str; 2] = ["/var/lib/kubelet", "/var/lib/containerd"];

/// The most leftovers that are named one by one.
const MOST_PATHS: usize = 6;
