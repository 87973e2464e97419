//! A world on a real control plane: replicas of the server with the account that
//! the manifests give them, a balancer before them, and machines whose kubelets
//! are hollow nodes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, HollowNode, MachineFiles, NAMESPACE, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Running;
use crate::{Agent, Balance, Balancer, Joined, Server, ServerOptions, balancer, joined};

/// How long a machine may take until its files are there, and until its Node is
/// Ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What only a node that leaves needs of the API server, kind and verb, in its order.
pub const LEAVING: [(&str, &str); 3] = [("pods", "list"), ("pods/eviction", "create"), ("nodes", "delete")];

/// Which of [`LEAVING`] a rule of the server's role gives, if any.
#[must_use]
pub fn leaving_right(rule: &Value) -> Option<usize> {
    LEAVING
        .iter()
        .position(|(kind, verb)| rule["resources"] == json!([kind]) && rule["verbs"] == json!([verb]))
}

/// A cluster with replicas of the server behind a balancer.
pub struct KubernetesWorld {
    // In the order of their end: what calls the cluster before the cluster.
    /// The machines' kubelets.
    pub kubelets: Vec<HollowNode>,
    /// The balancer.
    pub balancer: Balancer,
    /// The replicas.
    pub servers: Vec<Server>,
    /// The cluster.
    pub cluster: Cluster,
    directory: TempDir,
}

impl KubernetesWorld {
    /// A world of its own, with this many replicas. Nothing, said loudly, where
    /// the cluster's programs are missing.
    ///
    /// # Panics
    /// It does not start; or programs are missing where `CI` is true.
    #[must_use]
    pub fn start(replicas: usize, configuration: &Value) -> Option<Self> {
        let cluster = Cluster::for_tests(&Options::default()).expect("a cluster")?;
        Some(Self::on(cluster, replicas, configuration))
    }

    /// The same on a cluster that the test has started.
    #[must_use]
    pub fn on(cluster: Cluster, replicas: usize, configuration: &Value) -> Self {
        Self::with(cluster, configuration, Balance::RoundRobin, |account| vec![account; replicas])
    }

    /// The same with a kubeconfig of its own for each replica, made of the account's,
    /// and a balancer that shares the machines out in this way.
    #[must_use]
    pub fn with(
        cluster: Cluster,
        configuration: &Value,
        balance: Balance,
        kubeconfigs: impl FnOnce(PathBuf) -> Vec<PathBuf>,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-world-").tempdir().expect("a directory");
        let bootstrap_tokens = configuration["kubernetes"]["bootstrapTokens"] == true;
        let manifests = if bootstrap_tokens { "overlays/kubeadm" } else { "base" };
        cluster.install(manifests).expect("the manifests are taken");
        let kubeconfig = cluster.account().expect("a kubeconfig of the server's account");
        let address = Balancer::address();
        let servers: Vec<Server> = kubeconfigs(kubeconfig)
            .into_iter()
            .enumerate()
            .map(|(number, kubeconfig)| {
                let name = format!("replica-{number}");
                let mut options = ServerOptions::new(json!({
                    "backend": "kubernetes",
                    "kubernetes": { "kubeconfig": kubeconfig, "namespace": NAMESPACE },
                    "cluster": { "name": "test", "apiEndpoints": [format!("https://{}", cluster.api().address())] },
                    "advertise": balancer::endpoint(address),
                    "proxyProtocol": { "mode": "required", "from": ["127.0.0.0/8"] },
                }));
                options = options.over(configuration.clone());
                Server::start(&directory.path().join(&name).join("data"), &name, &options)
            })
            .collect();
        let balancer = Balancer::start(directory.path(), address, balance, &servers);
        Self { kubelets: Vec::new(), balancer, servers, cluster, directory }
    }

    /// A machine below a directory of its own.
    #[must_use]
    pub fn machine(&self, name: &str) -> Agent {
        Agent::new(&self.directory.path().join(name), name)
    }

    /// Makes a token at the first replica.
    #[must_use]
    pub fn token(&self, flags: &[&str]) -> String {
        self.servers.first().expect("a replica").token(flags)
    }

    /// Joins a machine through the balancer, to the end; its kubelet starts as
    /// soon as its files are there.
    pub fn join(&mut self, machine: &Agent, token: &str, flags: &[&str]) -> Joined {
        let mut running = machine.start_join(self.balancer.endpoint(), token, flags);
        self.start_kubelet(machine, &mut running);
        joined(running.wait(PATIENCE))
    }

    /// Starts a machine's kubelet once its agent has written what it needs.
    ///
    /// # Panics
    /// It has not, in time, or has ended before: with all that it and the servers said.
    pub fn start_kubelet(&mut self, machine: &Agent, agent: &mut Running) {
        let began = Instant::now();
        let files = loop {
            let files = MachineFiles::of(machine.root()).expect("a kubeconfig for the hollow node");
            if let Some(files) = files {
                break files;
            }
            if agent.has_ended() || began.elapsed() > PATIENCE {
                let servers: Vec<String> =
                    self.servers.iter().map(|server| server.process().stderr()).collect();
                let said = format!("{}{}", agent.stdout(), agent.stderr());
                panic!(
                    "no files for a kubelet; the agent:\n{said}\nthe servers:\n{}",
                    servers.join("\n---\n")
                );
            }
            std::thread::sleep(Duration::from_millis(25));
        };
        let kubelet = self.cluster.hollow_kubelet(machine.name(), &files);
        self.kubelets.push(kubelet.expect("a hollow node"));
    }

    /// An object as the API server has it.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        self.cluster.api().get(path).ok()
    }

    /// Runs kubectl as an administrator; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).expect("kubectl")
    }
}
