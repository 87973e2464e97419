//! A cluster as kubeadm's own phases prepare it: everything that `kubeadm join`
//! reads, without `kubeadm init`.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::components::{PODS, SERVICES};
use crate::modules::version;
use crate::pki::keep;
use crate::process::{command_in, finish};
use crate::programs::Program;

/// What a machine needs to join.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// A bootstrap token, good for a day.
    pub token: String,
    /// The pin of the cluster's CA, as `--discovery-token-ca-cert-hash` takes it.
    pub ca_hash: String,
}

impl Cluster {
    /// Runs kubeadm's phases: `kubeadm-config`, `kubelet-config`, `kube-proxy`, a
    /// bootstrap token, its roles, and a signed `cluster-info` in `kube-public`.
    ///
    /// # Errors
    /// The cluster is borrowed, or a phase fails.
    pub fn seed_kubeadm(&self) -> Result<Seeded> {
        let ca_hash = self.pki()?.ca_hash();
        let token = self.kubeadm(&["token", "generate"])?.trim().to_owned();
        let file = self.folder.join("kubeadm.json");
        keep(&file, &self.configuration(&token))?;
        let config = format!("--config={}", file.display());
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        for phase in [&["upload-config", "all"], ["bootstrap-token", "--skip-token-print"].as_slice()] {
            self.kubeadm(&[&["init", "phase"], phase, &[&config, &kubeconfig]].concat())?;
        }
        // Without it kubeadm join loses a third of a second in eight refusals.
        let phase = ["init", "phase", "addon", "kube-proxy", "--print-manifest", &config, &kubeconfig];
        let manifest = self.kubeadm(&phase)?;
        let wanted = manifest.split("\n---\n").filter(|part| !part.contains("kind: DaemonSet"));
        self.apply(&wanted.collect::<Vec<_>>().join("\n---\n"))?;
        self.signature_of(token.split('.').next().unwrap_or_default())?;
        Ok(Seeded { token, ca_hash })
    }

    /// Another bootstrap token, as an operator makes it. `cluster-info` is signed by it a
    /// moment later.
    ///
    /// # Errors
    /// The cluster is borrowed, or kubeadm fails.
    pub fn new_bootstrap_token(&self) -> Result<String> {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        Ok(self.kubeadm(&["token", "create", "--ttl=1h", &kubeconfig])?.trim().to_owned())
    }

    /// JSON documents are YAML documents. No `certificatesDir`: kubeadm would copy
    /// it into every kubelet's configuration.
    fn configuration(&self, token: &str) -> String {
        let address = self.api().address();
        // kubeadm takes no loopback address here, nor keeps what it takes: it
        // uploads the endpoint below.
        let advertised = if address.ip().is_loopback() { DOCUMENTATION } else { address.ip() };
        let documents = [
            json!({
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "InitConfiguration",
                "localAPIEndpoint": {"advertiseAddress": advertised, "bindPort": address.port()},
                "nodeRegistration": {"name": "control", "criSocket": "unix:///run/containerd/containerd.sock"},
                "bootstrapTokens": [{
                    "token": token,
                    "ttl": "24h",
                    "usages": ["signing", "authentication"],
                    "groups": ["system:bootstrappers:kubeadm:default-node-token"],
                }],
            }),
            json!({
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "ClusterConfiguration",
                "kubernetesVersion": version(),
                "clusterName": crate::kubeconfig::NAME,
                "controlPlaneEndpoint": address.to_string(),
                "networking": {"podSubnet": PODS, "serviceSubnet": SERVICES},
            }),
            json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}),
            json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}),
        ];
        documents.map(|document| format!("{document:#}")).join("\n---\n")
    }

    /// Waits until the controller manager has signed `cluster-info` by the token.
    fn signature_of(&self, token_id: &str) -> Result<()> {
        let began = Instant::now();
        let wanted = format!("/data/jws-kubeconfig-{token_id}");
        loop {
            let info = self.api().get("/api/v1/namespaces/kube-public/configmaps/cluster-info")?;
            if info.pointer(&wanted).is_some_and(Value::is_string) {
                return Ok(());
            }
            if began.elapsed() > SIGNED_WITHIN {
                bail!("cluster-info was not signed by the new token within {SIGNED_WITHIN:?}: {info}");
            }
            thread::sleep(POLL);
        }
    }

    fn kubeadm(&self, arguments: &[&str]) -> Result<String> {
        let mut kubeadm = command_in(&self.folder, &self.programs.path(Program::Kubeadm)?);
        kubeadm.args(arguments);
        let finished = finish(kubeadm, "", WITHIN)?;
        if finished.code != Some(0) {
            let (stdout, stderr) = (finished.stdout, finished.stderr);
            bail!(
                "kubeadm {} ended with {:?}; it said:\n{stdout}{stderr}",
                arguments.join(" "),
                finished.code
            );
        }
        Ok(finished.stdout)
    }
}

/// An address that is nobody's: RFC 5737.
const DOCUMENTATION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const WITHIN: Duration = Duration::from_secs(60);
const SIGNED_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
