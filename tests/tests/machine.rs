//! The whole of it, on bare machines: nothing of Kubernetes on them, one token, and
//! at the end Nodes that run pods; then given back as they were.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops where something is not as expected"
)]

use std::thread;
use std::time::Duration;

use berth_kubernetes::{Cluster, Deed};
use berth_machine::{CONTROL, Machine};
use berth_tests::{Inventory, LEAVING, MachineWorld, Running, eventually, leaving_right, pod_on};
use serde_json::{Value, json};

#[test]
fn bare_machines_become_nodes_that_run_pods_and_are_given_back() {
    let folder = tempfile::tempdir().expect("a directory");
    let inventory = folder.path().join("inventory.yaml");
    std::fs::write(&inventory, of_n2_alone().to_string()).expect("an inventory");
    let configuration = |_: &Cluster| json!({ "kubernetes": { "inventory": inventory } });
    let Some(world) = MachineWorld::with(configuration) else { return };
    let (one, other) = (world.machine("n1"), world.machine("n2"));
    let before = Inventory::of(&one);

    // Both at once, by the bundle alone: there is no way to any registry.
    world.join(&one);
    world.join(&other);
    let waited = thread::scope(|scope| {
        let of_other = scope.spawn(|| world.ready(&other));
        [world.ready(&one), of_other.join().unwrap_or_else(|_| panic!("n2 did not become a node"))]
    });
    println!("bare to Ready, two at once: {waited:?}");
    assert_eq!(one.sh("ls /etc/credstore").expect("a list"), "", "no token is left on the disk");

    let address = pods_run(&world);
    // Over the network, from a pod of the other node, whose address it sees.
    world.kubectl_says(
        &["exec", "client", "--", "wget", "-q", "-O", "-", &format!("http://{address}/")],
        "a page\n",
    );
    serving_certificates_are_their_own(&world, &one);
    a_node_that_claims_what_is_not_its_own_gets_nothing(&world, &one, &other);
    the_right_to_approve_is_named_while_it_lacks(&world, &one);

    it_leaves_once_its_pods_may_go(&world, &one);
    one.sh("berth-agent reset --forget-machine").expect("it gives the machine back");
    let difference = before.differences(&Inventory::of(&one));
    assert!(difference.is_empty(), "the machine is not as it was: {difference:#?}");

    // It can come again.
    world.join(&one);
    world.ready(&one);
}

/// A web server on n1 and a client on n2: they run, log and take commands; the web
/// server's address.
fn pods_run(world: &MachineWorld) -> String {
    let serve =
        "echo hello from $(hostname); mkdir /www; echo a page >/www/index.html; exec httpd -f -p 80 -h /www";
    let pods = [pod_on("n1", "web", serve), pod_on("n2", "client", "exec sleep 3600")];
    world.cluster.apply(&pods.map(|pod| pod.to_string()).join("\n---\n")).expect("pods are taken");
    for name in ["web", "client"] {
        world.kubectl_says(&["get", "pod", name, "--output=jsonpath={.status.phase}"], "Running");
    }
    world.kubectl_says(&["logs", "web"], "hello from web\n");
    world.kubectl_says(&["exec", "web", "--", "hostname"], "web\n");
    let address = world.kubectl(&["get", "pod", "web", "--output=jsonpath={.status.podIP}"]);
    let range = world.kubectl(&["get", "node", "n1", "--output=jsonpath={.spec.podCIDR}"]);
    assert!(
        range.ends_with(".0/24") && address.starts_with(range.trim_end_matches("0/24")),
        "{address} {range}"
    );
    address
}

/// `kubectl exec` went over a verified certificate: here is who approved it.
fn serving_certificates_are_their_own(world: &MachineWorld, one: &Machine) {
    let requests = world.cluster.api().get(REQUESTS).expect("requests");
    let items = requests["items"].as_array().cloned().unwrap_or_default();
    let serving: Vec<Value> = items
        .into_iter()
        .filter(|request| request["spec"]["signerName"] == SERVING)
        .filter(|request| request["spec"]["username"] == format!("system:node:{}", one.name()))
        .collect();
    assert_eq!(serving.len(), 1, "{serving:#?}");
    assert_eq!(serving[0]["status"]["conditions"][0]["reason"], "BerthDialledBack", "{serving:#?}");
}

