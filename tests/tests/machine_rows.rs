//! Why a machine is not a node yet, caused on a bare machine with its own systemd and
//! a real control plane: one join meets one cause after another, says each on both
//! sides, goes on by itself once it is mended, and ends Ready. Then a reset gives the
//! machine back. Numbers are rows of the catalogue of causes.

#![expect(clippy::expect_used, reason = "a test stops where its world is not as it must be")]

use berth_machine::{Machine, World, ground_for_tests};
use berth_tests::{Place, Running, TOLD, binary, mend, put_runtime, value};
use serde_json::json;

#[test]
fn one_join_goes_past_every_cause_once_it_is_mended_and_a_reset_gives_the_machine_back() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    world.enter().expect("its network");
    let place = Place::start(&world, &json!({ "failCgroupV1": false, "failSwapOn": false }));
    let machine = world.machine("n1").expect("a machine that runs");
    machine.put(&binary("berth-agent"), "/usr/local/bin/berth-agent").expect("the agent");
    machine.sh("mv /usr/sbin/conntrack /usr/sbin/conntrack.off").expect("a machine without conntrack");
    let api = place.api.rsplit(':').next().expect("a port").to_owned();
    let cut = format!("OUTPUT -p tcp --dport {api} -j REJECT --reject-with tcp-reset");
    machine.sh(&format!("iptables -A {cut}")).expect("no way to the API server");
    put_runtime(&machine, &ground);
    // What the machine's owner says to every kubelet, and says wrongly.
    machine.sh(&format!("mkdir -p {DROP_INS}; echo '{WRONG}' >{DROP_INS}/99-owner.conf")).expect("a drop-in");
    let before = left(&machine);

    let words = ["berth-agent", "join", &place.address, "--token-file", "/run/token", "-o", "json"];
    machine.sh(&format!("umask 077; echo {} >/run/token", place.token)).expect("a token");
    let join = Running::start_command(machine.command(&words).expect("a command"), |_| {});

    let told = place.told(&join, "KUBELET_MISSING"); // 15
    assert!(mend(&told).contains("apt-get install kubelet"), "{told:#}");
    let kubelet = ground.parts().kubelet().expect("a kubelet");
    // The same program, but for the version that it says it is of.
    machine.put(&kubelet, "/tmp/kubelet").expect("a kubelet");
    let own = berth_kubernetes::version().replace('.', "\\.");
    let later = format!("LC_ALL=C sed 's/{own}/v1.99.9/g' /tmp/kubelet >/tmp/later && rm /tmp/kubelet");
    machine
        .sh(&format!("{later} && chmod 755 /tmp/later && mv /tmp/later /usr/local/bin/kubelet"))
        .expect("a later kubelet");
    let told = place.told(&join, "KUBELET_UNFIT"); // 15
    assert!(value(&told, "problem").contains("newer than the API server"), "{told:#}");
    assert!(mend(&told).contains("of a version from v1."), "{told:#}");
    machine.put(&kubelet, "/usr/local/bin/kubelet").expect("the mend");
    let told = place.told(&join, "TOOL_MISSING"); // 17
    assert!(mend(&told).contains("apt-get install conntrack"), "{told:#}");
    machine.sh("mv /usr/sbin/conntrack.off /usr/sbin/conntrack").expect("conntrack");

    let told = place.told(&join, "API_UNREACHABLE"); // 45
    assert!(value(&told, "error").contains("refused"), "{told:#}");
    machine.sh(&format!("iptables -D {cut}")).expect("a way to the API server");
    let told = place.told(&join, "KUBELET_FAILING"); // 49
    assert_eq!((value(&told, "status"), value(&told, "setting")), ("exit status 1", "maxPods"), "{told:#}");
    machine.sh(&format!("rm {DROP_INS}/99-owner.conf")).expect("the mend");
    let told = place.told(&join, "POD_NETWORK_MISSING"); // 52
    assert_eq!(value(&told, "found"), "nothing", "{told:#}");
    machine.sh(&format!("echo '{NETWORK}' >/etc/cni/net.d/10-test.conflist")).expect("the mend");
    let told = place.told(&join, "PAUSE_IMAGE_MISSING"); // 46
    let pause = value(&told, "image");
    let import = format!(
        "ctr --namespace k8s.io images import /root/pause.tar >/dev/null && ctr --namespace k8s.io images tag {} {pause}",
        berth_machine::PAUSE
    );
    machine.sh(&import).expect("the mend");

    place.approve_what_waits(&join);
    let ended = join.wait(TOLD).expect_success();
    assert!(ended.stdout.contains("\"n1\""), "{}", ended.all());
    assert_eq!(machine.sh("systemctl is-active containerd kubelet").expect("both"), "active\nactive\n");
    // A join by hand ends with the service that keeps the node.
    let service = "systemctl is-enabled berth-agent; systemctl is-active berth-agent";
    assert_eq!(machine.sh(service).expect("systemctl"), "enabled\nactive\n");

    machine.sh("berth-agent reset >/root/reset.txt").expect("a reset");
    let units = machine.sh("systemctl is-active containerd kubelet || true").expect("systemctl");
    assert_eq!(units, "inactive\ninactive\n");
    // The agent's record of who the machine is stays: a ban stays a ban.
    let stays = ["/etc/kubernetes/kubelet.conf.d/99-owner.conf", "/root/reset.txt"];
    let after = left(&machine);
    let differs = |one: &str, other: &str| {
        let here = |line: &&str| !other.lines().any(|there| there == *line);
        one.lines()
            .filter(here)
            .filter(|line| !stays.iter().any(|path| line.ends_with(path)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(differs(&after, &before), [""; 0], "what a join has left");
    assert_eq!(differs(&before, &after), [""; 0], "what a join has taken");
}

/// What a join might leave: files, mounts, links, settings, chains of the filter.
fn left(machine: &Machine) -> String {
    machine
        .sh("find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp \\) -prune -o -printf '%M %u %p\\n' \
             | grep -v -e /usr/local/bin/kubelet -e sbin/conntrack -e ' /var/lib/berth' -e /var/log/journal -e ' /root$' -e ' /usr/sbin$' -e ' /usr/local/bin$' \
             | sort; cut -d' ' -f5 /proc/self/mountinfo | sort -u; ls /sys/class/net; \
             cat /proc/sys/net/ipv4/ip_forward; iptables-save | grep -e KUBE -e CNI || true")
        .expect("a list")
}

const DROP_INS: &str = "/etc/kubernetes/kubelet.conf.d";
const WRONG: &str =
    r#"{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","maxPods":-1}"#;
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.1.0/24"}]]}}]}"#;
