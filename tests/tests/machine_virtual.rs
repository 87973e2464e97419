//! The whole of it once more on a virtual machine: a kernel, modules, settings and
//! control groups (version 2) that are its own, a TPM, and a power that can be cut.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops where something is not as expected"
)]

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use berth_machine::Machine;
use berth_tests::{Inventory, MachineWorld, eventually, pod_on};
use data_encoding::HEXLOWER;

#[test]
fn a_virtual_machine_becomes_a_node_is_given_back_and_comes_again_through_a_power_cut() {
    let Some(world) = MachineWorld::start_virtual() else { return };
    let began = Instant::now();
    let mut machine = world.machine(NAME);
    println!("it runs after {:?}", began.elapsed());
    its_kernel_is_its_own(&machine);
    let before = Inventory::of(&machine);

    machine.sh("sysctl -q -w fs.inotify.max_user_instances=1").expect("nothing is left of them");
    world.join(&machine);
    its_inotify_instances_are_used_up(&world, &machine);
    println!("bare to Ready: {:?}", world.ready(&machine));
    let set_up = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/bridge-nf-call-iptables; \
        grep -cE '^(overlay|br_netfilter) ' /proc/modules";
    assert_eq!(machine.sh(set_up).expect("a shell"), "1\n1\n2\n", "settings and modules for real");
    a_pod_runs(&world);
    let key = endorsement_key(&world);
    println!("its TPM's endorsement key: {key}");

    machine.sh("systemctl stop berth-agent").expect("the agent stops");
    machine.sh("berth-agent leave && berth-agent reset --forget-machine").expect("it gives the machine back");
    let difference = before.differences(&Inventory::of(&machine));
    assert!(difference.is_empty(), "the machine is not as it was: {difference:#?}");
    assert_eq!(machine.sh("cat /proc/sys/net/ipv4/ip_forward").expect("a shell"), "0\n");

    // Once more, and its power is cut while files are laid; nobody does anything then.
    let node =
        || world.cluster.api().request("GET", &format!("/api/v1/nodes/{NAME}"), None).expect("an answer");
    assert_eq!(node().0, 404, "it has left");
    machine.sh("systemctl enable --quiet berth-agent").expect("it starts with the machine");
    world.join(&machine);
    eventually("the bundle's files arrive", SOON, || {
        let there = machine.sh("ls /usr/local/bin/kubelet").is_ok();
        there.then_some(())
    });
    machine.cut().expect("its power is cut");
    assert_eq!(node().0, 404, "it was cut before it was a node");
    let began = Instant::now();
    machine.boot().expect("it starts on the same disk");
    println!("it runs again after {:?}", began.elapsed());
    println!("Ready by itself: {:?} after that", world.ready(&machine));
    assert_eq!(endorsement_key(&world), key, "the TPM is the same");
    its_files_are_whole(&world, &machine);
}

/// Control groups of version 2, and none of what a node needs, though it could be had.
fn its_kernel_is_its_own(machine: &Machine) {
    let found = "stat --file-system --format=%T /sys/fs/cgroup; cat /proc/sys/net/ipv4/ip_forward; \
        grep -cE '^(overlay|br_netfilter) ' /proc/modules || true; cat /sys/class/tpm/tpm0/tpm_version_major";
    assert_eq!(machine.sh(found).expect("a shell"), "cgroup2fs\n0\n0\n2\n");
    let release = machine.sh("uname -r").expect("a shell");
    let hosts = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the host's kernel");
    assert_ne!(release, hosts);
}

/// The runtime that the bundle brings cannot load its CRI plugin, and the mend that the
/// operator reads helps: the same join goes on.
fn its_inotify_instances_are_used_up(world: &MachineWorld, machine: &Machine) {
    let why = eventually("INOTIFY_EXHAUSTED is said", SOON, || {
        let told = machine.sh("systemctl show --property=StatusText berth-agent").ok()?;
        let joins = world.server.admin_json(&["joins", "list"]);
        let why = joins.pointer("/joins/0/diagnosis").cloned()?;
        let code = why.pointer("/code")?.as_str()?;
        (code == "INOTIFY_EXHAUSTED" && told.contains(code)).then_some(why)
    });
    let text = |pointer: &str| why.pointer(pointer).and_then(|text| text.as_str()).unwrap_or_default();
    assert_eq!((text("/values/found"), text("/values/wanted")), ("1", "1024"), "{why:#}");
    machine.sh(text("/mend")).expect("the mend");
    let lasts = "cat /etc/sysctl.d/91-inotify.conf && rm /etc/sysctl.d/91-inotify.conf";
    assert_eq!(machine.sh(lasts).expect("it lasts"), "fs.inotify.max_user_instances=1024\n");
}

/// It has an address of its node's range, answers there, logs, and takes commands.
fn a_pod_runs(world: &MachineWorld) {
    let script =
        "echo hello from $(hostname); mkdir /www; echo a page >/www/index.html; exec httpd -f -p 80 -h /www";
    world.cluster.apply(&pod_on(NAME, "web", script).to_string()).expect("a pod is taken");
    world.kubectl_says(&["get", "pod", "web", "--output=jsonpath={.status.phase}"], "Running");
    world.kubectl_says(&["logs", "web"], "hello from web\n");
    world.kubectl_says(&["exec", "web", "--", "wget", "-q", "-O", "-", "http://127.0.0.1/"], "a page\n");
    let address = world.kubectl(&["get", "pod", "web", "--output=jsonpath={.status.podIP}"]);
    let range = world.kubectl(&["get", "node", NAME, "--output=jsonpath={.spec.podCIDR}"]);
    assert!(address.starts_with(range.trim_end_matches("0/24")), "{address} {range}");
    world.kubectl(&["delete", "pod", "web", "--wait=false"]);
}

/// What the operator reads of the machine's TPM.
fn endorsement_key(world: &MachineWorld) -> String {
    let shown = world.server.admin_json(&["nodes", "show", NAME]);
    let key = shown.pointer("/facts/tpm/endorsementKey").and_then(|key| key.as_str());
    let key = key.unwrap_or_else(|| panic!("no endorsement key in {shown:#}"));
    let hash = key.strip_prefix("sha256:").unwrap_or_default();
    assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{key}");
    key.to_owned()
}

/// What was cut off while it was written is whole, and nothing half written is left.
fn its_files_are_whole(world: &MachineWorld, machine: &Machine) {
    let parts = world.parts();
    for (file, path) in [
        (parts.kubelet().expect("a kubelet"), "/usr/local/bin/kubelet"),
        (parts.folder().join("bin/containerd"), "/usr/local/bin/containerd"),
    ] {
        let content = std::fs::read(&file).expect("a part");
        let wanted = HEXLOWER.encode(digest(&SHA256, &content).as_ref());
        let found = machine.sh(&format!("sha256sum <{path}")).expect("it is there");
        assert_eq!(found.split(' ').next(), Some(wanted.as_str()), "{path}");
    }
    assert_eq!(machine.sh("kubelet --version").expect("it runs").trim_end().split(' ').count(), 2);
}

const NAME: &str = "v1";
/// What one step may take on an emulated machine.
const SOON: Duration = Duration::from_secs(120);
