use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{
    Arch, Cgroup, CgroupVersion, Clock, Cpu, Directory, Disk, HugePages, Identity, Kernel, Kubelet, Link,
    Memory, NumaNode, OsRelease, PciDevice, Runtime, RuntimeState, Swap, Tpm,
};
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::node::{Ban, CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_proto::node_to_wire;

use berth_domain::facts::HostFacts;
use serde_json::json;

use super::*;
use crate::cli::golden::{golden, now, plain};

fn record(name: &str, readiness: Readiness) -> NodeRecord {
    let key = SpkiHash::of(name.as_bytes());
    NodeRecord {
        identity: NodeIdentity { name: name.parse().expect("a name"), pool: "gpu".parse().expect("a pool") },
        machine: MachineId::of(name.as_bytes()),
        join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key),
        key,
        next_key: None,
        labels: [("rack".parse().expect("a key"), "r1".parse().expect("a value"))].into(),
        taints: vec!["dedicated=gpu:NoSchedule".parse().expect("a taint")],
        certificate: CertificateTerms {
            serial: Some("4f0a".to_owned()),
            not_before: now().before(Duration::from_secs(300)),
            not_after: now().after(Duration::from_secs(6 * 3_600)),
        },
        issued: vec![now()],
        readiness,
        last_seen: now().before(Duration::from_secs(7)),
    }
}

fn survey() -> HostFacts {
    let text = |text: &str| Some(text.to_owned());
    HostFacts {
        arch: Some(Arch::Amd64),
        cpu: Cpu {
            vendor: text("AuthenticAMD"),
            model: text("AMD EPYC 7543 32-Core Processor"),
            sockets: Some(2),
            cores: Some(64),
            threads: Some(128),
            ..Cpu::default()
        },
        memory: Memory { total_bytes: Some(540_000_000_000), available_bytes: None },
        numa_nodes: vec![NumaNode {
            id: 0,
            cpus: "0-63".to_owned(),
            memory_bytes: Some(270 << 30),
            huge_pages: vec![],
        }],
        huge_pages: vec![HugePages { page_bytes: 2 << 20, total: 512, free: 500 }],
        disks: vec![Disk {
            name: "nvme0n1".to_owned(),
            model: text("SAMSUNG MZQL2"),
            size_bytes: Some(1_920_383_410_176),
            rotational: Some(false),
            kind: "nvme".to_owned(),
        }],
        links: vec![Link {
            name: "eth0".to_owned(),
            mtu: Some(1_500),
            speed_mbps: Some(25_000),
            state: text("up"),
            addresses: vec!["192.0.2.7/24".to_owned(), "2001:db8::7/64".to_owned()],
            ..Link::default()
        }],
        pci_devices: vec![
            PciDevice {
                address: "0000:41:00.0".to_owned(),
                class: 0x03_02_00,
                vendor_id: 0x10de,
                device_id: 0x20b5,
                vendor: text("NVIDIA Corporation"),
                device: text("GA100 [A100 PCIe 80GB]"),
                driver: text("nvidia"),
                numa_node: Some(0),
            },
            PciDevice { address: "0000:01:00.0".to_owned(), class: 0x02_00_00, ..PciDevice::default() },
        ],
        tpm: Some(Tpm {
            name: "tpm0".to_owned(),
            version: Some(2),
            endorsement_key: Some(format!("sha256:{}", "5e".repeat(32))),
        }),
        kernel: Kernel { release: text("6.12.9-amd64"), version: None },
        os: OsRelease { pretty_name: text("Debian GNU/Linux 13 (trixie)"), ..OsRelease::default() },
        identity: Identity {
            hostname: text("rack1-n7"),
            product_vendor: text("Dell Inc."),
            product_name: text("PowerEdge R7525"),
            product_serial: text("ABC1234"),
            ..Identity::default()
        },
        cgroup: Cgroup { version: Some(CgroupVersion::V2), controllers: vec![] },
        swaps: vec![Swap { name: "/dev/sda2".to_owned(), size_bytes: 1 << 30 }],
        clock: Clock { synchronised: Some(true), service: text("chronyd"), ..Clock::default() },
        runtimes: vec![Runtime {
            name: "containerd".to_owned(),
            socket: "/run/containerd/containerd.sock".to_owned(),
            version: text("2.0.1"),
            state: RuntimeState::Answers,
            problem: None,
        }],
        kubelet: Some(Kubelet { path: "/usr/bin/kubelet".to_owned(), arch: None, version: text("v1.36.1") }),
        directories: vec![Directory {
            path: "/var/lib/kubelet".to_owned(),
            total_bytes: 500 << 30,
            available_bytes: 400 << 30,
            ..Directory::default()
        }],
        ..HostFacts::default()
    }
}

fn ready() -> v1::Node {
    node_to_wire(&record("rack1-n7", Readiness::Ready), None, Some(&survey()))
}

fn banned() -> v1::Node {
    let why = Diagnosis::new(Code::NodeNotReady, Phase::Registration)
        .with("name", "rack1-n8")
        .with("condition", "its agent was last heard at 2026-11-23T18:59:53Z");
    let record = record("rack1-n8", Readiness::NotReady { why });
    let ban = Ban {
        machine: record.machine,
        name: record.identity.name.clone(),
        by: "alice".to_owned(),
        reason: "stolen".to_owned(),
        at: now().before(Duration::from_secs(60)),
    };
    node_to_wire(&record, Some(&ban), None)
}

#[test]
fn a_node_is_shown_with_what_its_machine_has() {
    golden("nodes-show-ready-text", &plain(&shown(&ready(), Some(&survey()), now())));
    golden("nodes-show-banned-text", &plain(&shown(&banned(), None, now())));
    golden(
        "nodes-show-banned-json",
        &format!("{:#}", forms::node_with_facts(&banned(), None).expect("plain data")),
    );
}

#[test]
fn the_facts_are_in_the_json_form() {
    let value = forms::node_with_facts(&ready(), Some(&survey())).expect("plain data");
    assert_eq!(value.pointer("/facts/cpu/threads"), Some(&json!(128)));
    assert_eq!(value["capacity"]["cpu"], "128");
}

#[test]
fn the_list_shows_how_nodes_stand() {
    let nodes = [ready(), banned()];
    golden("nodes-list-text", &plain(&NODES.table(&nodes, false, true, now())));
    golden("nodes-list-wide", &plain(&NODES.table(&nodes, true, true, now())));
}
