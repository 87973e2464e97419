//! Architecture, kernel, operating system, identity, virtualization and clock.

use std::path::Path;

use berth_domain::facts::{Clock, Identity, Kernel, OsRelease, app_specific_id, bounds};

use super::{Roots, cpu, read};
use crate::plan::Distribution;

/// The kernel's architecture. `/proc/sys/kernel/arch` is there since Linux 6.1.
pub(super) fn machine(roots: &Roots) -> Option<String> {
    let called =
        || roots.is_machine().then(|| bounds::text(&rustix::system::uname().machine().to_string_lossy()));
    read::text(&roots.proc.join("sys/kernel/arch")).or_else(called)
}

pub(super) fn kernel(roots: &Roots) -> Kernel {
    Kernel {
        release: read::text(&roots.proc.join("sys/kernel/osrelease")),
        version: read::text(&roots.proc.join("sys/kernel/version")),
    }
}

/// `os-release(5)`: the file below `/etc` overrules the one below `/usr/lib`.
pub(super) fn os_release(roots: &Roots) -> OsRelease {
    let release = Release::below(&roots.live);
    OsRelease {
        id: release.value("ID="),
        version: release.value("VERSION_ID="),
        pretty_name: release.value("PRETTY_NAME="),
    }
}

/// The distribution's family, of the system below a root.
pub(super) fn distribution(root: &Path) -> &'static Distribution {
    let release = Release::below(root);
    let word = |key| release.value(key).unwrap_or_default();
    Distribution::of(&word("ID="), release.value("VARIANT_ID=").as_deref(), &word("ID_LIKE="))
}

/// The text of an `os-release` file.
struct Release(String);

impl Release {
    fn below(root: &Path) -> Self {
        let paths = ["etc/os-release", "usr/lib/os-release"];
        Self(paths.iter().find_map(|path| read::start(&root.join(path), 64 << 10)).unwrap_or_default())
    }

    fn value(&self, key: &str) -> Option<String> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(key))?;
        let value = bounds::text(&unquoted(line.trim()));
        (!value.is_empty()).then_some(value)
    }
}

pub(super) fn identity(roots: &Roots) -> Identity {
    let dmi = |name| read::text(&roots.sys.join("class/dmi/id").join(name));
    // Boards without SMBIOS have a device tree; its texts end in a zero byte.
    let tree = |name| {
        let text = read::text(&roots.proc.join("device-tree").join(name))?;
        Some(text.trim_end_matches('\u{fffd}').to_owned())
    };
    Identity {
        hostname: read::text(&roots.proc.join("sys/kernel/hostname")),
        machine_id: read::text(&roots.live.join("etc/machine-id")).and_then(|id| app_specific_id(&id)),
        product_uuid: dmi("product_uuid").map(|uuid| uuid.to_ascii_lowercase()),
        product_name: dmi("product_name").or_else(|| tree("model")),
        product_vendor: dmi("sys_vendor"),
        product_serial: dmi("product_serial").or_else(|| tree("serial-number")),
    }
}

/// The hypervisor, named as `systemd-detect-virt` names it, and looked for in
/// the places it looks in that are files.
pub(super) fn virtualization(roots: &Roots) -> Option<String> {
    let bit = cpu::hypervisor_bit(roots);
    if let Some(kind) = read::text(&roots.sys.join("hypervisor/type")) {
        return Some(kind);
    }
    if bit == Some(false) {
        return None;
    }
    let dmi = ["product_name", "sys_vendor", "board_vendor", "bios_vendor"]
        .iter()
        .filter_map(|name| read::text(&roots.sys.join("class/dmi/id").join(name)))
        .find_map(|text| HYPERVISORS.iter().find(|(mark, _)| text.starts_with(mark)).map(|(_, name)| *name));
    let clock = || {
        let sources = read::text(&roots.sys.join(CLOCK_SOURCE).join("available_clocksource"))?;
        HYPERVISOR_CLOCKS
            .iter()
            .find(|(mark, _)| sources.split(' ').any(|source| source.starts_with(mark)))
            .map(|(_, name)| *name)
    };
    let unnamed = || (bit == Some(true)).then_some("vm-other");
    dmi.or_else(clock).or_else(unnamed).map(ToOwned::to_owned)
}

/// The container manager, by the marks that managers leave
/// (systemd's "Container Interface").
pub(super) fn container(roots: &Roots) -> Option<String> {
    let marked = |path: &str, name: &str| roots.live.join(path).exists().then(|| name.to_owned());
    read::text(&roots.live.join("run/systemd/container"))
        .or_else(|| marked(".dockerenv", "docker"))
        .or_else(|| marked("run/.containerenv", "podman"))
}

pub(super) fn clock(roots: &Roots) -> Clock {
    let exists = |path: &str| roots.live.join(path).exists();
    let timesyncd = exists("run/systemd/timesync");
    let service = match () {
        () if exists("run/chrony/chronyd.pid") || exists("run/chronyd.pid") => Some("chronyd"),
        () if exists("run/ntpd.pid") => Some("ntpd"),
        () if timesyncd => Some("systemd-timesyncd"),
        () => None,
    };
    let booted = |line: &str| line.strip_prefix("btime ")?.trim().parse().ok();
    let uptime = read::text(&roots.proc.join("uptime"));
    Clock {
        // systemd-timesyncd touches this file when it has set the clock; what
        // the others know would take their own protocols.
        synchronised: (service == Some("systemd-timesyncd"))
            .then(|| exists("run/systemd/timesync/synchronized")),
        service: service.map(ToOwned::to_owned),
        boot_time: read::find(&roots.proc.join("stat"), booted),
        uptime_seconds: uptime.and_then(|line| line.split(['.', ' ']).next()?.parse().ok()),
        source: read::text(&roots.sys.join(CLOCK_SOURCE).join("current_clocksource")),
    }
}

/// Takes the quotes of `os-release(5)` away: single or double, with backslash
/// escapes inside.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    inner.unwrap_or(value).chars().filter(keep).collect()
}

const CLOCK_SOURCE: &str = "devices/system/clocksource/clocksource0";

const HYPERVISORS: [(&str, &str); 17] = [
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Oracle Corporation", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Apple Virtualization", "apple"),
    ("Google Compute Engine", "google"),
];

const HYPERVISOR_CLOCKS: [(&str, &str); 3] = [("kvm-clock", "kvm"), ("hyperv", "microsoft"), ("xen", "xen")];

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn os_release_values_lose_their_quotes() {
        assert_eq!(unquoted(r#""Debian GNU/Linux 12""#), "Debian GNU/Linux 12");
        assert_eq!(unquoted(r#""a \"b\" \\ c""#), r#"a "b" \ c"#);
        assert_eq!(unquoted("'x'"), "x");
        assert_eq!(unquoted("debian"), "debian");
        assert_eq!(unquoted("\""), "\"");
    }
}
