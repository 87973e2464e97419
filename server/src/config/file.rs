//! The configuration file, in the manner of Kubernetes: `apiVersion`, `kind`, and
//! no field that is not known.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_domain::labels::Taint;
use berth_domain::name::{NamePattern, PoolName};
use berth_domain::profile::KubeletSettings;
use berth_program::Period;
use berth_program::config::{self, FileError};
use serde::Deserialize;

use super::LogFormat;
use super::console::ConsoleFile;

/// Where the file lies unless `--config` says otherwise. It need not exist.
pub(super) const DEFAULT_FILE: &str = "/etc/berth/server.yaml";

/// What `config print-defaults` prints: every field, and what holds where it is
/// left out.
pub const PRINT_DEFAULTS: &str = include_str!("defaults.yaml");

/// The file's fields. All but the first two may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// The version of the file's form.
    pub api_version: ApiVersion,
    /// What the file is.
    pub kind: Kind,
    /// Where CA, store and sockets are.
    pub data_dir: Option<PathBuf>,
    /// Where machines join.
    pub join_listen: Option<SocketAddr>,
    /// Where operators' commands arrive.
    pub admin_socket: Option<PathBuf>,
    /// Where health and metrics are asked for.
    pub health_listen: Option<SocketAddr>,
    /// The join endpoint as machines reach it.
    pub advertise: Option<String>,
    /// Names of the serving certificate.
    pub server_names: Option<Vec<String>>,
    /// Where the server's state lives.
    pub backend: Option<BackendKind>,
    /// The cluster, where the state lives in it.
    pub kubernetes: Option<KubernetesFile>,
    /// The CA of nodes' certificates, where others keep it.
    pub signer: Option<SignerFile>,
    /// The serving certificate, where others keep it.
    pub serving: Option<ServingFile>,
    /// What nodes are told of their cluster.
    pub cluster: Option<Cluster>,
    /// The software of nodes.
    pub bundle: Option<BundleFile>,
    /// What pools add.
    pub pools: Option<Vec<Pool>>,
    /// The rules.
    pub policy: Option<PolicyFile>,
    /// The bounds that an operator may set.
    pub limits: Option<LimitsFile>,
    /// The terms of attendance.
    pub attendance: Option<Attendance>,
    /// Balancers in front.
    pub proxy_protocol: Option<Proxy>,
    /// The page for operators.
    pub console: Option<ConsoleFile>,
    /// What is told of the server.
    pub telemetry: Option<Telemetry>,
}

/// The versions of the file's form that are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ApiVersion {
    /// The first.
    #[default]
    #[serde(rename = "config.berth.dev/v1alpha1")]
    V1Alpha1,
}

/// What the file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// The configuration of berth-server.
    #[default]
    ServerConfiguration,
}

/// Where the server's state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// On this machine, in the data directory.
    Embedded,
    /// In the cluster, as its own objects.
    Kubernetes,
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedded => "embedded",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// Who signs nodes' certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClusterSigner {
    /// The cluster: kube-controller-manager, by the certificates API.
    Kube,
    /// The server, with the cluster's CA from files.
    Local,
}

impl fmt::Display for ClusterSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kube => "kube",
            Self::Local => "local",
        })
    }
}

/// The cluster, where the state lives in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesFile {
    /// How to reach it; a pod's own account, else the usual kubeconfig, if not set.
    pub kubeconfig: Option<PathBuf>,
    /// Where the server's objects are.
    pub namespace: Option<String>,
    /// Who signs.
    pub signer: Option<ClusterSigner>,
    /// Whether the cluster's bootstrap tokens are taken too.
    pub bootstrap_tokens: Option<bool>,
    /// The providerID of Nodes that have none, with `{name}` for the Node's name.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// The file that says which addresses and DNS names are whose.
    pub inventory: Option<PathBuf>,
}

/// The CA of nodes' certificates, where others keep it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignerFile {
    /// Its certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// The serving certificate, where others keep it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingFile {
    /// Leaf first, PEM.
    pub certificate: Option<PathBuf>,
    /// The leaf's key, PEM.
    pub key: Option<PathBuf>,
    /// The CA that tokens pin, PEM.
    pub ca: Option<PathBuf>,
}

/// What nodes are told of their cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Its name in kubeconfigs.
    pub name: Option<String>,
    /// URLs of its API servers.
    pub api_endpoints: Option<Vec<String>>,
    /// Addresses of the cluster's DNS service.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<IpAddr>>,
    /// The domain of the cluster's services.
    pub cluster_domain: Option<String>,
    /// A KubeletConfiguration without apiVersion and kind.
    pub kubelet: Option<KubeletSettings>,
}

/// What a pool adds to its nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints, KEY[=VALUE]:EFFECT.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// Kubelet settings over the common ones.
    #[serde(default)]
    pub kubelet: KubeletSettings,
    /// Its own bundle, or `none`; if not set, `bundle.path`.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
}

/// The software of nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleFile {
    /// An archive that `berth-server bundle create` made, or a directory of its files.
    pub path: Option<PathBuf>,
    /// For all machines together.
    pub bytes_per_second: Option<u64>,
    /// At one time.
    pub transfers: Option<usize>,
}

/// The rules.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyFile {
    /// Names that any node may have.
    pub names: Option<NamePattern>,
    /// How long a certificate is good.
    pub certificate_lifetime: Option<Period>,
    /// How many certificates one name may get in an hour.
    pub certificates_per_name_and_hour: Option<u32>,
    /// Whether every join waits for a person.
    pub require_approval: Option<bool>,
}

/// The bounds that an operator may set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsFile {
    /// Joins worked on at one time.
    pub joins_in_flight: Option<usize>,
    /// Joins that wait for their turn.
    pub queue: Option<u64>,
    /// Connections of one source that have proved nothing yet.
    pub connections_per_source: Option<u32>,
    /// Between the failing health check and the end of the listener.
    pub drain_pause: Option<Period>,
}

/// The terms of attendance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attendance {
    /// Between heartbeats.
    pub heartbeat_interval: Option<Period>,
    /// How long a node may be silent.
    pub grace_period: Option<Period>,
}

/// Balancers in front.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Whether they speak the PROXY protocol.
    pub mode: Option<ProxyMode>,
    /// Their networks.
    pub from: Option<Vec<String>>,
}

/// Whether balancers speak the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// A PROXY header is an error.
    Refused,
    /// A missing PROXY header is an error.
    Required,
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::Required => "required",
        })
    }
}

/// What is told of the server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Telemetry {
    /// Where spans go.
    pub otlp_endpoint: Option<String>,
    /// Of a hundred joins that went well, how many send theirs.
    pub good_joins_percent: Option<u32>,
    /// How log lines are written.
    pub log_format: Option<LogFormat>,
    /// Which events are logged.
    pub log_level: Option<String>,
}

impl Configuration {
    /// Parses the file's text; `path` is for the error only.
    ///
    /// # Errors
    /// Names the place of the first thing that is not understood.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        config::parse(PROGRAM, text, path)
    }
}

/// Reads the configuration. Without `--config` a file that is not there is no
/// error, and no configuration either.
///
/// # Errors
/// It cannot be read, or says something that is not understood.
pub fn read(asked: Option<&Path>) -> Result<Option<(PathBuf, Configuration)>, FileError> {
    config::read(PROGRAM, asked, Path::new(DEFAULT_FILE))
}

/// Who prints the defaults.
const PROGRAM: &str = "berth-server";
