//! Bare machines stand, are reached, are cut off and come back, and leave nothing.

#![expect(clippy::expect_used, reason = "a test stops where the world is not as it must be")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, Options};
use berth_machine::{CONTROL, World, ground_for_tests};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_machine_is_bare_and_runs_and_leaves_nothing() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    let began = Instant::now();
    let machine = world.machine("n1").expect("a machine that runs");
    let took = began.elapsed();
    assert!(took < SOON, "it took {took:?}");

    let of_kubernetes = "command -v kubelet containerd runc crictl ctr kubeadm || true; \
        ls -d /etc/kubernetes /var/lib/kubelet /etc/containerd /var/lib/containerd /etc/cni /opt/cni 2>/dev/null || true";
    assert_eq!(machine.sh(of_kubernetes).expect("a shell"), "");
    assert_eq!(machine.sh("hostname; cat /proc/1/comm").expect("a shell"), "n1\nsystemd\n");
    assert_eq!(machine.sh("cat /proc/sys/net/ipv4/ip_forward").expect("a shell"), "0\n");
    // Its processes are its own, and its control groups' root is not the host's.
    let processes = machine.sh("ls /proc | grep -c '^[0-9]*$'").expect("a shell");
    assert!(processes.trim().parse::<u32>().expect("a number") < 40, "{processes}");
    assert_eq!(
        machine.sh("systemctl show --property=ControlGroup dbus.service").expect("systemctl"),
        "ControlGroup=/system.slice/dbus.service\n"
    );

    // A setting that is the whole host's is the machine's own.
    let before = fs::read_to_string("/proc/sys/kernel/panic").expect("the host's setting");
    machine.sh("echo 77 >/proc/sys/kernel/panic").expect("the machine's setting is written");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/panic").expect("the host's setting"), before);

    let (folder, network) = (world.folder().to_owned(), world.network());
    let process = machine.process().expect("it runs");
    world.clear().expect("it is cleared away");
    assert_nothing_is_left(&folder, &network, process);
}

#[test]
fn a_machine_that_was_cut_off_comes_back_with_its_disk() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    let mut machine = world.machine("n1").expect("a machine that runs");
    machine
        .sh("echo kept >/etc/kept; echo kept >/var/kept; echo gone >/run/gone ; systemd-run --quiet sleep 1000")
        .expect("a shell");
    machine.cut().expect("it is cut off");
    assert!(machine.process().is_none() && machine.sh("true").is_err());
    machine.boot().expect("it comes back");
    assert_eq!(
        machine.sh("cat /etc/kept /var/kept; ls /run/gone 2>/dev/null || true").expect("a shell"),
        "kept\nkept\n"
    );
}

#[test]
fn machines_and_the_control_plane_reach_each_other() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    world.enter().expect("its network");
    let options = Options { address: CONTROL.into(), ..Options::default() };
    let cluster = Cluster::start(&options).expect("a control plane in it");
    let (one, other) = (world.machine("n1").expect("a machine"), world.machine("n2").expect("a machine"));

    let api = cluster.api().address();
    let line = format!("exec 3<>/dev/tcp/{}/{}; echo reached", api.ip(), api.port());
    let said = one.run(&["bash", "-c", &line], SOON).expect("bash");
    assert_eq!(said.stdout, "reached\n", "{}", said.stderr);

    let address = other.address().expect("its address");
    let socat = ["systemd-run", "--quiet", "socat", "TCP-LISTEN:10250,reuseaddr,fork", "SYSTEM:hostname"];
    assert_eq!(other.run(&socat, SOON).expect("systemd-run").code, Some(0));
    let from_a_machine =
        one.sh(&format!("socat -t 5 - TCP:{address}:10250,retry=50,interval=0.1 </dev/null"));
    assert_eq!(from_a_machine.expect("socat"), "n2\n");
    let mut from_here = TcpStream::connect((address, 10250)).expect("the kubelet's port is reached");
    from_here.write_all(b"\n").expect("it takes a line");
    let mut heard = String::new();
    from_here.read_to_string(&mut heard).expect("it answers");
    assert_eq!(heard, "n2\n");
}

/// Not a process, a mount, a name of a namespace, a control group or a file.
fn assert_nothing_is_left(folder: &Path, network: &Path, process: u32) {
    assert!(!folder.exists() && !network.exists() && !Path::new(&format!("/proc/{process}")).exists());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the host's mounts");
    let here = folder.display().to_string();
    assert!(!mounts.contains(&here), "{here} is still mounted");
    let name = network.file_name().expect("a name").to_string_lossy().into_owned();
    let mark = format!("BERTH_WORLD={here}");
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let ours = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        assert!(!ours, "{} lives on", entry.path().display());
    }
    let own = fs::read_to_string("/proc/self/cgroup").expect("own control groups");
    for line in own.lines() {
        let path = line.rsplit(':').next().unwrap_or_default();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
            let group = hierarchy.path().join(path.trim_start_matches('/'));
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                let left = entry.file_name().to_string_lossy().starts_with(&name);
                assert!(!left, "{} is left", entry.path().display());
            }
        }
    }
}
