//! A machine's facts for people, in groups; what is absent is left out.

use std::fmt::Display;

use berth_domain::facts::{
    CgroupVersion, Disk, HostFacts, HugePages, Link, NumaNode, Owner, PciDevice, Runtime, RuntimeState, Tpm,
};

use super::shown::Lines;

/// All groups.
pub(super) fn machine(facts: &HostFacts, text: &mut Lines) {
    system(facts, text);
    hardware(facts, text);
    node(facts, text);
}

fn system(facts: &HostFacts, text: &mut Lines) {
    text.heading("System");
    let identity = &facts.identity;
    text.line("Hostname", opt(&identity.hostname));
    text.line("Product", &joined([&identity.product_vendor, &identity.product_name]));
    text.line("Serial", opt(&identity.product_serial));
    text.line("UUID", opt(&identity.product_uuid));
    text.line("Virtual", opt(&facts.virtualization));
    text.line("Container", opt(&facts.container));
    text.line("OS", opt(&facts.os.pretty_name));
    text.line("Kernel", opt(&facts.kernel.release));
    text.line("Architecture", facts.arch.map_or("", |arch| arch.as_str()));
    let cgroup = match facts.cgroup.version {
        None => "",
        Some(CgroupVersion::V1) => "version 1",
        Some(CgroupVersion::Hybrid) => "hybrid",
        Some(CgroupVersion::V2) => "version 2",
    };
    text.line("Cgroups", cgroup);
    text.lines("Swap", facts.swaps.iter().map(|swap| format!("{} ({})", swap.name, size(swap.size_bytes))));
    let clock = match facts.clock.synchronised {
        Some(true) => "synchronised",
        Some(false) => "not synchronised",
        None => "",
    };
    text.line("Clock", &words([clock.to_owned(), facts.clock.service.clone().unwrap_or_default()]));
}

fn hardware(facts: &HostFacts, text: &mut Lines) {
    text.heading("Hardware");
    let cpu = &facts.cpu;
    let counts = [count(cpu.sockets, "socket"), count(cpu.cores, "core"), count(cpu.threads, "thread")];
    text.lines(
        "CPU",
        [cpu.model.clone().unwrap_or_default(), words(counts)].into_iter().filter(|said| !said.is_empty()),
    );
    text.line("Memory", &facts.memory.total_bytes.map(size).unwrap_or_default());
    text.lines("NUMA", facts.numa_nodes.iter().map(numa));
    text.lines("Huge pages", facts.huge_pages.iter().filter(|pool| pool.total > 0).map(huge_pages));
    text.lines("Disks", facts.disks.iter().map(disk));
    text.lines("Links", facts.links.iter().map(link));
    text.lines("GPUs", facts.gpus().map(pci));
    let others = facts.pci_devices.len().saturating_sub(facts.gpus().count());
    text.line("PCI", &if others == 0 { String::new() } else { format!("{others} more; -o json shows them") });
    let version = |version: u32| format!("version {version}");
    let tpm = |tpm: &Tpm| words([tpm.name.clone(), shown(tpm.version.map(version))]);
    let key = facts.tpm.as_ref().and_then(|tpm| tpm.endorsement_key.as_ref());
    let key = key.map(|key| format!("endorsement key {key}"));
    text.lines("TPM", facts.tpm.iter().map(tpm).chain(key));
}

fn node(facts: &HostFacts, text: &mut Lines) {
    text.heading("Node");
    text.lines("Runtime", facts.runtimes.iter().map(runtime));
    let kubelet = facts.kubelet.as_ref();
    let shown =
        kubelet.map(|kubelet| words([kubelet.version.clone().unwrap_or_default(), kubelet.path.clone()]));
    text.line("Kubelet", &shown.unwrap_or_else(|| "none installed".to_owned()));
    let directory = |directory: &berth_domain::facts::Directory| {
        format!(
            "{} {} free of {}",
            directory.path,
            size(directory.available_bytes),
            size(directory.total_bytes)
        )
    };
    text.lines("Directories", facts.directories.iter().map(directory));
    // It has joined by Berth, so those of Berth are its own.
    let left = facts.leftovers.iter().filter(|left| left.owner != Owner::Berth);
    text.lines("Leftovers", left.map(|left| format!("{} ({})", left.path, left.owner)));
}

