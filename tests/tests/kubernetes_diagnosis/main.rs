//! Why a join in a real cluster waits: each cause is made for real, and within ten
//! seconds the agent's terminal and the operator's `joins explain`, at whichever
//! replica, say the same code, the values that prove it and the mend. The mend is
//! done as it was printed, and the same join goes on to Ready. The number is the
//! row of the catalogue of causes.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

mod cut;
mod join;
mod trust;

use std::time::{Duration, Instant};

use berth_kubernetes::Deed;
use berth_tests::{KubernetesWorld, eventually};
use serde_json::{Value, json};

use crate::join::{Join, text};

/// How long a cause may stay unnamed once it can be seen.
pub(crate) const PROMISE: Duration = Duration::from_secs(10);

/// What all the rest may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How far behind a replica may be that did not lead a join itself. An API server whose
/// etcd was away goes on with each kind's watch only when its own pause before the next
/// try is over, which grows with the outage, to a minute; until then its watches stand
/// and are silent.
pub(crate) const CATCHES_UP: Duration = Duration::from_secs(150);

const CLOUD_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

#[test]
fn causes_in_a_cluster_that_runs() {
    let Some(mut world) = KubernetesWorld::start(2, &json!({})) else { return };
    row_43_a_join_waits_for_a_person(&mut world);
    row_39_a_right_is_missing(&mut world);
    row_53_a_cloud_controller_is_waited_for(&mut world);
    row_55_a_serving_certificate_whose_names_nobody_can_see_waits(&mut world);
    row_58_an_admission_policy_refuses_the_node(&mut world);
    row_58_an_admission_webhook_that_is_dead_refuses_the_node(&mut world);
}

fn row_43_a_join_waits_for_a_person(world: &mut KubernetesWorld) {
    let mut join = Join::start(world, "n43", &["--approval"]);
    let told = join.waits("APPROVAL_PENDING", Instant::now());
    let id = text(&told["values"]["join"]).to_owned();
    assert_ne!(told["values"]["since"], Value::Null, "{told:#}");
    assert_eq!(told["mend"], format!("berth-server joins approve {id}"));
    join.operators_see(world, &told, Instant::now());
    assert!(world.get("/apis/berth.dev/v1alpha1/nodejoins/n43").is_none(), "no name before the word");
    let approved = world.servers[1].admin(&["joins", "approve", &id]).expect_success();
    assert!(!approved.stdout.is_empty(), "{}", approved.all());
    join.goes_on(world);
    for server in &world.servers {
        let explained = server.explain("n43");
        let events = explained["events"].as_array().cloned().unwrap_or_default();
        let approved = events.iter().find(|event| event["kind"] == "approved");
        let by = approved.map(|event| text(&event["values"]["by"]).to_owned()).unwrap_or_default();
        assert!(!by.is_empty(), "who approved it is in the record: {explained:#}");
    }
}

fn row_39_a_right_is_missing(world: &mut KubernetesWorld) {
    let deed = Deed {
        namespace: None,
        verb: "update",
        group: "certificates.k8s.io",
        resource: "certificatesigningrequests/approval",
        name: "",
    };
    let mut rules = world.cluster.rules(None).expect("the account's rules");
    let before = rules.len();
    rules.retain(|rule| rule["resources"] != json!([deed.resource]));
    assert_eq!(rules.len(), before - 1, "one rule a reason");
    world.cluster.set_rules(None, &rules).expect("it is taken");
    may_by_now(world, &deed, false);

    let mut join = Join::start(world, "n39", &[]);
    let told = join.waits("CLUSTER_PERMISSION_MISSING", Instant::now());
    let values = &told["values"];
    assert_eq!(values["verb"], "update", "{told:#}");
    assert_eq!(values["resource"], "certificatesigningrequests/approval (certificates.k8s.io)", "{told:#}");
    assert_eq!(values["account"], Value::Null, "the account is for operators: {told:#}");
    let seen = join.operators_see(world, &told, Instant::now());
    assert_eq!(seen["values"]["account"], berth_kubernetes::ACCOUNT, "{seen:#}");

    let (_, rule) = text(&told["mend"]).split_once(": ").expect("add this rule to …: RULE");
    world.cluster.add_rule(rule).expect("the printed rule is one");
    may_by_now(world, &deed, true);
    join.goes_on(world);
}

fn row_53_a_cloud_controller_is_waited_for(world: &mut KubernetesWorld) {
    let mut join = Join::start(world, "n53", &[]);
    let taints =
        format!("--register-with-taints=berth.dev/joining=:NoSchedule,{CLOUD_TAINT}=true:NoSchedule");
    join.kubelet(world, &[&taints]);
    world.cluster.wait_for_node("n53", PATIENCE).expect("all but the taint is well");
    let told = join.waits("CLOUD_PROVIDER_PENDING", Instant::now());
    assert_eq!(told["values"]["name"], "n53", "{told:#}");
    assert_eq!(told["values"]["taint"], format!("{CLOUD_TAINT}:NoSchedule"), "{told:#}");
    join.operators_see(world, &told, Instant::now());
    let (_, by_hand) = text(&told["mend"]).split_once("by hand: ").expect("a command");
    run_kubectl(world, by_hand);
    join.ends_ready(world);
}

