//! Why a machine is not a node yet, by causes of its own kernel, runtime and kubelet:
//! one join meets one after another, says each on both sides, goes on by itself once it
//! is mended as it says, and ends Ready. Numbers are rows of the catalogue of causes.
//!
//! A machine of namespaces has no kernel of its own. What is the whole host's is caused
//! by the nearest thing to it: the machine sees another file in the kernel's place
//! (`/proc/swaps`, `/proc/filesystems`), or one that it may not write.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops where its world is not as it must be, and says what it left out"
)]

use berth_machine::{Ground, Machine, PAUSE, World, ground_for_tests};
use berth_tests::{Place, Running, TOLD, binary, eventually, mend, put_runtime, value};
use serde_json::json;

#[test]
fn one_join_goes_past_what_kernel_runtime_and_kubelet_have_in_its_way() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    world.enter().expect("its network");
    let place = Place::start(&world, &json!({}));
    let machine = world.machine("n1").expect("a machine that runs");
    machine.put(&binary("berth-agent"), "/usr/local/bin/berth-agent").expect("the agent");
    machine.put(&ground.parts().kubelet().expect("a kubelet"), "/usr/local/bin/kubelet").expect("a kubelet");
    hide_from_the_kernel(&machine);
    the_owner_says_to_the_kubelet(&machine);

    let words = ["berth-agent", "join", &place.address, "--token-file", "/run/token", "-o", "json"];
    machine.sh(&format!("umask 077; echo {} >/run/token", place.token)).expect("a token");
    let join = Running::start_command(machine.command(&words).expect("a command"), |_| {});

    of_the_kernel(&place, &machine, &join);
    of_the_runtime(&place, &machine, &join, &ground);
    of_the_kubelet(&place, &machine, &join);

    let ended = join.wait(TOLD).expect_success();
    assert!(ended.stdout.contains("\"n1\""), "{}", ended.all());
    assert_eq!(place.kubectl(&["get", "node", "n1", "--output=jsonpath={.spec.taints}"]), "");
}

/// Rows 4, 3, 1, 2, in the order in which a join looks.
fn of_the_kernel(place: &Place, machine: &Machine, join: &Running) {
    let told = place.told(join, "SYSCTL_WRONG"); // 4
    assert_eq!((value(&told, "sysctl"), value(&told, "wanted")), ("net.ipv4.ip_forward", "1"), "{told:#}");
    assert!(value(&told, "found").contains("0 (Read-only file system"), "{told:#}");
    machine.sh(&format!("umount {FORWARD}; {}", mend(&told))).expect("the mend");

    let told = place.told(join, "KERNEL_MODULE_MISSING"); // 3
    assert_eq!(value(&told, "module"), "overlay", "{told:#}");
    assert!(mend(&told).starts_with("modprobe overlay"), "{told:#}");
    machine.sh("umount /proc/filesystems /sys/module").expect("the module is there again");

    let told = place.told(join, "SWAP_ON"); // 1
    assert_eq!(value(&told, "areas"), "/swapfile", "{told:#}");
    assert!(mend(&told).starts_with("swapoff --all"), "{told:#}");
    machine.sh("umount /proc/swaps").expect("swap is off");

    // 2: only a host whose control groups are of version 1 can show it.
    if machine.sh("stat --file-system --format=%T /sys/fs/cgroup").expect("stat") == "cgroup2fs\n" {
        eprintln!("NOT RUN: row 2, as this host's control groups are of version 2, which no mount hides");
        return;
    }
    let told = place.told(join, "CGROUP_VERSION1");
    assert!(mend(&told).contains("failCgroupV1: false"), "{told:#}");
    place.set_profile(&json!({ "failCgroupV1": false }));
}

