//! Facts on the wire: what is within its bounds comes back as it was, what is
//! not is refused by its field's name.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::collections::BTreeMap;

use berth_domain::facts::{
    Arch, Cgroup, CgroupVersion, Clock, Cpu, Directory, Disk, Holder, HostFacts, HugePages, Identity, Kernel,
    Kubelet, Leftover, Link, ListeningPort, Memory, ModuleState, NumaNode, OsRelease, Owner, PciDevice,
    Privileges, Runtime, RuntimeState, Swap, Tpm,
};
use berth_domain::identity::Digest;
use berth_proto::join::v1;
use berth_proto::{facts_from_wire, facts_to_wire};
use proptest::prelude::*;
use prost::Message as _;

proptest! {
    #[test]
    fn facts_come_back_as_they_were(rolls in proptest::collection::vec(any::<u64>(), 1..400)) {
        let facts = Dice::new(rolls).host_facts();
        prop_assert_eq!(over_the_wire(&facts), facts.bounded());
    }
}

#[test]
fn a_machine_that_told_nothing_and_one_that_told_all_come_back() {
    assert_eq!(over_the_wire(&HostFacts::default()), HostFacts::default());
    for roll in [1, 1001, u64::MAX] {
        let facts = Dice::new(vec![roll]).host_facts();
        assert_eq!(over_the_wire(&facts), facts.bounded(), "{roll}");
    }
}

#[test]
fn what_breaks_a_bound_is_refused_by_its_name() {
    type Breach = fn(&mut v1::HostFacts);
    let breaches: [(&str, Breach); 14] = [
        ("HostFacts.disks has 129 bytes or items, at most 128", |facts| {
            facts.disks = vec![v1::Disk::default(); 129]
        }),
        ("HostFacts.machine has 257 bytes or items, at most 256", |facts| {
            facts.machine = Some("x".repeat(257))
        }),
        ("HostFacts.container has control characters", |facts| {
            facts.container = Some("\u{1b}[2J".to_owned())
        }),
        ("HostFacts.virtualization is not valid", |facts| facts.virtualization = Some(" kvm".to_owned())),
        ("Cpu.feature_words has 4097 bytes or items, at most 4096", |facts| {
            facts.cpu = Some(v1::Cpu { feature_words: "x".repeat(4097), ..v1::Cpu::default() });
        }),
        ("Cpu.feature_words is not valid", |facts| {
            facts.cpu = Some(v1::Cpu { feature_words: "sse fpu".to_owned(), ..v1::Cpu::default() });
        }),
        ("Cpu.feature_words is not valid", |facts| {
            facts.cpu = Some(v1::Cpu { feature_words: "fpu \u{1b}[2J".to_owned(), ..v1::Cpu::default() });
        }),
        ("Link.addresses has 33", |facts| {
            facts.links = vec![v1::Link { addresses: vec![String::new(); 33], ..v1::Link::default() }];
        }),
        ("Identity.machine_id has 31 bytes and must have 32", |facts| {
            facts.identity = Some(v1::Identity { machine_id: Some(vec![0; 31]), ..v1::Identity::default() });
        }),
        ("PciDevice.vendor_id is not valid", |facts| {
            facts.pci_devices = vec![v1::PciDevice { vendor_id: 65_536, ..v1::PciDevice::default() }];
        }),
        ("ListeningPort.port is not valid", |facts| {
            facts.ports = vec![v1::ListeningPort { port: 65_536, holder: None }];
        }),
        ("HostFacts.modules has 65", |facts| facts.modules = (0..65).map(|n| (n.to_string(), 1)).collect()),
        ("HostFacts.sysctls has control characters", |facts| {
            facts.sysctls = BTreeMap::from([("a\nb".to_owned(), String::new())]);
        }),
        ("Tool.path has 257", |facts| {
            facts.tools = BTreeMap::from([("mount".to_owned(), v1::Tool { path: Some("/".repeat(257)) })]);
        }),
    ];
    for (wanted, breach) in breaches {
        let mut wire = v1::HostFacts::default();
        breach(&mut wire);
        let refused = facts_from_wire(wire).expect_err(wanted).to_string();
        assert!(refused.starts_with(wanted), "{wanted}: {refused}");
    }
}

