//! The network of pods by an add-on of the cluster's: machines join with nothing of it,
//! wait and say so, and become nodes once flannel has come by itself.

#![expect(clippy::print_stdout, reason = "how long it took is worth a line")]

use std::time::Duration;

use berth_machine::{flannel_for_tests, flannel_manifest};
use berth_tests::{MachineWorld, eventually, pod_on};
use serde_json::json;

#[test]
fn machines_wait_for_an_add_on_that_brings_the_network_of_pods_and_it_comes_by_itself() {
    let Some(image) = flannel_for_tests().expect("flannel") else { return };
    let Some(world) = MachineWorld::with_images(&[image]) else { return };
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "NodeProfile", "metadata": {"name": "default"},
        "spec": {"podNetwork": "None", "kubelet": {"failCgroupV1": false, "failSwapOn": false}},
    });
    world.cluster.apply(&profile.to_string()).expect("a profile");
    let machines = [world.machine("n1"), world.machine("n2")];
    machines.iter().for_each(|machine| world.join(machine));
    for machine in &machines {
        let name = machine.name();
        eventually(&format!("{name} says what it waits for"), WAITS_WITHIN, || {
            let code =
                world.cluster.kubectl(&["get", "nodejoin", name, "-o", "jsonpath={.status.code}"]).ok()?;
            let told = machine.sh("systemctl show --property=StatusText berth-agent").ok()?;
            (code == CODE && told.contains(CODE)).then_some(())
        });
        let laid = machine.sh("ls /etc/cni/net.d 2>/dev/null || true").expect("a list");
        assert_eq!(laid, "", "Berth lays no network where an add-on does");
    }

    // Onto nodes that wait: their kubelets and what they tolerate are enough for it.
    world.cluster.apply(&flannel_manifest(world.cluster.api().address())).expect("the add-on is taken");
    for machine in &machines {
        println!("from the add-on to Ready: {:?}", world.ready(machine));
        assert_eq!(machine.sh("ls /etc/cni/net.d").expect("a list"), "10-flannel.conflist\n");
    }

    let serve = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www";
    let pods = [pod_on("n1", "one", serve), pod_on("n2", "other", serve)];
    world.cluster.apply(&pods.map(|pod| pod.to_string()).join("\n---\n")).expect("pods are taken");
    let address = |name| {
        world.kubectl_says(&["get", "pod", name, "--output=jsonpath={.status.phase}"], "Running");
        world.kubectl(&["get", "pod", name, "--output=jsonpath={.status.podIP}"])
    };
    let (one, other) = (address("one"), address("other"));
    for (from, to, says) in [("one", &other, "other\n"), ("other", &one, "one\n")] {
        world.kubectl_says(&["exec", from, "--", "wget", "-q", "-O", "-", &format!("http://{to}/")], says);
    }
    // By flannel's own routes, not by the way out that all share.
    let [first, second] = &machines;
    for (here, there, pod) in [(first, second, &other), (second, first, &one)] {
        let via = format!(" via {} dev eth0", there.address().expect("an address"));
        let route = here.sh(&format!("ip route get {pod}")).expect("a route");
        assert!(route.contains(&via), "{route}");
    }
}

const CODE: &str = "POD_NETWORK_MISSING";
/// The bundle, the runtime and the kubelet come first.
const WAITS_WITHIN: Duration = Duration::from_secs(60);
