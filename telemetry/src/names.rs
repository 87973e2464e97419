//! Every name that leaves a process of Berth in a span, a metric or a
//! resource. Constants only. The five phases name themselves
//! (`berth_domain::phase::Phase::as_str`).

/// Values of `service.name`.
pub mod service {
    /// The program on the machine that joins.
    pub const AGENT: &str = "berth-agent";
    /// The program in front of the API server.
    pub const SERVER: &str = "berth-server";
}

/// Names of our own spans beside those of the five phases.
pub mod span {
    /// The root of a trace: one attempt to join, on the agent.
    pub const JOIN: &str = "join";
    /// One use of a token is reserved for a key.
    pub const REDEEM: &str = "redeem";
    /// A node name is bound to a machine.
    pub const BIND: &str = "bind";
    /// A certificate is signed.
    pub const SIGN: &str = "sign";
    /// An audit event or a state change is made durable.
    pub const RECORD: &str = "record";
    /// A plan is carried out on the host, or a Node is changed.
    pub const APPLY: &str = "apply";
    /// A certificate is renewed.
    pub const RENEWAL: &str = "renewal";
    /// A node attends: the standing conversation after the join.
    pub const ATTENDANCE: &str = "attendance";
}

/// Attributes of spans and of the resource, our own and the common ones of
/// `OpenTelemetry`'s semantic conventions.
pub mod attribute {
    /// The id of the join that the server's records use.
    pub const JOIN_ID: &str = "berth.join.id";
    /// The phase: one of five words.
    pub const PHASE: &str = "berth.phase";
    /// How something ended: one word of [`crate::Outcome`].
    pub const OUTCOME: &str = "berth.outcome";
    /// Why it did not go well: a code of `berth_domain::diagnosis::Code`.
    pub const CODE: &str = "berth.code";
    /// The number of the attempt, from 1.
    pub const ATTEMPT: &str = "berth.attempt";
    /// The number of the connection within the server process.
    pub const CONNECTION_ID: &str = "berth.connection.id";
    /// The name of the Node.
    pub const NODE_NAME: &str = "k8s.node.name";
    /// The UID of the cluster: that of its `kube-system` namespace.
    pub const CLUSTER_UID: &str = "k8s.cluster.uid";
    /// The name of the cluster.
    pub const CLUSTER_NAME: &str = "k8s.cluster.name";
    /// The host's id (`/etc/machine-id`).
    pub const HOST_ID: &str = "host.id";
    /// The host's architecture.
    pub const HOST_ARCH: &str = "host.arch";
    /// The kind of operating system: `linux`.
    pub const OS_TYPE: &str = "os.type";
    /// The name of the operating system's release.
    pub const OS_NAME: &str = "os.name";
    /// The version of the operating system's release.
    pub const OS_VERSION: &str = "os.version";
    /// The program.
    pub const SERVICE_NAME: &str = "service.name";
    /// The program's version.
    pub const SERVICE_VERSION: &str = "service.version";
    /// The process, unique among all that run.
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
}

/// Attributes of RPC spans, and the RPCs themselves.
///
/// The RPC conventions are a release candidate (v1.44) and still move:
/// `rpc.response.status_code` is about to become `rpc.status_code`. Nothing
/// outside this module spells them.
pub mod rpc {
    /// The RPC system; here always [`GRPC`].
    pub const SYSTEM: &str = "rpc.system.name";
    /// The value of [`SYSTEM`].
    pub const GRPC: &str = "grpc";
    /// The full method, `package.Service/Method`; also the span's name.
    pub const METHOD: &str = "rpc.method";
    /// The status code in capitals, such as `UNAVAILABLE`.
    pub const STATUS_CODE: &str = "rpc.response.status_code";
    /// The status code again, where it is an error for this side.
    pub const ERROR_TYPE: &str = "error.type";
    /// The address that the client asked for.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The port that the client asked for.
    pub const SERVER_PORT: &str = "server.port";

    /// Connection 1: initialization, authentication, authorization.
    pub const ENROLL: &str = "berth.join.v1.JoinService/Enroll";
    /// Connection 2: configuration, registration, until Ready.
    pub const JOIN: &str = "berth.join.v1.JoinService/Join";
    /// Connection 2: the standing stream.
    pub const ATTEND: &str = "berth.join.v1.JoinService/Attend";
    /// Connection 2: a new certificate for the same machine.
    pub const RENEW: &str = "berth.join.v1.JoinService/Renew";
    /// Connection 2: a polite end.
    pub const LEAVE: &str = "berth.join.v1.JoinService/Leave";
    /// Connection 2: what is in a bundle of node software.
    pub const DESCRIBE: &str = "berth.join.v1.BundleService/Describe";
    /// Connection 2: a file of a bundle.
    pub const FETCH: &str = "berth.join.v1.BundleService/Fetch";
    /// The RPCs whose series exist from the start.
    pub const JOIN_METHODS: [&str; 7] = [ENROLL, JOIN, ATTEND, RENEW, LEAVE, DESCRIBE, FETCH];
}