/// The node, by its own identity, asks for names that are another's, the cluster's, or
/// everybody's; the operator reads which and why.
fn a_node_that_claims_what_is_not_its_own_gets_nothing(world: &MachineWorld, one: &Machine, other: &Machine) {
    let kubeconfig = world.cluster.node_kubeconfig("n1").expect("the node's identity");
    let address = |machine: &Machine| machine.address().expect("an address").to_string();
    let (own, others, servers) = (address(one), address(other), CONTROL.to_string());
    let claims = [
        [others.as_str(), "n1"],
        [servers.as_str(), "n1"],
        [own.as_str(), "kubernetes"],
        [own.as_str(), "*.example"],
        [own.as_str(), "n2"],
        // One that the inventory gives to another node, and one that it gives to nobody.
        [OF_N2, "n1"],
        [OF_NOBODY, "n1"],
    ];
    for (number, claim) in claims.iter().enumerate() {
        let name = format!("false-{number}");
        world.cluster.ask_to_serve_as("n1", &kubeconfig, &name, claim).expect("a node may ask");
        let wrong = if claim[0] == own { claim[1] } else { claim[0] };
        eventually(&format!("a word on {claim:?}"), SEEN_WITHIN, || {
            let told = world.server.admin_json(&["nodes", "show", "n1"]).to_string();
            ["SERVING_NAME_UNPROVEN", &name, wrong].iter().all(|word| told.contains(word)).then_some(())
        });
        let path = format!("{REQUESTS}/{name}");
        let request = world.cluster.api().get(&path).expect("the request is there");
        assert_eq!(request["status"], json!({}), "{claim:?}");
        world.kubectl(&["delete", "certificatesigningrequest", &name]);
    }
}

/// An inventory that knows of one address, and whose it is.
fn of_n2_alone() -> Value {
    json!({
        "apiVersion": "config.berth.dev/v1alpha1", "kind": "NodeInventory",
        "nodes": [{ "name": "n2", "addresses": [OF_N2] }],
    })
}

/// A rightful request waits for the rule that lets the server approve it, and for
/// nothing else.
fn the_right_to_approve_is_named_while_it_lacks(world: &MachineWorld, one: &Machine) {
    let all = world.cluster.rules(None).expect("rules");
    let rest: Vec<Value> =
        all.iter().filter(|rule| rule["resourceNames"] != json!([SERVING])).cloned().collect();
    assert_eq!(rest.len() + 1, all.len(), "{all:#?}");
    let change = |rules: &[Value], allowed: bool| {
        world.cluster.set_rules(None, rules).expect("they are taken");
        let (group, resource) = ("certificates.k8s.io", "signers");
        let deed = Deed { namespace: None, verb: "approve", group, resource, name: SERVING };
        eventually("the API server heeds it", SEEN_WITHIN, || {
            (world.cluster.account_may(&deed).expect("an answer") == allowed).then_some(())
        });
    };
    change(&rest, false);
    let kubeconfig = world.cluster.node_kubeconfig("n1").expect("the node's identity");
    let address = one.address().expect("an address").to_string();
    world.cluster.ask_to_serve_as("n1", &kubeconfig, "rightful", &[&address, "n1"]).expect("a node may ask");
    eventually("a word on the rule", SEEN_WITHIN, || {
        let told = world.server.admin_json(&["nodes", "show", "n1"]).to_string();
        ["CLUSTER_PERMISSION_MISSING", "signers", "approve"]
            .iter()
            .all(|word| told.contains(word))
            .then_some(())
    });
    change(&all, true);
    eventually("the request is approved", SEEN_WITHIN, || {
        let request = world.cluster.api().get(&format!("{REQUESTS}/rightful")).ok()?;
        (request["status"]["conditions"][0]["reason"] == "BerthDialledBack").then_some(())
    });
}

