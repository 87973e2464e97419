//! What the server is told: flags over environment over file over defaults, and
//! for each setting where its value came from. All that is wrong is told at once.

mod file;
mod lay;
mod backend;
mod console;
mod rules;
mod sections;

pub use berth_program::Period;
pub use berth_program::config::{FileError, Origin};
pub use console::{ConsoleFile, GivenConsole};
pub use file::{BackendKind, ClusterSigner, Configuration, PRINT_DEFAULTS, ProxyMode, read};

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use berth_domain::name::NamePattern;
use berth_telemetry::Share;
use serde::Serialize;

use self::lay::Lay;
use crate::app::Settings;

/// What the command line or the environment says of one setting.
pub type Said<T> = Option<(T, Origin)>;

/// What the command line and the environment say; the rest is `None`.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--data-dir`.
    pub data_dir: Said<PathBuf>,
    /// `--join-listen`.
    pub join_listen: Said<SocketAddr>,
    /// `--admin-socket`.
    pub admin_socket: Said<PathBuf>,
    /// `--health-listen`.
    pub health_listen: Said<SocketAddr>,
    /// `--advertise`.
    pub advertise: Said<String>,
    /// `--server-name`, repeatable.
    pub server_names: Said<Vec<String>>,
    /// `--backend`.
    pub backend: Said<BackendKind>,
    /// `--kubeconfig`.
    pub kubeconfig: Said<PathBuf>,
    /// `--namespace`.
    pub namespace: Said<String>,
    /// `--signer`.
    pub cluster_signer: Said<ClusterSigner>,
    /// `--bootstrap-tokens`.
    pub bootstrap_tokens: Said<bool>,
    /// `kubernetes.providerID`.
    pub provider_id: Said<String>,
    /// `--inventory`.
    pub inventory: Said<PathBuf>,
    /// `--signer-certificate`.
    pub signer_certificate: Said<PathBuf>,
    /// `--signer-key`.
    pub signer_key: Said<PathBuf>,
    /// `--serving-certificate`.
    pub serving_certificate: Said<PathBuf>,
    /// `--serving-key`.
    pub serving_key: Said<PathBuf>,
    /// `--serving-ca`.
    pub serving_ca: Said<PathBuf>,
    /// `--cluster-name`.
    pub cluster_name: Said<String>,
    /// `--api-endpoint`, repeatable.
    pub api_endpoints: Said<Vec<String>>,
    /// `--cluster-dns`, repeatable.
    pub cluster_dns: Said<Vec<IpAddr>>,
    /// `--cluster-domain`.
    pub cluster_domain: Said<String>,
    /// `--bundle`.
    pub bundle: Said<PathBuf>,
    /// `--node-names`.
    pub names: Said<NamePattern>,
    /// `--certificate-lifetime`.
    pub certificate_lifetime: Said<Period>,
    /// `--certificates-per-name-and-hour`.
    pub certificates_per_name_and_hour: Said<u32>,
    /// `--require-approval`.
    pub require_approval: Said<bool>,
    /// `--joins-in-flight`.
    pub joins_in_flight: Said<usize>,
    /// `--queue`.
    pub queue: Said<u64>,
    /// `--connections-per-source`.
    pub connections_per_source: Said<u32>,
    /// `--drain-pause`.
    pub drain_pause: Said<Period>,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Said<Period>,
    /// `--grace-period`.
    pub grace_period: Said<Period>,
    /// `--proxy-protocol`.
    pub proxy_mode: Said<ProxyMode>,
    /// `--proxy-from`, repeatable.
    pub proxy_from: Said<Vec<String>>,
    /// `--otlp-endpoint`.
    pub otlp_endpoint: Said<String>,
    /// `--log-format`.
    pub log_format: Said<LogFormat>,
    /// `--log-level`.
    pub log_level: Said<String>,
    /// The console's flags.
    pub console: GivenConsole,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event.
    Text,
    /// One JSON object for each event, on one line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What is told of the server itself.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Where spans go.
    pub otlp_endpoint: Option<String>,
    /// How many of the joins that went well are traced to the end.
    pub good_joins: Share,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which events are logged.
    pub log_level: String,
}

/// One setting as `config check` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The field of the file.
    pub setting: String,
    /// The value in force; `-` where there is none.
    pub value: String,
    /// Where it came from.
    pub from: String,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the server is made of.
    pub settings: Settings,
    /// What is told of it.
    pub telemetry: TelemetryConfig,
    /// All of it, with origins, in the order of the file.
    pub rows: Vec<Row>,
}

/// A value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} ({from}): {problem}")]
pub struct Invalid {
    /// The field of the file.
    pub field: String,
    /// Where the value came from.
    pub from: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Config {
    /// Lays what was given over the file and the defaults.
    ///
    /// # Errors
    /// Every field that cannot be, and what it may be.
    pub fn resolve(given: Given, file: Option<(PathBuf, Configuration)>) -> Result<Self, Vec<Invalid>> {
        let (path, mut file) = file.unwrap_or_default();
        let (mut given, mut lay) = (given, Lay::over(path));
        let places = sections::places(&mut lay, &mut given, &mut file);
        let (backend, kubernetes) = (file.backend, file.kubernetes.take().unwrap_or_default());
        let backend = backend::backend(&mut lay, &mut given, backend, kubernetes);
        let signer = backend::signer(&mut lay, &mut given, &backend, file.signer.take().unwrap_or_default());
        let serving = backend::serving(&mut lay, &mut given, file.serving.take().unwrap_or_default());
        let cluster = sections::cluster(&mut lay, &mut given, file.cluster.unwrap_or_default());
        let bundle = sections::bundle(&mut lay, &mut given, file.bundle.take().unwrap_or_default());
        let bundle = lay.bundles(bundle, file.pools.as_deref().unwrap_or_default());
        let pools = lay.pools(file.pools.unwrap_or_default());
        let policy = sections::policy(&mut lay, &mut given, file.policy.unwrap_or_default());
        lay.check("policy.certificateLifetime", backend::lifetime(&backend, policy.certificate_lifetime));
        let limits = sections::limits(&mut lay, &mut given, file.limits.unwrap_or_default());
        let terms = sections::attendance(&mut lay, &mut given, file.attendance.unwrap_or_default());
        let proxy = sections::proxy(&mut lay, &mut given, file.proxy_protocol.unwrap_or_default());
        let console = std::mem::take(&mut given.console);
        let console = console::console(&mut lay, console, file.console.unwrap_or_default(), &places.data_dir);
        let telemetry = sections::telemetry(&mut lay, &mut given, file.telemetry.unwrap_or_default());
        let settings = Settings {
            data_dir: places.data_dir,
            join_listen: places.join_listen,
            admin_socket: places.admin_socket,
            health_listen: places.health_listen,
            advertise: places.advertise,
            server_names: places.server_names,
            backend,
            signer,
            serving,
            cluster_name: cluster.name,
            api_endpoints: cluster.api_endpoints,
            kubelet: cluster.kubelet,
            pools,
            bundle,
            policy,
            joins_in_flight: limits.joins_in_flight,
            queue: limits.queue,
            connections_per_source: limits.connections_per_source,
            collector: telemetry.otlp_endpoint.clone(),
            good_joins: telemetry.good_joins,
            drain_pause: limits.drain_pause,
            terms,
            proxy,
            console,
        };
        lay.finish(settings, telemetry)
    }
}

#[cfg(test)]
mod tests;