fn row_55_a_serving_certificate_whose_names_nobody_can_see_waits(world: &mut KubernetesWorld) {
    let mut join = Join::start(world, "n55", &[]);
    let files = join.files(world);
    let request = world.cluster.ask_for_serving("n55", files.kubeconfig()).expect("a node may ask");
    join.kubelet(world, &["--register-with-taints=berth.dev/joining=:NoSchedule"]);
    world.cluster.wait_for_node("n55", PATIENCE).expect("all but the request is well");
    // It names no address that the server could dial: docs/kubernetes.md.
    let told = join.waits("SERVING_NAME_UNPROVEN", Instant::now());
    assert_eq!((&told["values"]["name"], &told["values"]["request"]), (&json!("n55"), &json!(request)));
    assert_eq!(told["values"]["claimed"], "1 names", "{told:#}");
    join.operators_see(world, &told, Instant::now());
    let (_, by_hand) = text(&told["mend"]).split_once("by hand: ").expect("a command");
    assert_eq!(by_hand, format!("kubectl certificate approve {request}"));
    run_kubectl(world, by_hand);
    join.ends_ready(world);
}

fn row_58_an_admission_policy_refuses_the_node(world: &mut KubernetesWorld) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "no-nodes" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nodes"],
            }] },
            "validations": [{ "expression": "false", "message": "the racks are full" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "no-nodes" },
        "spec": { "policyName": "no-nodes", "validationActions": ["Deny"] },
    });
    world.cluster.apply(&policy.to_string()).expect("it is taken");
    world.cluster.apply(&binding.to_string()).expect("it is taken");
    nodes_are_taken_by_now(world, false);

    let mut join = Join::start(world, "n58", &[]);
    join.kubelet(world, &[]);
    let told = join.waits("ADMISSION_REFUSED", Instant::now());
    assert_eq!(told["values"]["by"], "the ValidatingAdmissionPolicy no-nodes", "{told:#}");
    assert_eq!(told["values"]["message"], "the racks are full", "{told:#}");
    assert_eq!(told["values"]["object"], "Node n58", "{told:#}");
    assert!(text(&told["mend"]).contains("the ValidatingAdmissionPolicy no-nodes"), "{told:#}");
    join.operators_see(world, &told, Instant::now());
    world.kubectl(&["delete", "validatingadmissionpolicybinding", "no-nodes"]);
    join.ends_ready(world);
}

fn row_58_an_admission_webhook_that_is_dead_refuses_the_node(world: &mut KubernetesWorld) {
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "dead" },
        "webhooks": [{
            "name": "nodes.dead.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            // The discard port: nobody is there.
            "clientConfig": { "url": "https://127.0.0.1:9/" },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nodes"],
            }],
        }],
    });
    world.cluster.apply(&webhook.to_string()).expect("it is taken");
    nodes_are_taken_by_now(world, false);

    let mut join = Join::start(world, "n58b", &[]);
    join.kubelet(world, &[]);
    let told = join.waits("ADMISSION_REFUSED", Instant::now());
    assert_eq!(told["values"]["by"], "the admission webhook nodes.dead.example", "{told:#}");
    assert!(text(&told["values"]["message"]).contains("refused"), "{told:#}");
    join.operators_see(world, &told, Instant::now());
    world.kubectl(&["delete", "validatingwebhookconfiguration", "dead"]);
    join.ends_ready(world);
}

/// Waits until the API server heeds what was changed of the account's rights.
fn may_by_now(world: &KubernetesWorld, deed: &Deed<'_>, wanted: bool) {
    eventually("rights that are heeded", PATIENCE, || {
        (world.cluster.account_may(deed).expect("an answer") == wanted).then_some(())
    });
}

/// Waits until the API server heeds what was changed of admission.
fn nodes_are_taken_by_now(world: &KubernetesWorld, wanted: bool) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "probe" } });
    eventually("admission that is heeded", PATIENCE, || {
        let asked = world.cluster.api().request("POST", "/api/v1/nodes?dryRun=All", Some(&node));
        let (status, _) = asked.expect("an answer");
        ((status == 201) == wanted).then_some(())
    });
}

/// Runs a command line that was printed.
fn run_kubectl(world: &KubernetesWorld, command: &str) {
    let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
    assert!(command.starts_with("kubectl "), "{command}");
    world.kubectl(&arguments);
}
