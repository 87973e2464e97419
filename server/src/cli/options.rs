//! The settings that flags and the environment may give, and which of the two
//! gave each.

mod console;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use berth_domain::name::NamePattern;
use berth_program::Sources;
use clap::builder::BoolishValueParser;
use clap::{ArgMatches, Args, CommandFactory as _};

use self::console::ConsoleOptions;
use super::{Cli, Global};
use crate::config::{BackendKind, ClusterSigner, Given, LogFormat, Period, ProxyMode};

/// What `run` and `config check` take.
#[derive(Debug, Default, Args)]
pub(super) struct Options {
    /// Where machines join [default: 0.0.0.0:7443]
    #[arg(long, env = "BERTH_SERVER_JOIN_LISTEN", value_name = "ADDRESS")]
    join_listen: Option<SocketAddr>,
    /// Where health and metrics are asked for [default: 127.0.0.1:7480]
    #[arg(long, env = "BERTH_SERVER_HEALTH_LISTEN", value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,
    /// The join endpoint as machines reach it [default: this host's name and port]
    #[arg(long, env = "BERTH_SERVER_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// A further name of the serving certificate; may be repeated
    #[arg(
        long = "server-name",
        env = "BERTH_SERVER_SERVER_NAMES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    server_names: Option<Vec<String>>,
    /// Where the server's state lives [default: embedded]
    #[arg(long, env = "BERTH_SERVER_BACKEND", value_enum, value_name = "BACKEND")]
    backend: Option<BackendKind>,
    /// How to reach the cluster [default: the pod's account, or the usual kubeconfig]
    #[arg(long, env = "BERTH_SERVER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the server's objects are in the cluster [default: berth-system]
    #[arg(long, env = "BERTH_SERVER_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Who signs nodes' certificates on the kubernetes backend [default: kube]
    #[arg(long, env = "BERTH_SERVER_SIGNER", value_enum, value_name = "SIGNER")]
    signer: Option<ClusterSigner>,
    /// The cluster's bootstrap tokens are taken too [default: false]
    #[arg(long, env = "BERTH_SERVER_BOOTSTRAP_TOKENS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    bootstrap_tokens: Option<bool>,
    /// The providerID of Nodes that have none, with {name} for the Node's name.
    #[arg(long, env = "BERTH_SERVER_PROVIDER_ID", value_name = "ID")]
    provider_id: Option<String>,
    /// Which addresses and DNS names are whose, where Berth cannot see it by itself
    #[arg(long, env = "BERTH_SERVER_INVENTORY", value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// The CA of nodes' certificates, where others keep it
    #[arg(long, env = "BERTH_SERVER_SIGNER_CERTIFICATE", value_name = "FILE")]
    signer_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "BERTH_SERVER_SIGNER_KEY", value_name = "FILE")]
    signer_key: Option<PathBuf>,
    /// The serving certificate, where others keep it
    #[arg(long, env = "BERTH_SERVER_SERVING_CERTIFICATE", value_name = "FILE")]
    serving_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "BERTH_SERVER_SERVING_KEY", value_name = "FILE")]
    serving_key: Option<PathBuf>,
    /// The CA that it chains to, which tokens pin
    #[arg(long, env = "BERTH_SERVER_SERVING_CA", value_name = "FILE")]
    serving_ca: Option<PathBuf>,
    /// The cluster's name in kubeconfigs [default: berth]
    #[arg(long, env = "BERTH_SERVER_CLUSTER_NAME", value_name = "NAME")]
    cluster_name: Option<String>,
    /// An API server; may be repeated [default: port 6443 of the advertised host]
    #[arg(
        long = "api-endpoint",
        env = "BERTH_SERVER_API_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ','
    )]
    api_endpoints: Option<Vec<String>>,
    /// An address of the cluster's DNS service; may be repeated
    #[arg(long, env = "BERTH_SERVER_CLUSTER_DNS", value_name = "ADDRESS", value_delimiter = ',')]
    cluster_dns: Option<Vec<IpAddr>>,
    /// The domain of the cluster's services
    #[arg(long, env = "BERTH_SERVER_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// The software of nodes, made by `berth-server bundle create`
    #[arg(long, env = "BERTH_SERVER_BUNDLE", value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Names that any node may have [default: *]
    #[arg(long, env = "BERTH_SERVER_NODE_NAMES", value_name = "PATTERN")]
    node_names: Option<NamePattern>,
    /// How long a certificate is good [default: 6h]
    #[arg(long, env = "BERTH_SERVER_CERTIFICATE_LIFETIME", value_name = "DURATION")]
    certificate_lifetime: Option<Period>,
    /// How many certificates one name may get in an hour [default: 60]
    #[arg(long, env = "BERTH_SERVER_CERTIFICATES_PER_NAME_AND_HOUR", value_name = "N")]
    certificates_per_name_and_hour: Option<u32>,
    /// Every join waits for a person [default: false]
    #[arg(long, env = "BERTH_SERVER_REQUIRE_APPROVAL", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    require_approval: Option<bool>,
    /// Joins worked on at one time [default: 256]
    #[arg(long, env = "BERTH_SERVER_JOINS_IN_FLIGHT", value_name = "N")]
    joins_in_flight: Option<usize>,
    /// Joins that may wait for their turn [default: 4096]
    #[arg(long, env = "BERTH_SERVER_QUEUE", value_name = "N")]
    queue: Option<u64>,
    /// Connections of one source that have proved nothing yet [default: 8]
    #[arg(long, env = "BERTH_SERVER_CONNECTIONS_PER_SOURCE", value_name = "N")]
    connections_per_source: Option<u32>,
    /// How long balancers have to turn away at a stop [default: 0s]
    #[arg(long, env = "BERTH_SERVER_DRAIN_PAUSE", value_name = "DURATION")]
    drain_pause: Option<Period>,
    /// Between heartbeats of a node [default: 10s]
    #[arg(long, env = "BERTH_SERVER_HEARTBEAT_INTERVAL", value_name = "DURATION")]
    heartbeat_interval: Option<Period>,
    /// How long a node may be silent before it is NotReady [default: 40s]
    #[arg(long, env = "BERTH_SERVER_GRACE_PERIOD", value_name = "DURATION")]
    grace_period: Option<Period>,
    /// Whether balancers in front send the PROXY protocol, of either version [default: refused]
    #[arg(long, env = "BERTH_SERVER_PROXY_PROTOCOL", value_enum, value_name = "MODE")]
    proxy_protocol: Option<ProxyMode>,
    /// A network of such balancers; may be repeated
    #[arg(long, env = "BERTH_SERVER_PROXY_FROM", value_name = "CIDR", value_delimiter = ',')]
    proxy_from: Option<Vec<String>>,
    /// Export spans by OTLP/gRPC to this collector, such as http://collector:4317
    #[arg(long, env = "BERTH_SERVER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The same, as OpenTelemetry names it
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", hide = true)]
    otel_exporter_otlp_endpoint: Option<String>,
    /// How log lines are written [default: text]
    #[arg(long, env = "BERTH_SERVER_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Which events are logged: a level, or directives such as warn,berth_server=debug [default: info]
    #[arg(long, env = "BERTH_SERVER_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
    #[command(flatten)]
    console: ConsoleOptions,
}

