//! A join that is under way: what its agent says, what operators see, how it ends.

use std::time::{Duration, Instant};

use berth_kubernetes::MachineFiles;
use berth_tests::{Agent, KubernetesWorld, Running, eventually, joined};
use serde_json::Value;

use crate::{CATCHES_UP, PATIENCE, PROMISE};

/// A join that is under way.
pub(crate) struct Join {
    machine: Agent,
    running: Option<Running>,
}

impl Join {
    pub(crate) fn start(world: &KubernetesWorld, node: &str, flags: &[&str]) -> Self {
        Self::with(world, node, &world.token(flags))
    }

    pub(crate) fn with(world: &KubernetesWorld, node: &str, token: &str) -> Self {
        let machine = world.machine(node);
        let running = machine.start_join(world.balancer.endpoint(), token, &[]);
        Self { machine, running: Some(running) }
    }

    /// What its agent has said of waits with this code.
    pub(crate) fn told(&self, code: &str) -> Vec<Value> {
        let lines = self.running.as_ref().expect("it is under way").stdout();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let waits = lines.filter(|line| line["type"] == "waiting").map(|line| line["diagnosis"].clone());
        waits.filter(|why| why["code"] == code).collect()
    }

    /// The diagnosis that its agent waits with, told in time since its cause could be seen.
    pub(crate) fn waits(&mut self, code: &str, since: Instant) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let has_ended = self.running.as_mut().expect("it is under way").has_ended();
            // A line may have come in part: it counts when it can be read.
            let told = self.told(code).into_iter().next();
            let (took, said) = (since.elapsed(), self.running.as_ref().map(Running::stdout));
            if let Some(told) = told {
                assert!(took < PROMISE, "{code} was told after {took:?}:\n{}", said.unwrap_or_default());
                return told;
            }
            let is_hopeless = has_ended || Instant::now() > until;
            assert!(!is_hopeless, "no {code}:\n{}", said.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same diagnosis at every replica.
    pub(crate) fn operators_see(&self, world: &KubernetesWorld, told: &Value, since: Instant) -> Value {
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

    pub(crate) fn files(&mut self, world: &KubernetesWorld) -> MachineFiles {
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
    pub(crate) fn kubelet(&mut self, world: &mut KubernetesWorld, flags: &[&str]) {
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
    pub(crate) fn goes_on(&mut self, world: &mut KubernetesWorld) {
        self.kubelet(world, &[]);
        self.ends_ready(world);
    }

    pub(crate) fn ends_ready(&mut self, world: &KubernetesWorld) {
        let running = self.running.take().expect("it is under way");
        let joined = joined(running.wait(PATIENCE));
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
        let node = self.machine.name();
        for server in &world.servers {
            eventually("Ready at every replica", CATCHES_UP, || {
                (server.explain(node)["join"]["state"] == "Ready").then_some(())
            });
        }
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
