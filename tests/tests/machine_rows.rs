//! Why a machine is not a node yet, caused on a bare machine with its own systemd and
//! a real control plane: one join meets one cause after another, says each on both
//! sides, goes on by itself once it is mended, and ends Ready. Then a reset gives the
//! machine back. Numbers are rows of the catalogue of causes.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where its world is not as it must be"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use berth_kubernetes::{Cluster, NAMESPACE, Options};
use berth_machine::{CONTROL, Ground, Machine, World, ground_for_tests};
use berth_tests::{Running, binary, eventually, http_get, system_program};
use serde_json::{Value, json};

/// The promise for a cause is 10 s; a debug build on a busy machine gets twice that.
const TOLD: Duration = Duration::from_secs(20);

#[test]
fn one_join_goes_past_every_cause_once_it_is_mended_and_a_reset_gives_the_machine_back() {
    let Some(ground) = ground_for_tests().expect("the ground of machines") else { return };
    let world = World::start(&ground, None).expect("a world");
    world.enter().expect("its network");
    let place = Place::start(&world);
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
    machine.put(&ground.parts().kubelet().expect("a kubelet"), "/usr/local/bin/kubelet").expect("a kubelet");
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

fn put_runtime(machine: &Machine, ground: &Ground) {
    let parts = ground.parts();
    let folder = parts.folder();
    for (from, to) in [("bin", "/usr/local/bin"), ("cni", "/opt/cni/bin")] {
        machine.sh(&format!("mkdir -p {to}")).expect("a directory");
        for file in std::fs::read_dir(folder.join(from)).expect("parts").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            machine.put(&file.path(), &format!("{to}/{name}")).expect("a part");
        }
    }
    machine.put(&folder.join("images/pause.tar"), "/root/pause.tar").expect("an image");
}

/// A control plane and a server beside the machines.
struct Place {
    cluster: Cluster,
    address: String,
    api: String,
    token: String,
    _folder: tempfile::TempDir,
}

impl Place {
    fn start(world: &World) -> Self {
        let options = Options { address: CONTROL.into(), ..Options::default() };
        let cluster = Cluster::start(&options).expect("a control plane");
        cluster.install("base").expect("Berth's objects");
        let profile = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "NodeProfile", "metadata": {"name": "default"},
            "spec": {"kubelet": {"failCgroupV1": false, "failSwapOn": false}},
        });
        cluster.apply(&profile.to_string()).expect("a profile");
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (address, health) = (format!("{CONTROL}:7443"), SocketAddr::from((CONTROL, 7480)));
        let api = format!("https://{}", cluster.api().address());
        let mut server = program("berth-server");
        server.args(["run", "--backend", "kubernetes", "--namespace", NAMESPACE, "--api-endpoint", &api]);
        server.arg("--kubeconfig").arg(cluster.account().expect("an account"));
        server.args([
            "--data-dir",
            &at("data"),
            "--admin-socket",
            &at("admin.sock"),
            "--advertise",
            &address,
        ]);
        server.args(["--join-listen", &address, "--health-listen", &health.to_string()]);
        world.start_process("berth-server", server).expect("a server");
        eventually("the server is ready", TOLD, || {
            http_get(health, "/readyz").filter(|(code, _)| *code == 200)
        });
        let mut operator = program("berth-server");
        operator.args(["token", "create", "-o", "json", "--admin-socket", &at("admin.sock")]);
        let made = Running::start_command(operator, |_| {}).wait(TOLD).expect_success().json();
        let token = made["token"].as_str().expect("a token").to_owned();
        Self { cluster, address, api, token, _folder: folder }
    }

    /// The diagnosis of this code, once both sides have said it.
    fn told(&self, join: &Running, code: &str) -> Value {
        let told = eventually(code, TOLD, || {
            let said = join.stdout();
            let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines
                .filter(|line| line["type"] == "waiting")
                .map(|line| line["diagnosis"].clone())
                .find(|why| why["code"] == code)
        });
        eventually(&format!("the operator sees {code}"), TOLD, || {
            let seen = self.kubectl(&["get", "nodejoin", "n1", "-o", "jsonpath={.status.code}"]);
            (seen == code).then_some(())
        });
        told
    }

    /// Approves the kubelet's serving certificate, where the server leaves that to people.
    fn approve_what_waits(&self, join: &Running) {
        eventually("the node is ready", TOLD, || {
            let listed = self.kubectl(&["get", "csr", "--no-headers"]);
            for request in listed.lines().filter(|line| line.contains("Pending")) {
                let name = request.split(' ').next().unwrap_or_default();
                self.kubectl(&["certificate", "approve", name]);
            }
            join.stdout().contains("\"type\":\"result\"").then_some(())
        });
    }

    fn kubectl(&self, words: &[&str]) -> String {
        self.cluster.kubectl(words).unwrap_or_default()
    }
}

fn program(name: &str) -> std::process::Command {
    let path = binary(name);
    system_program(&Path::new(&path).display().to_string())
}

fn value<'a>(why: &'a Value, key: &str) -> &'a str {
    why["values"][key].as_str().unwrap_or_default()
}

fn mend(why: &Value) -> &str {
    why["mend"].as_str().unwrap_or_default()
}

const DROP_INS: &str = "/etc/kubernetes/kubelet.conf.d";
const WRONG: &str =
    r#"{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","maxPods":-1}"#;
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.1.0/24"}]]}}]}"#;