fn count(number: Option<u32>, what: &str) -> String {
    match number {
        None => String::new(),
        Some(1) => format!("1 {what}"),
        Some(number) => format!("{number} {what}s"),
    }
}

fn numa(node: &NumaNode) -> String {
    let memory = node.memory_bytes.map(size).unwrap_or_default();
    words([format!("node {}", node.id), format!("threads {}", node.cpus), memory])
}

fn huge_pages(pool: &HugePages) -> String {
    format!("{} of {}, {} free", pool.total, size(pool.page_bytes), pool.free)
}

fn disk(disk: &Disk) -> String {
    let turns = disk.rotational.map(|turns| if turns { "rotational" } else { "solid state" });
    let model = disk.model.clone().unwrap_or_default();
    words([
        disk.name.clone(),
        disk.size_bytes.map(size).unwrap_or_default(),
        disk.kind.clone(),
        shown(turns),
        model,
    ])
}

fn link(link: &Link) -> String {
    let speed = link.speed_mbps.map(|mbps| format!("{mbps} Mb/s"));
    let mtu = link.mtu.map(|mtu| format!("MTU {mtu}"));
    let state = link.state.clone().unwrap_or_default();
    words([link.name.clone(), state, shown(speed), shown(mtu), link.addresses.join(" ")])
}

fn pci(device: &PciDevice) -> String {
    let numbers = format!("[{:04x}:{:04x}]", device.vendor_id, device.device_id);
    let name = joined([&device.vendor, &device.device]);
    let driver = device.driver.as_ref().map(|driver| format!("driver {driver}"));
    words([device.address.clone(), name, numbers, shown(driver)])
}

fn runtime(runtime: &Runtime) -> String {
    let state = match runtime.state {
        RuntimeState::SocketFound => "not asked".to_owned(),
        RuntimeState::Answers => "answers".to_owned(),
        RuntimeState::CriDisabled => match &runtime.problem {
            Some(problem) => format!("CRI could not load ({problem})"),
            None => "CRI is switched off".to_owned(),
        },
        RuntimeState::Silent => "does not answer".to_owned(),
    };
    let version = runtime.version.clone().unwrap_or_default();
    words([runtime.name.clone(), version, state, runtime.socket.clone()])
}

/// Those that are there, with commas between.
fn words<const N: usize>(words: [String; N]) -> String {
    let there: Vec<String> =
        words.into_iter().map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect();
    there.join(", ")
}

fn joined(names: [&Option<String>; 2]) -> String {
    names.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn opt(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn shown(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Bytes in the largest binary unit of which there is at least one, to a tenth.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut tenths = u128::from(bytes).saturating_mul(10);
    let mut place = 0;
    while tenths >= 10_240 && place + 1 < units.len() {
        tenths /= 1_024;
        place += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    let unit = units.get(place).unwrap_or(&"");
    if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

#[cfg(test)]
mod tests {
    use berth_domain::facts::Leftover;

    use super::*;

    #[test]
    fn files_of_berth_are_no_leftovers_of_a_machine_that_joined_by_it() {
        let of = |owner, path: &str| Leftover { owner, path: path.to_owned() };
        let leftovers = vec![of(Owner::Berth, "/var/lib/berth"), of(Owner::K0s, "/var/lib/k0s")];
        let mut text = Lines::default();
        machine(&HostFacts { leftovers, ..HostFacts::default() }, &mut text);
        let shown: Vec<&str> = text.text.lines().filter(|line| line.contains("/var/lib")).collect();
        let [line] = shown.as_slice() else { panic!("one line of leftovers: {shown:?}") };
        assert!(line.contains("Leftovers") && line.contains("/var/lib/k0s (k0s)"), "{line}");
    }

    #[test]
    fn sizes_are_readable() {
        let shown = [0, 1_023, 1_024, 1_536, 16 << 30, 16_777_216_000, u64::MAX].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "16 GiB", "15.6 GiB", "15.9 EiB"]);
    }
}
