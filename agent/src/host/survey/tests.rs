use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use berth_domain::facts::{
    Arch, CgroupVersion, Holder, HugePages, ListeningPort, ModuleState, Owner, bounds, capacity,
};

use super::*;

/// A machine made of files.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
        self
    }

    fn with_link(self, path: &str, target: &str) -> Self {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        symlink(target, path).expect("a link");
        self
    }

    fn with_directory(self, path: &str) -> Self {
        fs::create_dir_all(self.directory.path().join(path)).expect("directories");
        self
    }

    fn roots(&self) -> Roots {
        let root = self.directory.path();
        Roots {
            proc: root.join("proc"),
            sys: root.join("sys"),
            live: root.to_owned(),
            host: root.join("host"),
        }
    }

    fn survey(&self) -> HostFacts {
        survey(&self.roots())
    }
}

/// A machine of two sockets, as its kernel would tell it.
fn server() -> Machine {
    let mut machine = Machine::new()
        .with("proc/sys/kernel/arch", "x86_64\n")
        .with("proc/sys/kernel/osrelease", "6.12.1\n")
        .with("proc/sys/kernel/hostname", "rack1-n7\n")
        .with("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: Xeon: Gold\nflags\t\t: sse fpu sse\n\nprocessor\t: 1\n")
        .with("sys/devices/system/cpu/online", "0-3\n")
        .with("proc/meminfo", "MemTotal:       16393244 kB\nMemFree: 1 kB\nMemAvailable:   16000000 kB\n")
        .with("sys/devices/system/node/node0/cpulist", "0-3\n")
        .with("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       16393244 kB\n")
        .with("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n")
        .with("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "500\n")
        .with("sys/block/nvme0n1/size", "1000215216\n")
        .with("sys/block/nvme0n1/device/model", "ACME SSD 512   \n")
        .with("sys/block/nvme0n1/queue/rotational", "0\n")
        .with("sys/block/loop0/size", "8\n")
        .with("sys/class/net/eth0/address", "52:54:00:12:34:56\n")
        .with("sys/class/net/eth0/mtu", "1500\n")
        .with("sys/class/net/eth0/speed", "-1\n")
        .with("sys/class/net/eth0/operstate", "up\n")
        .with_link("sys/class/net/eth0/device/driver", "../../../bus/pci/drivers/virtio_net")
        .with("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
        .with("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
        .with("sys/bus/pci/devices/0000:01:00.0/device", "0x2330\n")
        .with("sys/bus/pci/devices/0000:01:00.0/numa_node", "-1\n")
        .with("usr/share/misc/pci.ids", "# ids\n10de  NVIDIA Corporation\n\t2330  GH100 [H100]\n\t\t10de 1626  sub\n8086  Intel\n")
        .with("sys/class/tpm/tpm0/tpm_version_major", "2\n")
        .with("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")
        .with("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        .with("sys/class/dmi/id/product_uuid", "4C4C4544-0042\n")
        .with("sys/class/dmi/id/product_serial", "SN42\n")
        .with("proc/self/mountinfo", "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        .with("sys/fs/cgroup/cgroup.controllers", "cpu memory io\n")
        .with("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/my\\040swap file 1048572 0 -2\n")
        .with("proc/stat", "cpu 1 2 3\nbtime 1790000000\n")
        .with("proc/uptime", "12345.67 1.0\n")
        .with("proc/modules", "overlay 217088 1 - Live 0x0\n")
        .with("proc/filesystems", "nodev\tproc\n")
        .with("lib/modules/6.12.1/modules.dep", "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n")
        .with("proc/sys/net/ipv4/ip_forward", "1\n")
        .with("proc/self/status", "Name:\tagent\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
    for cpu in 0..4 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        machine = machine
            .with(&format!("{topology}/physical_package_id"), format!("{}\n", cpu / 2))
            .with(&format!("{topology}/core_cpus_list"), format!("{}\n", cpu / 2 * 2));
    }
    machine
}

#[test]
fn a_machine_without_any_file_has_no_facts() {
    let facts = Machine::new().survey();
    assert!(facts.tools.values().all(Option::is_none) && !facts.tools.is_empty());
    let without = HostFacts { tools: Default::default(), directories: Vec::new(), ..facts };
    assert_eq!(without, HostFacts::default());
}

#[test]
fn hardware_is_told_as_the_kernel_tells_it() {
    let facts = server().survey();
    assert_eq!(facts.arch, Some(Arch::Amd64));
    assert_eq!((facts.cpu.sockets, facts.cpu.cores, facts.cpu.threads), (Some(2), Some(2), Some(4)));
    assert_eq!(facts.cpu.model.as_deref(), Some("Xeon: Gold"));
    assert_eq!((facts.cpu.family, facts.cpu.features.as_str()), (Some(6), "fpu sse"));
    assert_eq!(facts.memory.total_bytes, Some(16_393_244 * 1024));
    assert_eq!(facts.numa_nodes[0].memory_bytes, Some(16_393_244 * 1024));
    assert_eq!(facts.huge_pages, [HugePages { page_bytes: 2 << 20, total: 512, free: 500 }]);
    assert_eq!(facts.disks.len(), 1, "a loop device is no disk: {:?}", facts.disks);
    assert_eq!(facts.disks[0].model.as_deref(), Some("ACME SSD 512"));
    assert_eq!((facts.disks[0].size_bytes, facts.disks[0].rotational), (Some(512_110_190_592), Some(false)));
    let link = &facts.links[0];
    assert_eq!((link.mtu, link.speed_mbps, link.driver.as_deref()), (Some(1500), None, Some("virtio_net")));
    let gpu = &facts.pci_devices[0];
    assert_eq!((gpu.vendor_id, gpu.device_id, gpu.numa_node, gpu.is_gpu()), (0x10de, 0x2330, None, true));
    assert_eq!(
        (gpu.vendor.as_deref(), gpu.device.as_deref()),
        (Some("NVIDIA Corporation"), Some("GH100 [H100]"))
    );
    assert_eq!(facts.tpm.and_then(|tpm| tpm.version), Some(2));
}

#[test]
fn the_system_is_told_as_the_kernel_tells_it() {
    let facts = server().survey();
    assert_eq!(facts.os.pretty_name.as_deref(), Some("Debian GNU/Linux 12"));
    assert_eq!(facts.identity.hostname.as_deref(), Some("rack1-n7"));
    assert_eq!(facts.identity.product_uuid.as_deref(), Some("4c4c4544-0042"));
    assert_eq!(
        facts.identity.machine_id,
        berth_domain::facts::app_specific_id("0123456789abcdef0123456789abcdef")
    );
    assert_eq!(facts.cgroup.version, Some(CgroupVersion::V2));
    assert_eq!(facts.cgroup.controllers, ["cpu", "io", "memory"]);
    assert_eq!((facts.swaps[0].name.as_str(), facts.swaps[0].size_bytes), ("/my swap", 1_073_737_728));
    assert_eq!((facts.clock.boot_time, facts.clock.uptime_seconds), (Some(1_790_000_000), Some(12_345)));
    assert_eq!(facts.modules["overlay"], ModuleState::Loaded);
    assert_eq!(facts.modules["br_netfilter"], ModuleState::Available);
    assert_eq!(facts.sysctls["net.ipv4.ip_forward"], "1");
    assert_eq!((facts.privileges.uid, facts.privileges.capabilities), (Some(0), Some(0x1ff_ffff_ffff)));
    assert_eq!(facts.virtualization, None, "no hypervisor flag: bare metal");
}

#[test]
fn other_machines_tell_it_otherwise() {
    let facts = Machine::new()
        .with("proc/sys/kernel/arch", "aarch64")
        .with("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\nprocessor : 1\nprocessor : 2\n")
        .with("proc/self/mountinfo", "1 1 0:1 / /sys/fs/cgroup rw - tmpfs t rw\n2 1 0:2 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n")
        .with("proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nrdma\t0\t1\t0\n")
        .with("sys/class/dmi/id/sys_vendor", "Amazon EC2")
        .with_directory("run/systemd/timesync")
        .survey();
    assert_eq!(facts.arch, Some(Arch::Arm64));
    assert_eq!(
        (facts.cpu.vendor.as_deref(), facts.cpu.model.as_deref(), facts.cpu.threads),
        (Some("ARM"), Some("0xd40"), Some(3))
    );
    assert_eq!(
        (facts.cgroup.version, facts.cgroup.controllers),
        (Some(CgroupVersion::Hybrid), vec!["cpu".to_owned()])
    );
    assert_eq!(facts.virtualization.as_deref(), Some("amazon"));
    assert_eq!(facts.clock.synchronised, Some(false));
}

#[test]
fn garbage_is_an_absent_fact() {
    let machine = server();
    let garbage: Vec<&[u8]> = vec![
        b"\xff\xfe\x00\x1b[2J",
        b"",
        b"\xc3\xa9 5\n- - -\n:\n::\n\n\n",
        b"99999999999999999999999 kB",
        b"-",
    ];
    let mut files = Vec::new();
    collect(machine.directory.path(), &mut files);
    assert!(files.len() > 40, "the machine has its files");
    for bytes in garbage {
        for file in &files {
            fs::write(file, bytes).expect("garbage");
        }
        let facts = machine.survey();
        assert_eq!((facts.arch, facts.memory.total_bytes, facts.cpu.threads), (None, None, None));
        assert_eq!((facts.identity.machine_id, facts.clock.boot_time), (None, None));
        assert!(facts.huge_pages.is_empty() && facts.swaps.is_empty());
        assert_eq!(facts.clone().bounded(), facts);
        assert!(!format!("{facts:?}").contains("\\u{1b}"), "no escape sequence is carried");
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => collect(&path, files),
            kind if kind.is_file() => files.push(path),
            _ => {}
        }
    }
}

#[test]
fn an_endless_or_waiting_file_does_not_hold_the_survey() {
    let machine = Machine::new()
        .with_link("proc/cpuinfo", "/dev/zero")
        .with("sys/block/x/device/model", "y".repeat(100_000));
    let fifo = machine.directory.path().join("proc/meminfo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a pipe");
    let facts = machine.survey();
    assert_eq!(facts.memory.total_bytes, None);
    assert_eq!(facts.disks[0].model.as_ref().map(String::len), Some(bounds::LONGEST_TEXT));
}

#[test]
fn the_holder_of_a_port_is_named() {
    let row = |port: &str, state: &str, inode: u32| {
        format!(
            "   0: 00000000:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"
        )
    };
    let facts = Machine::new()
        .with(
            "proc/net/tcp",
            format!("  sl  local_address\n{}{}", row("280A", "0A", 777), row("2808", "01", 778)),
        )
        .with("proc/42/comm", "kubelet\n")
        .with_link("proc/42/fd/3", "socket:[777]")
        .survey();
    let holder = Some(Holder { pid: 42, name: "kubelet".to_owned() });
    assert_eq!(facts.ports, [ListeningPort { port: 10250, holder }]);
}

#[test]
fn leftovers_are_looked_for_where_files_are_applied() {
    let owners =
        |machine: Machine| machine.survey().leftovers.into_iter().map(|left| left.owner).collect::<Vec<_>>();
    assert_eq!(owners(Machine::new().with("etc/kubernetes/kubelet.conf", "live, not below host")), []);
    let kubeadm = Machine::new().with_link("host/etc/kubernetes/kubelet.conf", "nowhere");
    assert_eq!(owners(kubeadm), [Owner::Kubeadm]);
    let empty =
        Machine::new().with_directory("host/var/lib/berth").with_directory("host/var/lib/rancher/k3s/agent");
    assert_eq!(owners(empty), []);
    let berth = || {
        Machine::new().with("host/var/lib/berth/journal", "{}").with("host/etc/kubernetes/kubelet.conf", "")
    };
    assert_eq!(owners(berth()), [Owner::Berth, Owner::Berth]);
    let both = berth().with("host/etc/kubernetes/admin.conf", "");
    assert_eq!(owners(both), [Owner::Kubeadm, Owner::Kubeadm, Owner::Berth]);
}

#[test]
fn the_space_is_that_of_the_nearest_directory_there_is() {
    let machine = Machine::new();
    let found = rustix::fs::statvfs(machine.directory.path()).expect("space");
    let facts = machine.survey();
    let kubelet =
        facts.directories.iter().find(|directory| directory.path == "/var/lib/kubelet").expect("its space");
    assert_eq!(kubelet.total_bytes, found.f_blocks * found.f_frsize);
}

#[test]
fn the_real_machine_is_as_other_witnesses_say() {
    let roots = Roots::machine(Path::new("/"));
    let fastest = (0..5).map(|_| timed(&roots)).min().expect("five times");
    assert!(fastest < Duration::from_millis(100), "a survey took {fastest:?}");

    let facts = survey(&roots);
    let parallelism = std::thread::available_parallelism().expect("threads").get();
    let affinity = rustix::thread::sched_getaffinity(None).expect("affinity").count();
    let threads = facts.cpu.threads.expect("threads") as usize;
    assert!(threads >= parallelism, "{threads} threads, {parallelism} usable");
    if affinity as usize == online_by_stat() {
        assert_eq!(threads, affinity as usize);
    }
    assert_eq!(facts.machine.as_deref(), rustix::system::uname().machine().to_str().ok());
    assert_eq!(facts.kernel.release.as_deref(), rustix::system::uname().release().to_str().ok());
    let arch = facts.arch.expect("an architecture of Kubernetes");
    assert_eq!(Arch::from_machine(std::env::consts::ARCH), Some(arch));
    assert_eq!(facts.privileges.uid, Some(rustix::process::geteuid().as_raw()));
    let offered = capacity(&facts);
    for resource in ["cpu", "memory", "ephemeral-storage", "pods"] {
        assert!(offered.get(resource).is_some_and(|amount| !amount.is_zero()), "{resource}: {offered:?}");
    }
    let loopback = facts.links.iter().find(|link| link.name == "lo");
    assert!(loopback.is_none_or(|link| link.addresses.iter().all(|address| address.contains('/'))));
}

fn timed(roots: &Roots) -> Duration {
    let start = Instant::now();
    let _ = survey(roots);
    start.elapsed()
}

/// Processors that are online, counted in another file than the survey's.
fn online_by_stat() -> usize {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}