/// Names of metrics, by Prometheus' rules: base units, `_total` for counters.
pub mod metric {
    /// Histogram, seconds: how long phases took. Labels: phase, outcome.
    pub const JOIN_PHASE_DURATION: &str = "berth_join_phase_duration_seconds";
    /// Histogram, seconds: how long whole joins took. Label: outcome.
    pub const JOIN_DURATION: &str = "berth_join_duration_seconds";
    /// Counter: joins that ended. Labels: outcome, reason.
    pub const JOINS: &str = "berth_joins_total";
    /// Gauge: joins within a phase now. Label: phase.
    pub const JOINS_IN_FLIGHT: &str = "berth_joins_in_flight";
    /// Gauge: joins that wait now. Label: reason.
    pub const JOINS_WAITING: &str = "berth_joins_waiting";
    /// Info: the version that runs.
    pub const BUILD_INFO: &str = "berth_build_info";
    /// Gauge, seconds since 1970: when a certificate ends. Label: certificate.
    pub const CERTIFICATE_EXPIRY: &str = "berth_certificate_expiry_timestamp_seconds";
    /// Counter: connections by how they began. Label: outcome.
    pub const CONNECTIONS: &str = "berth_connections_total";
    /// Counter: renewals. Label: outcome.
    pub const RENEWALS: &str = "berth_renewals_total";
    /// Counter, bytes: what nodes have taken of bundles.
    pub const BUNDLE_BYTES: &str = "berth_bundle_sent_bytes_total";
    /// Gauge: nodes that the server knows. Label: state.
    pub const NODES: &str = "berth_nodes";
    /// Counter: spans that agents sent over their lines. Label: outcome.
    pub const RELAYED_SPANS: &str = "berth_relayed_spans_total";
    /// Histogram, seconds: RPCs served (`rpc.server.call.duration`).
    pub const RPC_SERVER_DURATION: &str = "rpc_server_call_duration_seconds";
    /// Counter: machines that were banned.
    pub const BANS: &str = "berth_bans_total";
    /// Gauge: tokens that the server knows. Label: state.
    pub const TOKENS: &str = "berth_tokens";
    /// Gauge: nodes' newest certificates. Label: state.
    pub const NODE_CERTIFICATES: &str = "berth_node_certificates";
    /// Counter: decisions of limiters. Labels: limiter, decision.
    pub const LIMITER_DECISIONS: &str = "berth_limiter_decisions_total";
    /// Gauge: what waits in a queue now. Label: queue.
    pub const QUEUE_DEPTH: &str = "berth_queue_depth";
    /// Gauge: what may wait in a queue at most. Label: queue.
    pub const QUEUE_LIMIT: &str = "berth_queue_limit";
    /// Histogram, seconds: how long waiting in a queue took. Label: queue.
    pub const QUEUE_WAIT: &str = "berth_queue_wait_seconds";
    /// Histogram, seconds: how long signing took. Labels: signer, outcome.
    pub const SIGNER_DURATION: &str = "berth_signer_duration_seconds";
    /// Histogram, seconds: how long the API server took to answer. Labels: verb, kind,
    /// outcome.
    pub const APISERVER_DURATION: &str = "berth_apiserver_request_duration_seconds";
    /// Counter: spans on their way to the collector. Labels: path, outcome.
    pub const SPANS: &str = "berth_spans_total";
    /// Counter: Events for `kubectl describe`. Label: outcome.
    pub const EVENTS: &str = "berth_events_total";

    /// All of them; docs/observability.md has a row for each.
    pub const ALL: [&str; 24] = [
        JOIN_PHASE_DURATION,
        JOIN_DURATION,
        JOINS,
        JOINS_IN_FLIGHT,
        JOINS_WAITING,
        BUILD_INFO,
        CERTIFICATE_EXPIRY,
        CONNECTIONS,
        RENEWALS,
        BUNDLE_BYTES,
        NODES,
        RELAYED_SPANS,
        RPC_SERVER_DURATION,
        BANS,
        TOKENS,
        NODE_CERTIFICATES,
        LIMITER_DECISIONS,
        QUEUE_DEPTH,
        QUEUE_LIMIT,
        QUEUE_WAIT,
        SIGNER_DURATION,
        APISERVER_DURATION,
        SPANS,
        EVENTS,
    ];
}

/// Names of metric labels. Their values come from closed lists; a node name is
/// never one of them.
pub mod label {
    /// One of the five phases.
    pub const PHASE: &str = "phase";
    /// How something ended.
    pub const OUTCOME: &str = "outcome";
    /// A diagnosis code, or [`NO_REASON`].
    pub const REASON: &str = "reason";
    /// The value of [`REASON`] where there is nothing to explain.
    pub const NO_REASON: &str = "none";
    /// The state of a node, of a token or of a certificate.
    pub const STATE: &str = "state";
    /// What lets only so much through.
    pub const LIMITER: &str = "limiter";
    /// What a limiter decided.
    pub const DECISION: &str = "decision";
    /// Where something waits its turn.
    pub const QUEUE: &str = "queue";
    /// Who signs for nodes.
    pub const SIGNER: &str = "signer";
    /// What the API server was asked to do.
    pub const VERB: &str = "verb";
    /// The kind of object that the API server was asked for.
    pub const KIND: &str = "kind";
    /// Whose spans: the server's own, or those of agents.
    pub const PATH: &str = "path";
    /// Which of the server's certificates.
    pub const CERTIFICATE: &str = "certificate";
    /// The program's version.
    pub const VERSION: &str = "version";
    /// The full RPC method.
    pub const RPC_METHOD: &str = "rpc_method";
    /// The RPC's status code in capitals.
    pub const RPC_STATUS_CODE: &str = "rpc_response_status_code";
    /// The exemplar's only label.
    pub const TRACE_ID: &str = "trace_id";
}