/// What was given, for [`crate::config::Config::resolve`].
pub(super) fn given(global: &Global, options: &Options, matches: &ArgMatches) -> Given {
    let sources = Sources::new(Cli::command(), matches);
    // An empty variable counts as none (OpenTelemetry, environment variables).
    let url = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    Given {
        data_dir: sources.with("data_dir", &global.data_dir),
        join_listen: sources.with("join_listen", &options.join_listen),
        admin_socket: sources.with("admin_socket", &global.admin_socket),
        health_listen: sources.with("health_listen", &options.health_listen),
        advertise: sources.with("advertise", &options.advertise),
        server_names: sources.with("server_names", &options.server_names),
        backend: sources.with("backend", &options.backend),
        kubeconfig: sources.with("kubeconfig", &options.kubeconfig),
        namespace: sources.with("namespace", &options.namespace),
        cluster_signer: sources.with("signer", &options.signer),
        bootstrap_tokens: sources.with("bootstrap_tokens", &options.bootstrap_tokens),
        provider_id: sources.with("provider_id", &options.provider_id),
        inventory: sources.with("inventory", &options.inventory),
        signer_certificate: sources.with("signer_certificate", &options.signer_certificate),
        signer_key: sources.with("signer_key", &options.signer_key),
        serving_certificate: sources.with("serving_certificate", &options.serving_certificate),
        serving_key: sources.with("serving_key", &options.serving_key),
        serving_ca: sources.with("serving_ca", &options.serving_ca),
        cluster_name: sources.with("cluster_name", &options.cluster_name),
        api_endpoints: sources.with("api_endpoints", &options.api_endpoints),
        cluster_dns: sources.with("cluster_dns", &options.cluster_dns),
        cluster_domain: sources.with("cluster_domain", &options.cluster_domain),
        bundle: sources.with("bundle", &options.bundle),
        names: sources.with("node_names", &options.node_names),
        certificate_lifetime: sources.with("certificate_lifetime", &options.certificate_lifetime),
        certificates_per_name_and_hour: sources
            .with("certificates_per_name_and_hour", &options.certificates_per_name_and_hour),
        require_approval: sources.with("require_approval", &options.require_approval),
        joins_in_flight: sources.with("joins_in_flight", &options.joins_in_flight),
        queue: sources.with("queue", &options.queue),
        connections_per_source: sources.with("connections_per_source", &options.connections_per_source),
        drain_pause: sources.with("drain_pause", &options.drain_pause),
        heartbeat_interval: sources.with("heartbeat_interval", &options.heartbeat_interval),
        grace_period: sources.with("grace_period", &options.grace_period),
        proxy_mode: sources.with("proxy_protocol", &options.proxy_protocol),
        proxy_from: sources.with("proxy_from", &options.proxy_from),
        otlp_endpoint: sources.with("otlp_endpoint", &url(&options.otlp_endpoint)).or_else(|| {
            sources.with("otel_exporter_otlp_endpoint", &url(&options.otel_exporter_otlp_endpoint))
        }),
        log_format: sources.with("log_format", &options.log_format),
        log_level: sources.with("log_level", &options.log_level),
        console: console::given(&options.console, &sources),
    }
}
