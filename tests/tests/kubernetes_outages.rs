//! The API server, then etcd, is away for half a minute while machines join, each
//! in another phase: they all go on and end Ready, every wait says why, no replica
//! ends, no token is spent twice, and no key is signed twice.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::time::{Duration, Instant};

use berth_kubernetes::{Component, MachineFiles};
use berth_tests::{Agent, KubernetesWorld, Running, eventually, joined};
use serde_json::{Value, json};

const OUTAGE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(90);

/// What a machine may be told while the cluster is away, and a little after: that
/// it is; that its certificate, its kubelet or a person's word is not there yet.
const RIGHT: [&str; 5] =
    ["STORE_UNAVAILABLE", "SIGNER_UNAVAILABLE", "NODE_NOT_READY", "APPROVAL_PENDING", "CONNECTION_FAILED"];

#[test]
fn joins_in_every_phase_outlast_an_api_server_that_is_away() {
    outlast(Component::ApiServer);
}

#[test]
fn joins_in_every_phase_outlast_a_store_that_is_away() {
    outlast(Component::Etcd);
}

/// A machine, and how far it is when the cluster goes.
struct Machine {
    agent: Agent,
    token: String,
    running: Option<Running>,
    kubelet: bool,
}

fn outlast(component: Component) {
    let Some(mut world) = KubernetesWorld::start(2, &json!({})) else { return };
    let mut machines = Vec::new();
    // Before its first word; waits for approval; waits for a certificate; waits for
    // its kubelet; its Node is there and not Ready yet; is Ready.
    for name in ["early", "word", "signer", "kubelet", "node", "ready"] {
        let flags: &[&str] = if name == "word" { &["--approval"] } else { &[] };
        let (agent, token) = (world.machine(name), world.token(flags));
        machines.push(Machine { agent, token, running: None, kubelet: false });
    }
    let [early, word, signer, kubelet, node, ready] = machines.as_mut_slice() else { return };
    for machine in [&mut *ready, kubelet, node] {
        machine.starts(&world);
    }
    for machine in [&mut *ready, kubelet, node] {
        eventually("files for a kubelet", PATIENCE, || machine.files());
    }
    ready.kubelet(&mut world);
    world.cluster.wait_for_node("ready", PATIENCE).expect("it is");
    word.starts(&world);
    word.is_told("APPROVAL_PENDING");
    // Nothing signs until the cluster is back.
    world.cluster.kill(Component::ControllerManager).expect("it runs");
    signer.starts(&world);
    eventually("a request that waits", PATIENCE, || {
        requests(&world).into_iter().find(|request| request["status"]["certificate"].is_null())
    });
    node.kubelet(&mut world);
    let ids: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();

    world.cluster.stop(component).expect("it runs");
    let away = Instant::now();
    early.starts(&world);
    early.is_told("STORE_UNAVAILABLE");
    assert!(away.elapsed() < Duration::from_secs(10), "told after {:?}", away.elapsed());
    std::thread::sleep(OUTAGE.saturating_sub(away.elapsed()));
    world.cluster.start_again(component).expect("it starts");
    world.cluster.start_again(Component::ControllerManager).expect("it starts");
    let back = Instant::now();

    let waiting = text_of_wait(word, "APPROVAL_PENDING", "join");
    eventually("the operator's word taken", PATIENCE, || {
        (world.servers[0].admin(&["joins", "approve", &waiting]).code == Some(0)).then_some(())
    });
    for machine in &mut machines {
        if !machine.kubelet {
            eventually("files for a kubelet", PATIENCE, || machine.files());
            machine.kubelet(&mut world);
        }
    }
    for machine in &mut machines {
        machine.ends_ready();
    }
    assert!(back.elapsed() < PATIENCE, "all are Ready after {:?}", back.elapsed());
    let after: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    assert_eq!(ids, after, "no replica restarted");
    assert_eq!(requests(&world).len(), machines.len(), "one request a name and key");
    let listed = world.servers[1].admin_json(&["token", "list"]);
    for token in listed["tokens"].as_array().cloned().unwrap_or_default() {
        assert_eq!(token["usedBy"].as_array().map(Vec::len), Some(1), "{token:#}");
    }
}

impl Machine {
    fn starts(&mut self, world: &KubernetesWorld) {
        let flags = ["--timeout", "150s"];
        self.running = Some(self.agent.start_join(world.balancer.endpoint(), &self.token, &flags));
    }

    fn files(&self) -> Option<MachineFiles> {
        MachineFiles::of(self.agent.root()).expect("a kubeconfig for the hollow node")
    }

    fn kubelet(&mut self, world: &mut KubernetesWorld) {
        let files = self.files().expect("they are there");
        let started = world.cluster.hollow_kubelet(self.agent.name(), &files);
        world.kubelets.push(started.expect("a hollow node"));
        self.kubelet = true;
    }

    fn is_told(&self, code: &str) {
        eventually(code, PATIENCE, || {
            let running = self.running.as_ref()?;
            running.stdout().contains(code).then_some(())
        });
    }

    fn ends_ready(&mut self) {
        let running = self.running.take().expect("it was started");
        let joined = joined(running.wait(PATIENCE));
        assert_eq!(joined.ended.code, Some(0), "{}: {}", self.agent.name(), joined.ended.all());
        for told in joined.told.iter().filter(|told| told["type"] == "waiting") {
            let code = told["diagnosis"]["code"].as_str().unwrap_or_default();
            assert!(RIGHT.contains(&code), "{}: {told:#}", self.agent.name());
        }
    }
}

/// A value of the wait with this code.
fn text_of_wait(machine: &Machine, code: &str, value: &str) -> String {
    let said = machine.running.as_ref().expect("it was started").stdout();
    let told = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut waits = told.map(|told| told["diagnosis"].clone()).filter(|why| why["code"] == code);
    waits.next().and_then(|why| why["values"][value].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Berth's requests for certificates that are in the cluster.
fn requests(world: &KubernetesWorld) -> Vec<Value> {
    let listed = world.get("/apis/certificates.k8s.io/v1/certificatesigningrequests");
    let mut requests = listed.and_then(|listed| listed["items"].as_array().cloned()).unwrap_or_default();
    requests.retain(|request| {
        request["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("berth-"))
    });
    requests
}
