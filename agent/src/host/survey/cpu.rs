//! Processors: what they are from `/proc/cpuinfo`, how many from sysfs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use berth_domain::facts::{Cpu, bounds};

use super::{Roots, read};

pub(super) fn cpu(roots: &Roots) -> Cpu {
    // The first block speaks for all; s390x and POWER put common lines behind the
    // blocks: so the first line of each name counts, wherever it is.
    let mut first: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut processors = 0_u32;
    let _absent = read::lines(&roots.proc.join("cpuinfo"), |line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if line.starts_with("processor") {
            processors = processors.saturating_add(1);
        }
        if let Some(name) = LINES.into_iter().find(|known| *known == name.trim()) {
            first.entry(name).or_insert_with(|| value.to_owned());
        }
        ControlFlow::Continue(())
    });
    let value = |key: &str| first.get(key).map(|value| bounds::text(value)).filter(|value| !value.is_empty());
    let implementer =
        || value("CPU implementer").map(|number| implementer_name(&number).unwrap_or(&number).to_owned());
    let features = FEATURES.into_iter().find_map(|key| first.get(key)).map_or("", String::as_str);
    let (sockets, cores) = topology(roots);
    Cpu {
        vendor: value("vendor_id").or_else(implementer),
        model: value("model name")
            .or_else(|| value("CPU part"))
            .or_else(|| value("cpu"))
            .or_else(|| value("uarch")),
        family: value("cpu family").and_then(|family| family.parse().ok()),
        sockets,
        cores,
        threads: threads(roots, processors),
        features: bounds::features(features),
    }
}

/// Whether the processor says that it runs under a hypervisor; `None` where
/// its kind cannot say.
pub(super) fn hypervisor_bit(roots: &Roots) -> Option<bool> {
    let text = read::start(&roots.proc.join("cpuinfo"), 16 << 10)?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    Some(flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// The lines of `/proc/cpuinfo` that tell what the processor is.
const LINES: [&str; 11] = [
    "vendor_id",
    "CPU implementer",
    "model name",
    "CPU part",
    "cpu",
    "uarch",
    "cpu family",
    "flags",
    "Features",
    "features",
    "isa",
];

/// Those of them that tell what it can do, by architecture.
const FEATURES: [&str; 4] = ["flags", "Features", "features", "isa"];

fn threads(roots: &Roots, named: u32) -> Option<u32> {
    let online = read::text(&roots.sys.join("devices/system/cpu/online"));
    let listed = online.and_then(|list| count(&list));
    listed.or(Some(named)).filter(|threads| *threads > 0)
}

/// Sockets and cores, as many as there are different sets of threads.
fn topology(roots: &Roots) -> (Option<u32>, Option<u32>) {
    let cpus = roots.sys.join("devices/system/cpu");
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for name in read::names(&cpus) {
        if read::numbered(&name, "cpu").is_none() {
            continue;
        }
        let topology = cpus.join(name).join("topology");
        sockets.extend(read::text(&topology.join("physical_package_id")));
        let siblings = read::text(&topology.join("core_cpus_list"));
        cores.extend(siblings.or_else(|| read::text(&topology.join("thread_siblings_list"))));
    }
    let known = |set: &BTreeSet<String>| u32::try_from(set.len()).ok().filter(|count| *count > 0);
    (known(&sockets), known(&cores))
}

/// How many numbers a kernel list such as `0-3,8-11` names.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// MIDR_EL1 implementer codes (Arm ARM, D19).
fn implementer_name(number: &str) -> Option<&'static str> {
    match number {
        "0x41" => Some("ARM"),
        "0x42" => Some("Broadcom"),
        "0x43" => Some("Cavium"),
        "0x46" => Some("Fujitsu"),
        "0x48" => Some("HiSilicon"),
        "0x4e" => Some("NVIDIA"),
        "0x50" => Some("APM"),
        "0x51" => Some("Qualcomm"),
        "0x61" => Some("Apple"),
        "0x6d" => Some("Microsoft"),
        "0xc0" => Some("Ampere"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn a_kernel_list_is_counted() {
        assert_eq!(count("0-3,8-11"), Some(8));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("3-0"), None);
        assert_eq!(count("0-4294967295"), None);
        assert_eq!(count(""), None);
    }
}