/// Rows 5 and 6: there is no runtime; then there is one that its owner has set, wrongly:
/// its CRI plugin is switched off, then it cannot load for a setting, then for want of
/// inotify instances. Those are the whole host's, so the unit is refused them alone.
fn of_the_runtime(place: &Place, machine: &Machine, join: &Running, ground: &Ground) {
    let told = place.told(join, "RUNTIME_MISSING"); // 5
    assert!(value(&told, "sockets").contains("/run/containerd/containerd.sock"), "{told:#}");
    assert!(mend(&told).contains("apt-get install containerd"), "{told:#}");
    put_runtime(machine, ground);
    let configuration = format!(
        "disabled_plugins = ['io.containerd.grpc.v1.cri']\n{CONTAINERD}\
         [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'nothing'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n"
    );
    let unit = "[Service]\nType=notify\nExecStart=/usr/local/bin/containerd\nDelegate=yes\nKillMode=process\nSystemCallFilter=~inotify_init1:EMFILE\n";
    machine
        .sh(&format!(
            "mkdir -p /etc/containerd /etc/cni/net.d; printf '%s' {} >/etc/cni/net.d/10-test.conflist
            printf '%s' {} >/etc/containerd/config.toml
            printf '%s' {} >/etc/systemd/system/containerd.service; systemctl daemon-reload; systemctl start containerd",
            quoted(NETWORK),
            quoted(&configuration),
            quoted(unit)
        ))
        .expect("its owner starts it");

    let told = place.told(join, "CRI_DISABLED"); // 6
    assert_eq!(value(&told, "socket"), "/run/containerd/containerd.sock", "{told:#}");
    assert!(mend(&told).contains("disabled_plugins"), "{told:#}");
    machine
        .sh("sed -i /disabled_plugins/d /etc/containerd/config.toml; systemctl restart containerd")
        .expect("the mend");

    let told = place.told(join, "CRI_FAILED");
    assert!(value(&told, "error").contains("nothing"), "the setting that is at fault: {told:#}");
    machine
        .sh("sed -i /default_runtime_name/d /etc/containerd/config.toml; systemctl restart containerd")
        .expect("the mend");

    let told = place.told(join, "INOTIFY_EXHAUSTED");
    let limit = machine.sh("cat /proc/sys/fs/inotify/max_user_instances").expect("the kernel's limit");
    assert_eq!(value(&told, "found"), limit.trim(), "{told:#}");
    assert!(mend(&told).starts_with("sysctl -w fs.inotify.max_user_instances="), "{told:#}");
    machine
        .sh(&format!(
            "sed -i /SystemCallFilter/d /etc/systemd/system/containerd.service; systemctl daemon-reload
            systemctl restart containerd
            ctr --namespace k8s.io images import /root/pause.tar >/dev/null
            ctr --namespace k8s.io images tag {PAUSE} registry.k8s.io/pause:3.10.2"
        ))
        .expect("the mend");
}

/// Rows 59, 53, 55.
fn of_the_kubelet(place: &Place, machine: &Machine, join: &Running) {
    let told = place.told(join, "NODE_UNDER_PRESSURE"); // 59
    assert_eq!(value(&told, "resource"), "memory", "{told:#}");
    assert!(value(&told, "figures").contains("KubeletHasInsufficientMemory"), "{told:#}");
    assert!(mend(&told).starts_with("free some memory"), "{told:#}");
    machine.sh("rm /dev/shm/ballast").expect("the mend");

    let told = place.told(join, "CLOUD_PROVIDER_PENDING"); // 53
    let taint = "node.cloudprovider.kubernetes.io/uninitialized:NoSchedule";
    assert_eq!(value(&told, "taint"), taint, "{told:#}");
    assert!(mend(&told).contains(&format!("kubectl taint node n1 {taint}-")), "{told:#}");
    place.cluster.kubectl(&["taint", "node", "n1", &format!("{taint}-")]).expect("the mend");

    // 55: the kubelet serves on another address than its node speaks from, which Berth
    // cannot see to be its own; the operator's inventory says so.
    let told = place.told(join, "SERVING_NAME_UNPROVEN");
    assert_eq!(value(&told, "claimed"), OTHER_ADDRESS, "{told:#}");
    let request = value(&told, "request");
    assert!(mend(&told).contains(&format!("kubectl certificate approve {request}")), "{told:#}");
    assert!(mend(&told).contains("give it to n1 in berth-server's inventory"), "{told:#}");
    let inventory = json!({
        "apiVersion": "config.berth.dev/v1alpha1", "kind": "NodeInventory",
        "nodes": [{ "name": "n1", "addresses": [OTHER_ADDRESS] }],
    });
    std::fs::write(&place.inventory, inventory.to_string()).expect("the mend");
    eventually("the node is Ready", TOLD, || join.stdout().contains("\"type\":\"result\"").then_some(()));
    let reason = "jsonpath={.status.conditions[0].reason}: {.status.conditions[0].message}";
    assert_eq!(
        place.kubectl(&["get", "csr", request, "-o", reason]),
        format!("BerthInventory: each name is the node's own: the inventory gives it {OTHER_ADDRESS}")
    );
}

