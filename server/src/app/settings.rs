//! What a server is made of, checked by `config`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_domain::name::PoolName;
use berth_domain::profile::KubeletSettings;
use berth_telemetry::Share;

use crate::attendance::Terms;
use crate::bundle::shelf::BundleSettings;
use crate::config::ClusterSigner;
use crate::console;
use crate::listener::ProxyProtocol;
use crate::policy::Policy;
use crate::profiles::PoolSettings;

/// What a server is made of, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its CA, store and sockets are.
    pub data_dir: PathBuf,
    /// Where machines join.
    pub join_listen: SocketAddr,
    /// Where operators' commands arrive.
    pub admin_socket: PathBuf,
    /// Where health and metrics are asked for.
    pub health_listen: SocketAddr,
    /// The join endpoint as machines reach it, `host:port`; `None`: found out.
    pub advertise: Option<String>,
    /// Names of the serving certificate beside the advertised one.
    pub server_names: Vec<String>,
    /// Where the state lives.
    pub backend: Backend,
    /// The CA of nodes' certificates, where others keep it.
    pub signer: SignerFiles,
    /// The serving certificate, where others keep it.
    pub serving: Option<ServingFiles>,
    /// The cluster's name in kubeconfigs; `None`: the cluster's own, or `berth`.
    pub cluster_name: Option<String>,
    /// URLs of the API servers.
    pub api_endpoints: Vec<String>,
    /// The kubelet's settings for every pool.
    pub kubelet: KubeletSettings,
    /// What pools add.
    pub pools: BTreeMap<PoolName, PoolSettings>,
    /// The software of nodes.
    pub bundle: BundleSettings,
    /// The rules.
    pub policy: Policy,
    /// How many joins are worked on at one time, and how many may wait.
    pub joins_in_flight: usize,
    /// How many joins may wait for their turn.
    pub queue: u64,
    /// The terms of attendance.
    pub terms: Terms,
    /// Whether balancers in front speak the PROXY protocol.
    pub proxy: ProxyProtocol,
    /// Connections of one source that have proved nothing yet.
    pub connections_per_source: u32,
    /// Where agents' spans go, by OTLP/gRPC; `None`: nobody takes them.
    pub collector: Option<String>,
    /// How many of the joins that went well are passed on.
    pub good_joins: Share,
    /// How long balancers have to turn away between the failing health check and
    /// the end of the listener.
    pub drain_pause: Duration,
    /// The page for operators.
    pub console: Option<console::Settings>,
}

/// Where the server's state lives.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In the data directory.
    Embedded,
    /// In the cluster.
    Kubernetes(Kubernetes),
}

/// The cluster that the state lives in.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// How to reach it, where this is no pod of it.
    pub kubeconfig: Option<PathBuf>,
    /// Where the server's objects are.
    pub namespace: String,
    /// Who signs.
    pub signer: ClusterSigner,
    /// Whether the cluster's bootstrap tokens are taken too.
    pub bootstrap_tokens: bool,
    /// The providerID of Nodes that have none, with `{name}` for the Node's name.
    pub provider_id: Option<String>,
    /// The file that says which addresses and DNS names are whose, read again when it
    /// changes.
    pub inventory: Option<PathBuf>,
}

/// The CA of nodes' certificates, where others keep it: both, or the certificate
/// alone where the cluster signs, or neither.
#[derive(Clone, Debug, Default)]
pub struct SignerFiles {
    /// Its certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// The serving certificate, where others keep it.
#[derive(Clone, Debug)]
pub struct ServingFiles {
    /// Leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
    /// The CA that tokens pin, first; others that were before it may follow.
    pub ca: PathBuf,
}
