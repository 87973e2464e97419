//! Rules about the machine itself: identity, operating system, kernel.

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{CgroupVersion, HostFacts, ModuleState};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;

use super::{CheckPolicy, Verdict};

/// A node name is a lower-case DNS-1123 subdomain (Kubernetes
/// `ValidateNodeName`), and `localhost` is everyone's.
pub(super) fn hostname(facts: &HostFacts, policy: &CheckPolicy) -> Verdict {
    let name = policy.node_name.as_ref().or(facts.identity.hostname.as_ref());
    let name = name.map(String::as_str).unwrap_or_default();
    match name.parse::<NodeName>() {
        Ok(name) => Verdict::Good(vec![("hostname", name.as_str().to_owned())]),
        Err(problem) => Verdict::Bad(
            found(Code::HostnameInvalid)
                .with("hostname", if name.is_empty() { "(none)" } else { name })
                .with("problem", problem)
                .with("suggestion", suggestion(name, facts)),
        ),
    }
}

/// The nearest legal name, or one made of the machine's id.
fn suggestion(name: &str, facts: &HostFacts) -> String {
    if let Some(name) = NodeName::nearest(name) {
        return name.as_str().to_owned();
    }
    let id = facts.identity.machine_id.map(|id| id.to_hex());
    match id.as_deref().and_then(|hex| hex.get(..8)) {
        Some(digits) => format!("node-{digits}"),
        None => "node-1".to_owned(),
    }
}

pub(super) fn machine_id(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    match facts.identity.machine_id {
        Some(id) => Verdict::Good(vec![("machineId", id.to_hex())]),
        None => Verdict::Odd {
            finding: Vec::new(),
            told: "/etc/machine-id holds no machine-id".to_owned(),
            mend: "systemd-machine-id-setup",
        },
    }
}

/// Capabilities that a join of the running system needs: to write and hand
/// over any file, to set up the network, to mount and to set the kernel up.
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
];

pub(super) fn privileged(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let (Some(uid), Some(capabilities)) = (facts.privileges.uid, facts.privileges.capabilities) else {
        return Verdict::unread("the agent's own user and capabilities");
    };
    let root = (uid != 0).then_some("the user root");
    let absent = CAPABILITIES.iter().filter(|(_, bit)| capabilities & (1 << bit) == 0).map(|(name, _)| *name);
    let missing: Vec<&str> = root.into_iter().chain(absent).collect();
    if missing.is_empty() {
        return Verdict::Good(vec![("uid", uid.to_string())]);
    }
    Verdict::Bad(found(Code::NotPrivileged).with("uid", uid).with("missing", missing.join(", ")))
}

pub(super) fn swap(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    if facts.swaps.is_empty() {
        return Verdict::Good(Vec::new());
    }
    let areas: Vec<&str> = facts.swaps.iter().map(|area| area.name.as_str()).collect();
    Verdict::Bad(found(Code::SwapOn).with("areas", areas.join(", ")))
}

pub(super) fn clock(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let finding = facts.clock.service.iter().map(|service| ("service", service.clone())).collect();
    let (told, mend) = match (&facts.clock.service, facts.clock.synchronised) {
        (Some(_), Some(true) | None) => return Verdict::Good(finding),
        (Some(service), Some(false)) => {
            (format!("{service} has not set the clock yet"), "timedatectl timesync-status says why")
        }
        (None, _) => ("no time service runs".to_owned(), "install and start chrony or systemd-timesyncd"),
    };
    Verdict::Odd { finding, told, mend }
}

/// One thread carries the kubelet and the runtime; kubeadm asks for two on
/// control planes alone.
pub(super) fn processors(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    match facts.cpu.threads {
        Some(threads) => Verdict::Good(vec![("threads", threads.to_string())]),
        None => Verdict::unread("the number of processors"),
    }
}

/// Less than this leaves nothing to pods once the kubelet (about 100 MiB), the
/// runtime and the eviction threshold of 100 MiB have theirs.
const MIN_MEMORY_BYTES: u64 = 512 << 20;

pub(super) fn memory(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    let Some(total) = facts.memory.total_bytes else { return Verdict::unread("the size of the memory") };
    let finding = vec![("memory", super::node::mebibytes(total))];
    if total >= MIN_MEMORY_BYTES {
        return Verdict::Good(finding);
    }
    let told = format!(
        "the machine has {} of memory, and a node needs {}",
        super::node::mebibytes(total),
        super::node::mebibytes(MIN_MEMORY_BYTES)
    );
    Verdict::Odd { finding, told, mend: "give the machine more memory" }
}

/// Kubelets from 1.35 on refuse cgroup v1 (`failCgroupV1`).
pub(super) fn cgroups(facts: &HostFacts, _: &CheckPolicy) -> Verdict {
    match facts.cgroup.version {
        Some(CgroupVersion::V2) => Verdict::Good(vec![("controllers", facts.cgroup.controllers.join(", "))]),
        Some(CgroupVersion::V1) => Verdict::Bad(found(Code::CgroupVersion1).with("mode", "legacy")),
        Some(CgroupVersion::Hybrid) => Verdict::Bad(found(Code::CgroupVersion1).with("mode", "hybrid")),
        None => Verdict::unread("the cgroup hierarchy"),
    }
}

pub(super) fn module(facts: &HostFacts, module: &'static str) -> Verdict {
    match facts.modules.get(module) {
        Some(state @ (ModuleState::Loaded | ModuleState::Builtin | ModuleState::Available)) => {
            Verdict::Good(vec![("module", module.to_owned()), ("state", state.as_str().to_owned())])
        }
        Some(ModuleState::Absent) => Verdict::Bad(found(Code::KernelModuleMissing).with("module", module)),
        None => Verdict::unread(&format!("the state of the module {module}")),
    }
}

/// A setting that must be 1. Bridge settings appear with their module; without
/// it there is nothing to set yet.
pub(super) fn sysctl_on(facts: &HostFacts, sysctl: &'static str) -> Verdict {
    match facts.sysctls.get(sysctl).map(String::as_str) {
        Some("1") => Verdict::Good(vec![("sysctl", sysctl.to_owned()), ("found", "1".to_owned())]),
        Some(value) => Verdict::Bad(
            found(Code::SysctlWrong).with("sysctl", sysctl).with("found", value).with("wanted", 1),
        ),
        None if sysctl.starts_with("net.bridge.") => Verdict::Odd {
            finding: vec![("sysctl", sysctl.to_owned())],
            told: format!("{sysctl} is not there: br_netfilter is not loaded"),
            mend: "modprobe br_netfilter",
        },
        None => Verdict::unread(sysctl),
    }
}

/// A cause found on the host, before anyone was asked.
pub(super) fn found(code: Code) -> Diagnosis {
    Diagnosis::new(code, Phase::Initialization)
}