/// The kernel lacks a module, does not let itself be set, and swaps.
fn hide_from_the_kernel(machine: &Machine) {
    machine
        .sh(&format!(
            "grep -v overlay /proc/filesystems >/run/filesystems; mount --bind /run/filesystems /proc/filesystems
            mount -t tmpfs none /sys/module
            echo 0 >/run/forward; mount --bind /run/forward {FORWARD}; mount -o remount,bind,ro {FORWARD}
            printf 'Filename\\tType\\tSize\\tUsed\\tPriority\\n/swapfile file 1048572 0 -2\\n' >/run/swaps
            mount --bind /run/swaps /proc/swaps"
        ))
        .expect("mounts in the kernel's place");
}

/// What the machine's owner says to every kubelet: to wait for a cloud, to serve on
/// another address, and to keep more memory free than there is, until its ballast goes.
fn the_owner_says_to_the_kubelet(machine: &Machine) {
    machine
        .sh(&format!(
            "head -c {BALLAST} /dev/zero >/dev/shm/ballast; ip address add {OTHER_ADDRESS}/24 dev eth0"
        ))
        .expect("a ballast and an address");
    let used =
        "cat /sys/fs/cgroup/memory/memory.usage_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.current";
    let used: u64 = machine.sh(used).expect("what is used").trim().parse().expect("a number");
    let all = machine.sh("awk '/^MemTotal/ { print $2 }' /proc/meminfo").expect("all there is");
    let all: u64 = all.trim().parse::<u64>().expect("a number") * 1024;
    let wanted = all.saturating_sub(used) + MARGIN;
    let settings = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "evictionHard": { "memory.available": wanted.to_string() },
        "evictionPressureTransitionPeriod": "1s",
    });
    let unit = format!(
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/kubelet $BERTH_KUBELET_ARGS --cloud-provider=external --node-ip={OTHER_ADDRESS}\n"
    );
    machine
        .sh(&format!(
            "mkdir -p {DROP_INS} {UNIT}; printf '%s' {} >{DROP_INS}/99-owner.conf; printf '%s' {} >{UNIT}/90-owner.conf",
            quoted(&settings.to_string()),
            quoted(&unit)
        ))
        .expect("its owner's files");
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const OTHER_ADDRESS: &str = "10.77.0.250";
const DROP_INS: &str = "/etc/kubernetes/kubelet.conf.d";
const UNIT: &str = "/etc/systemd/system/kubelet.service.d";
/// What the owner has in memory, in bytes, and how much more than what is free then it
/// wants to have free: the node's own programs take less than the one without the other.
const BALLAST: u64 = 1 << 30;
const MARGIN: u64 = 128 << 20;
const CONTAINERD: &str = "version = 3
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/opt/cni/bin']
conf_dir = '/etc/cni/net.d'
";
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.1.0/24"}]]}}]}"#;