#[test]
fn a_word_of_a_later_version_is_no_fact() {
    let wire = v1::HostFacts {
        arch: 99,
        cgroup: Some(v1::Cgroup { version: 99, controllers: Vec::new() }),
        runtimes: vec![v1::Runtime { state: 99, ..v1::Runtime::default() }],
        modules: BTreeMap::from([("overlay".to_owned(), 99)]),
        leftovers: vec![v1::Leftover { owner: 99, path: "/etc".to_owned() }],
        ..v1::HostFacts::default()
    };
    let read = facts_from_wire(wire).expect("it is within its bounds");
    assert_eq!(read, HostFacts { runtimes: vec![Runtime::default()], ..HostFacts::default() });
}

fn over_the_wire(facts: &HostFacts) -> HostFacts {
    let sent = facts_to_wire(facts).encode_to_vec();
    let heard = v1::HostFacts::decode(sent.as_slice()).expect("it was just encoded");
    facts_from_wire(heard).expect("what is sent is within its bounds")
}

/// Makes facts from rolled numbers, in turn and over again. Every field is
/// named here, so that a new one does not compile until it is carried.
struct Dice {
    rolls: Vec<u64>,
    next: usize,
}

impl Dice {
    const fn new(rolls: Vec<u64>) -> Self {
        Self { rolls, next: 0 }
    }