/// Of what a leave needs the server first has no right to anything: each is named when its
/// turn comes. A disruption budget keeps the one pod of its kind where it is; both sides say
/// so, and once it is loosened the same leave goes on. Nothing of the node is left in the
/// cluster.
fn it_leaves_once_its_pods_may_go(world: &MachineWorld, one: &Machine) {
    let held = json!({"app": "held"});
    let mut template = pod_on("n1", "held", "exec sleep 3600");
    let spec = template["spec"].as_object_mut().expect("a pod");
    // By the scheduler, or the next one would be forced onto a node that takes none.
    spec.remove("nodeName");
    spec.insert("nodeSelector".into(), json!({"kubernetes.io/hostname": "n1"}));
    let objects = [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "held", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": held},
                "template": {"metadata": {"labels": held}, "spec": template["spec"]},
            },
        }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "held", "namespace": "default"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": held}},
        }),
    ];
    world.cluster.apply(&objects.map(|object| object.to_string()).join("\n---\n")).expect("they are taken");
    world.kubectl_says(
        &["get", "poddisruptionbudget", "held", "--output=jsonpath={.status.currentHealthy}"],
        "1",
    );

    let all = world.cluster.rules(None).expect("rules");
    let grant = |rights: usize| {
        let is_granted = |rule: &&Value| leaving_right(rule).is_none_or(|right| right < rights);
        let rules: Vec<Value> = all.iter().filter(is_granted).cloned().collect();
        assert_eq!(rules.len() + LEAVING.len() - rights, all.len(), "{all:#?}");
        world.cluster.set_rules(None, &rules).expect("they are taken");
    };
    grant(0);
    let deed = Deed { namespace: None, verb: "delete", group: "", resource: "nodes", name: "" };
    eventually("the API server heeds it", SEEN_WITHIN, || {
        (!world.cluster.account_may(&deed).expect("an answer")).then_some(())
    });
    let leave = Running::start_command(one.command(&["berth-agent", "leave"]).expect("a command"), |_| {});
    let says = |words: &[&str]| {
        eventually(&format!("the machine says {words:?}"), SEEN_WITHIN, || {
            let told = leave.stderr();
            words.iter().all(|words| told.contains(words)).then_some(())
        });
    };
    let lacks = |right: usize| {
        let (kind, verb) = LEAVING[right];
        says(&[&format!("- {{apiGroups: [\"\"], resources: [\"{kind}\"], verbs: [\"{verb}\"]")]);
        grant(right + 1);
    };
    lacks(0);
    lacks(1);
    says(&[
        "DISRUPTION_BUDGET_REACHED",
        "default/held-",
        "kubectl get poddisruptionbudgets --namespace default",
    ]);
    let told = world.server.admin_json(&["nodes", "show", "n1"]).to_string();
    assert!(told.contains("DISRUPTION_BUDGET_REACHED") && told.contains("disruption budget held"), "{told}");
    world.kubectl_says(&["get", "node", "n1", "--output=jsonpath={.spec.unschedulable}"], "true");

    let loosened = r#"{"spec":{"minAvailable":0}}"#;
    world.kubectl(&["patch", "poddisruptionbudget", "held", "--type=merge", "--patch", loosened]);
    lacks(2);
    let left = leave.wait(Duration::from_secs(60)).expect_success();
    assert!(left.stdout.contains("no longer the node n1"), "{}", left.all());
    let node = world.cluster.api().request("GET", "/api/v1/nodes/n1", None).expect("an answer");
    assert_eq!(node.0, 404, "{}", node.1);
    let pods = world.kubectl(&[
        "get",
        "pods",
        "--all-namespaces",
        "--field-selector=spec.nodeName=n1",
        "--output=name",
    ]);
    assert_eq!(pods, "", "pods that are still said to be on it");
    assert_eq!(
        one.sh("systemctl is-active kubelet berth-agent || true").expect("systemctl"),
        "inactive\ninactive\n"
    );
    world.kubectl(&["delete", "deployment", "held"]);
}

/// The promise of docs/diagnosis.md, by an agent that says how it stands now and then.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// Addresses that no machine here has (RFC 5737).
const OF_N2: &str = "203.0.113.8";
const OF_NOBODY: &str = "203.0.113.9";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
