//! What the running kernel allows: cgroups, swap, modules, settings, and the
//! agent's own privileges.

use std::collections::BTreeMap;
use std::path::Path;

use berth_domain::facts::{Cgroup, CgroupVersion, ModuleState, Privileges, Swap, bounds};

use super::storage::Mounts;
use super::{Roots, read};

/// The kernel modules that pod networking and images need.
pub(super) const MODULES: [&str; 2] = ["overlay", "br_netfilter"];

/// How many inotify instances one user may have (inotify(7)).
pub(in crate::host) const INOTIFY_INSTANCES: &str = "fs.inotify.max_user_instances";

/// The kernel settings that a node depends on. The last four are those that a
/// kubelet with `protectKernelDefaults` wants to find set.
const SYSCTLS: [&str; 10] = [
    INOTIFY_INSTANCES,
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.conf.all.rp_filter",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
];

/// The hierarchy, as the kubelet judges it: by the file system at `/sys/fs/cgroup`.
pub(super) fn cgroup(roots: &Roots, mounts: &Mounts) -> Cgroup {
    let version = match mounts.type_of("/sys/fs/cgroup") {
        Some("cgroup2") => Some(CgroupVersion::V2),
        Some(_) if mounts.type_of("/sys/fs/cgroup/unified") == Some("cgroup2") => Some(CgroupVersion::Hybrid),
        Some(_) => Some(CgroupVersion::V1),
        None => None,
    };
    let mut controllers: Vec<String> = match version {
        Some(CgroupVersion::V2) => {
            let list = read::start(&roots.sys.join("fs/cgroup/cgroup.controllers"), 4096).unwrap_or_default();
            list.split_whitespace().map(bounds::text).collect()
        }
        Some(CgroupVersion::V1 | CgroupVersion::Hybrid) => {
            let table = read::start(&roots.proc.join("cgroups"), 64 << 10).unwrap_or_default();
            table.lines().filter_map(enabled_controller).collect()
        }
        None => Vec::new(),
    };
    controllers.sort_unstable();
    Cgroup { version, controllers }
}

/// A line of `/proc/cgroups`: name, hierarchy, number of cgroups, enabled.
fn enabled_controller(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let name = fields.next().filter(|name| !name.starts_with('#'))?;
    (fields.nth(2) == Some("1")).then(|| bounds::text(name))
}

pub(super) fn swaps(roots: &Roots) -> Vec<Swap> {
    let table = read::start(&roots.proc.join("swaps"), 64 << 10).unwrap_or_default();
    let area = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = bounds::text(&fields.next()?.replace("\\040", " "));
        Some(Swap { name, size_bytes: fields.nth(1).and_then(read::kibibytes)? })
    };
    table.lines().skip(1).filter_map(area).collect()
}

/// The state of each module; nothing where the kernel's own tables cannot be
/// read, since then nothing says that a module is absent.
pub(super) fn modules(roots: &Roots, release: Option<&str>) -> BTreeMap<String, ModuleState> {
    let (loaded, file_systems) = (roots.proc.join("modules"), roots.proc.join("filesystems"));
    if !loaded.is_file() && !file_systems.is_file() {
        return BTreeMap::new();
    }
    let directory = release
        .filter(|release| !release.contains('/'))
        .map(|release| roots.live.join("lib/modules").join(release));
    let state = |module: &str| {
        let is_listed = |list: &str| {
            let name = format!("/{module}.ko");
            let names_it = |line: &str| {
                let path = line.split(':').next().unwrap_or_default();
                // A module's file may write `-` where its name has `_`.
                path.replace('-', "_").contains(&name)
            };
            directory.as_ref().is_some_and(|directory| has_line(&directory.join(list), names_it))
        };
        let serves = match module {
            "overlay" => has_line(&file_systems, |line| line.ends_with("\toverlay")),
            "br_netfilter" => roots.proc.join("sys/net/bridge").is_dir(),
            _ => false,
        };
        if has_line(&loaded, |line| line.split(' ').next() == Some(module)) {
            ModuleState::Loaded
        } else if serves || roots.sys.join("module").join(module).is_dir() || is_listed("modules.builtin") {
            ModuleState::Builtin
        } else if is_listed("modules.dep") {
            ModuleState::Available
        } else {
            ModuleState::Absent
        }
    };
    MODULES.iter().map(|module| ((*module).to_owned(), state(module))).collect()
}

fn has_line(table: &Path, is_it: impl Fn(&str) -> bool) -> bool {
    read::find(table, |line| is_it(line).then_some(())).is_some()
}

pub(super) fn sysctls(roots: &Roots) -> BTreeMap<String, String> {
    SYSCTLS.iter().filter_map(|name| Some(((*name).to_owned(), sysctl(&roots.proc, name)?))).collect()
}

/// What the kernel says of a setting.
pub(in crate::host) fn sysctl(proc: &Path, name: &str) -> Option<String> {
    read::text(&proc.join("sys").join(name.replace('.', "/")))
}

/// The agent's effective user and capabilities (`proc_pid_status(5)`).
pub(super) fn privileges(roots: &Roots) -> Privileges {
    let status = read::start(&roots.proc.join("self/status"), 64 << 10).unwrap_or_default();
    Privileges {
        uid: read::field(&status, "Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()),
        capabilities: read::field(&status, "CapEff:").and_then(|bits| u64::from_str_radix(bits, 16).ok()),
    }
}
