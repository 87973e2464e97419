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

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, Component, Deed, MachineFiles, Options};
use berth_tests::{Agent, KubernetesWorld, Running, eventually, joined};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

/// How long a cause may stay unnamed once it can be seen.
const PROMISE: Duration = Duration::from_secs(10);

/// What all the rest may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let (_, by_hand) = text(&told["mend"]).split_once("all the same: ").expect("a command");
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

#[test]
fn causes_in_a_control_plane_that_is_cut() {
    // As a real one: with a lease that says who leads.
    let leads =
        ["--leader-elect=true", "--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s"];
    let options = leads
        .iter()
        .fold(Options::default(), |options, flag| options.flag(Component::ControllerManager, flag));
    let options = options.flag(Component::ControllerManager, "--leader-elect-retry-period=1s");
    let Some(cluster) = Cluster::for_tests(&options).expect("a cluster") else { return };
    let mut world = KubernetesWorld::on(cluster, 2, &json!({}));
    row_38_nothing_signs(&mut world);
    row_34_the_store_is_away(&mut world, "n34a", Component::ApiServer);
    row_34_the_store_is_away(&mut world, "n34e", Component::Etcd);
}

fn row_38_nothing_signs(world: &mut KubernetesWorld) {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    let holder = eventually("a leader", PATIENCE, || {
        let lease = world.get(lease)?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    });
    world.cluster.kill(Component::ControllerManager).expect("it runs");
    let mut join = Join::start(world, "n38", &[]);
    let told = join.waits("SIGNER_UNAVAILABLE", Instant::now());
    let csr = text(&told["values"]["csr"]);
    let approved = world.kubectl(&["get", "csr", csr, "--no-headers"]);
    assert!(approved.contains("Approved") && !approved.contains("Issued"), "{approved}");
    assert!(text(&told["values"]["holder"]).contains(&holder), "who held the lease, {holder}: {told:#}");
    assert!(text(&told["mend"]).contains("start kube-controller-manager"), "{told:#}");
    join.operators_see(world, &told, Instant::now());
    world.cluster.start_again(Component::ControllerManager).expect("the mend");
    join.goes_on(world);
}

fn row_34_the_store_is_away(world: &mut KubernetesWorld, node: &str, component: Component) {
    let ids: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    let token = world.token(&[]);
    world.cluster.kill(component).expect("it runs");
    let away = Instant::now();
    let mut join = Join::with(world, node, &token);
    let told = join.waits("STORE_UNAVAILABLE", away);
    let since = text(&told["values"]["since"]).to_owned();
    assert!(!since.is_empty(), "{told:#}");
    assert_eq!(told["values"]["error"], Value::Null, "what it said is for operators: {told:#}");
    assert!(text(&told["mend"]).contains("store"), "{told:#}");
    // No replica can write it down now: the one that has the line tells.
    eventually("the operator's word", PROMISE, || {
        let all = world.servers.iter().flat_map(|server| {
            let listed = server.admin_json(&["joins", "list"]);
            listed["joins"].as_array().cloned().unwrap_or_default()
        });
        let mut waiting = all.filter(|join| join["diagnosis"]["code"] == "STORE_UNAVAILABLE");
        waiting.find(|join| {
            let values = &join["diagnosis"]["values"];
            values["since"] != Value::Null && !text(&values["error"]).is_empty()
        })
    });
    // The moment of the first failure, however often it is met again: one at each replica.
    let met = attempts(world) + 3.0;
    eventually("three more attempts", PATIENCE, || (attempts(world) >= met).then_some(()));
    let mut moments: Vec<Value> =
        join.told("STORE_UNAVAILABLE").into_iter().map(|told| told["values"]["since"].clone()).collect();
    moments.dedup();
    assert!(moments.len() <= world.servers.len(), "{moments:#?}");
    world.cluster.start_again(component).expect("the mend");
    // It ends when it cannot renew its lease, and counts on being started again.
    world.cluster.kill(Component::ControllerManager).expect("it was started");
    world.cluster.start_again(Component::ControllerManager).expect("it starts");
    join.goes_on(world);
    let after: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    assert_eq!(ids, after, "no replica restarted");
}

/// How often machines have called.
fn attempts(world: &KubernetesWorld) -> f64 {
    let accepted = "berth_connections_total{outcome=\"accepted\"}";
    world.servers.iter().filter_map(|server| server.metric(accepted)).sum()
}

#[test]
fn row_50_certificates_of_a_ca_that_the_api_server_does_not_trust() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    let files = tempfile::tempdir().expect("a directory");
    other_ca(files.path());
    let (certificate, key) = (files.path().join("ca.crt"), files.path().join("ca.key"));
    let configuration = json!({
        "kubernetes": { "signer": "local" },
        "signer": { "certificate": certificate, "key": key },
    });
    let mut world = KubernetesWorld::on(cluster, 2, &configuration);
    let mut join = Join::start(&world, "n50", &[]);
    join.kubelet(&mut world, &["--register-with-taints=berth.dev/joining=:NoSchedule"]);
    let told = join.waits("CERTIFICATE_UNTRUSTED", Instant::now());
    assert_eq!(told["values"]["issuer"], "CN=another-ca", "{told:#}");
    assert_eq!(told["values"]["trusted"], "CN=kubernetes", "{told:#}");
    assert!(text(&told["mend"]).contains("--client-ca-file"), "{told:#}");
    join.operators_see(&world, &told, Instant::now());
    // The mend: both CAs. kube-apiserver reads the file again by itself.
    let trusted = world.cluster.pki().expect("it is ours").path("ca.crt");
    let added = std::fs::read(&certificate).expect("a certificate");
    let mut trusted = std::fs::OpenOptions::new().append(true).open(trusted).expect("a bundle");
    trusted.write_all(&added).expect("it is added");
    join.ends_ready(&world);
}