    fn roll(&mut self) -> u64 {
        let roll = self.rolls[self.next % self.rolls.len()];
        self.next += 1;
        roll
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.roll() >> 32).expect("32 bits are left")
    }

    fn short(&mut self) -> u16 {
        u16::try_from(self.roll() >> 48).expect("16 bits are left")
    }

    fn yes(&mut self) -> bool {
        self.roll() % 2 == 1
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.yes().then(|| make(self))
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let most = if self.roll() % 97 == 31 { 600 } else { 3 };
        (0..self.roll() % most).map(|_| make(self)).collect()
    }

    fn map<T>(&mut self, make: impl Fn(&mut Self) -> T) -> BTreeMap<String, T> {
        self.list(|dice| (dice.text(), make(dice))).into_iter().collect()
    }

    fn one_of<T: Copy>(&mut self, words: &[T]) -> T {
        words[usize::try_from(self.roll() % 64).expect("it is below 64") % words.len()]
    }

    fn text(&mut self) -> String {
        let piece =
            self.one_of(&["", "a", "eth0", " ", "é", "\u{1b}[31m", "\n", "\u{fffd}", "漢 ", "/var/lib"]);
        let times = self.one_of(&[1, 1, 1, 7, 256, 300]);
        format!("{}{}", piece.repeat(times), self.roll() % 1000)
    }

    fn words(&mut self) -> Option<String> {
        self.maybe(Self::text)
    }

    fn arch(&mut self) -> Option<Arch> {
        self.maybe(|dice| dice.one_of(&Arch::ALL))
    }

    fn host_facts(&mut self) -> HostFacts {
        HostFacts {
            arch: self.arch(),
            machine: self.words(),
            cpu: self.cpu(),
            memory: Memory { total_bytes: self.maybe(Self::roll), available_bytes: self.maybe(Self::roll) },
            numa_nodes: self.list(|dice| NumaNode {
                id: dice.number(),
                cpus: dice.text(),
                memory_bytes: dice.maybe(Self::roll),
                huge_pages: dice.list(Self::huge_pages),
            }),
            huge_pages: self.list(Self::huge_pages),
            disks: self.list(Self::disk),
            links: self.list(Self::link),
            pci_devices: self.list(Self::pci_device),
            tpm: self.maybe(|dice| Tpm {
                name: dice.text(),
                version: dice.maybe(Self::number),
                endorsement_key: dice.maybe(Self::text),
            }),
            kernel: Kernel { release: self.words(), version: self.words() },
            os: OsRelease { id: self.words(), version: self.words(), pretty_name: self.words() },
            identity: self.identity(),
            virtualization: self.words(),
            container: self.words(),
            cgroup: Cgroup {
                version: self.maybe(|dice| {
                    dice.one_of(&[CgroupVersion::V1, CgroupVersion::Hybrid, CgroupVersion::V2])
                }),
                controllers: self.list(Self::text),
            },
            swaps: self.list(|dice| Swap { name: dice.text(), size_bytes: dice.roll() }),
            clock: Clock {
                synchronised: self.maybe(Self::yes),
                service: self.words(),
                boot_time: self.maybe(Self::roll),
                uptime_seconds: self.maybe(Self::roll),
                source: self.words(),
            },
            runtimes: self.list(Self::runtime),
            kubelet: self.maybe(|dice| Kubelet {
                path: dice.text(),
                arch: dice.arch(),
                version: dice.words(),
            }),
            privileges: Privileges { uid: self.maybe(Self::number), capabilities: self.maybe(Self::roll) },
            modules: self.map(|dice| {
                use ModuleState::{Absent, Available, Builtin, Loaded};
                dice.one_of(&[Loaded, Builtin, Available, Absent])
            }),
            sysctls: self.map(Self::text),
            directories: self.list(Self::directory),
            ports: self.list(|dice| ListeningPort {
                port: dice.short(),
                holder: dice.maybe(|dice| Holder { pid: dice.number(), name: dice.text() }),
            }),
            tools: self.map(Self::words),
            leftovers: self.list(|dice| Leftover { owner: dice.one_of(&Owner::ALL), path: dice.text() }),
        }
    }

    fn cpu(&mut self) -> Cpu {
        Cpu {
            vendor: self.words(),
            model: self.words(),
            family: self.maybe(Self::number),
            sockets: self.maybe(Self::number),
            cores: self.maybe(Self::number),
            threads: self.maybe(Self::number),
            features: self.list(Self::text).join(" "),
        }
    }

    fn huge_pages(&mut self) -> HugePages {
        HugePages { page_bytes: self.roll(), total: self.roll(), free: self.roll() }
    }

    fn disk(&mut self) -> Disk {
        Disk {
            name: self.text(),
            model: self.words(),
            size_bytes: self.maybe(Self::roll),
            rotational: self.maybe(Self::yes),
            kind: self.text(),
        }
    }

    fn link(&mut self) -> Link {
        Link {
            name: self.text(),
            mac: self.words(),
            mtu: self.maybe(Self::number),
            speed_mbps: self.maybe(Self::number),
            state: self.words(),
            driver: self.words(),
            addresses: self.list(Self::text),
        }
    }

    fn pci_device(&mut self) -> PciDevice {
        PciDevice {
            address: self.text(),
            class: self.number(),
            vendor_id: self.short(),
            device_id: self.short(),
            vendor: self.words(),
            device: self.words(),
            driver: self.words(),
            numa_node: self.maybe(Self::number),
        }
    }

    fn identity(&mut self) -> Identity {
        Identity {
            hostname: self.words(),
            machine_id: self.maybe(|dice| Digest::of(&dice.roll().to_be_bytes())),
            product_uuid: self.words(),
            product_name: self.words(),
            product_vendor: self.words(),
            product_serial: self.words(),
        }
    }

    fn runtime(&mut self) -> Runtime {
        use RuntimeState::{Answers, CriDisabled, Silent, SocketFound};
        Runtime {
            name: self.text(),
            socket: self.text(),
            version: self.words(),
            state: self.one_of(&[SocketFound, Answers, CriDisabled, Silent]),
            problem: self.words(),
        }
    }

    fn directory(&mut self) -> Directory {
        Directory {
            path: self.text(),
            total_bytes: self.roll(),
            available_bytes: self.roll(),
            total_inodes: self.roll(),
            available_inodes: self.roll(),
            file_system: self.words(),
            read_only: self.yes(),
        }
    }
}