/// A CA of somebody else, in PEM files.
fn other_ca(folder: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "another-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("ca.crt"), certificate.pem()).expect("a file");
    std::fs::write(folder.join("ca.key"), key.serialize_pem()).expect("a file");
}

/// A join that is under way.
struct Join {
    machine: Agent,
    running: Option<Running>,
}

impl Join {
    fn start(world: &KubernetesWorld, node: &str, flags: &[&str]) -> Self {
        Self::with(world, node, &world.token(flags))
    }

    fn with(world: &KubernetesWorld, node: &str, token: &str) -> Self {
        let machine = world.machine(node);
        let running = machine.start_join(world.balancer.endpoint(), token, &[]);
        Self { machine, running: Some(running) }
    }

    /// What its agent has said of waits with this code.
    fn told(&self, code: &str) -> Vec<Value> {
        let lines = self.running.as_ref().expect("it is under way").stdout();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let waits = lines.filter(|line| line["type"] == "waiting").map(|line| line["diagnosis"].clone());
        waits.filter(|why| why["code"] == code).collect()
    }

    /// The diagnosis that its agent waits with, told in time since its cause could be seen.
    fn waits(&mut self, code: &str, since: Instant) -> Value {
        let running = self.running.as_mut().expect("it is under way");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !running.has_ended() && !running.stdout().contains(code) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = since.elapsed();
        let said = running.stdout();
        let told = self.told(code).into_iter().next().unwrap_or_else(|| panic!("no {code}:\n{said}"));
        assert!(took < PROMISE, "{code} was told after {took:?}:\n{said}");
        told
    }

    /// The same diagnosis at every replica.
    fn operators_see(&self, world: &KubernetesWorld, told: &Value, since: Instant) -> Value {
        let code = &told["code"];
        let mut seen = Value::Null;
        for server in &world.servers {
            let join = eventually(&format!("{code} at every replica"), PROMISE, || {
                let listed = server.admin_json(&["joins", "list"]);
                let joins = listed["joins"].as_array().cloned().unwrap_or_default();
                joins.into_iter().find(|join| {
                    join["diagnosis"]["code"] == *code
                        && (join["node"] == self.machine.name() || join["node"].is_null())
                })
            });
            let explained = server.explain(text(&join["id"]));
            let why = explained["join"]["diagnosis"].clone();
            assert_eq!(why["code"], *code, "{explained:#}");
            assert_eq!(why["mend"], told["mend"], "{explained:#}");
            for (key, value) in told["values"].as_object().into_iter().flatten() {
                assert_eq!(why["values"][key], *value, "{key}: {explained:#}");
            }
            seen = why;
        }
        assert!(since.elapsed() < PROMISE, "operators saw it after {:?}", since.elapsed());
        seen
    }

    fn files(&mut self, world: &KubernetesWorld) -> MachineFiles {
        let running = self.running.as_mut().expect("it is under way");
        let until = Instant::now() + PATIENCE;
        loop {
            let files = MachineFiles::of(self.machine.root()).expect("a kubeconfig for the hollow node");
            if let Some(files) = files {
                return files;
            }
            if running.has_ended() || Instant::now() > until {
                let servers: Vec<String> =
                    world.servers.iter().map(|server| server.process().stderr()).collect();
                panic!("no files for a kubelet:\n{}\n{}", running.stdout(), servers.join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts its kubelet, with these flags and not those of the machine if there are any.
    fn kubelet(&mut self, world: &mut KubernetesWorld, flags: &[&str]) {
        let files = self.files(world);
        let name = self.machine.name();
        let kubelet = if flags.is_empty() {
            world.cluster.hollow_kubelet(name, &files)
        } else {
            world.cluster.hollow_node(name, files.kubeconfig(), flags)
        };
        world.kubelets.push(kubelet.expect("a hollow node"));
    }

    /// Its kubelet starts as soon as it can, and it ends well.
    fn goes_on(&mut self, world: &mut KubernetesWorld) {
        self.kubelet(world, &[]);
        self.ends_ready(world);
    }

    fn ends_ready(&mut self, world: &KubernetesWorld) {
        let running = self.running.take().expect("it is under way");
        let joined = joined(running.wait(PATIENCE));
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
        let node = self.machine.name();
        for server in &world.servers {
            eventually("Ready at every replica", PATIENCE, || {
                (server.explain(node)["join"]["state"] == "Ready").then_some(())
            });
        }
    }
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
