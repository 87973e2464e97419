//! What the server counts, for Prometheus. Every label comes from a closed
//! list, so the number of series is fixed; series whose values are known exist
//! from the start with zero, so that a rate over them is never missing its
//! first step. A node's name is never a label.

mod calls;
mod holdings;
mod label_values;
mod queues;

use std::time::Duration;

use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::names::{label, metric, rpc as rpc_names};
use crate::phase::Outcome;
use crate::rpc;

use calls::Calls;
use holdings::Holdings;
use queues::Queues;

pub use calls::{ApiMeter, EventMeter, SignerMeter, Signing};
pub use label_values::{
    ApiKind, ApiOutcome, ApiVerb, Certificate, ConnectionOutcome, Decision, EventOutcome, Limiter, NodeState,
    Queue, RelayOutcome, SignerKind, SpanOutcome, SpanPath,
};
pub use queues::{LimiterMeter, QueueMeter, Queued};

/// The `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Exemplar = [(&'static str, String); 1];
type JoinHistogram = HistogramWithExemplars<Exemplar>;

/// The server's metrics. All methods take `&self`; share it by reference or
/// `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    phase_duration: Family<Labels<2>, JoinHistogram, JoinBuckets>,
    join_duration: Family<Labels<1>, JoinHistogram, JoinBuckets>,
    joins: Family<Labels<2>, Counter>,
    in_flight: Family<Labels<1>, Gauge>,
    waiting: Family<Labels<1>, Gauge>,
    connections: Family<Labels<1>, Counter>,
    renewals: Family<Labels<1>, Counter>,
    bundle_bytes: Counter,
    relayed: Family<Labels<1>, Counter>,
    rpcs: Family<Labels<2>, Histogram, RpcBuckets>,
    queues: Queues,
    calls: Calls,
    held: Holdings,
}

impl Metrics {
    /// All metrics at zero, for the given version of the program.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        let mut metrics = Self {
            phase_duration: Family::new_with_constructor(JoinBuckets),
            join_duration: Family::new_with_constructor(JoinBuckets),
            joins: Family::default(),
            in_flight: Family::default(),
            waiting: Family::default(),
            connections: Family::default(),
            renewals: Family::default(),
            bundle_bytes: Counter::default(),
            relayed: Family::default(),
            rpcs: Family::new_with_constructor(RpcBuckets),
            queues: Queues::register(&mut registry),
            calls: Calls::register(&mut registry),
            held: Holdings::register(&mut registry),
            registry,
        };
        metrics.register(version);
        metrics.touch();
        metrics
    }

    /// A phase has ended. `trace_id` becomes the exemplar.
    pub fn phase_finished(&self, phase: Phase, outcome: Outcome, took: Duration, trace_id: Option<&str>) {
        self.phase_duration
            .get_or_create(&[(label::PHASE, phase.as_str()), (label::OUTCOME, outcome.as_str())])
            .observe(took.as_secs_f64(), exemplar(trace_id), None);
    }

    /// A join has ended, with the code of what ended it if it did not go well.
    pub fn join_finished(
        &self,
        outcome: Outcome,
        code: Option<Code>,
        took: Duration,
        trace_id: Option<&str>,
    ) {
        self.joins.get_or_create(&[(label::OUTCOME, outcome.as_str()), (label::REASON, reason(code))]).inc();
        self.join_duration.get_or_create(&[(label::OUTCOME, outcome.as_str())]).observe(
            took.as_secs_f64(),
            exemplar(trace_id),
            None,
        );
    }

    /// Counts a join as being in `phase` until the value is dropped.
    #[must_use]
    pub fn in_flight(&self, phase: Phase) -> Present {
        Present::new(self.in_flight.get_or_create_owned(&[(label::PHASE, phase.as_str())]))
    }

    /// Counts a join as waiting for `code` until the value is dropped.
    #[must_use]
    pub fn waiting(&self, code: Code) -> Present {
        Present::new(self.waiting.get_or_create_owned(&[(label::REASON, code.as_str())]))
    }

    /// A connection has begun, or failed to.
    pub fn connection(&self, outcome: ConnectionOutcome) {
        self.connections.get_or_create(&[(label::OUTCOME, outcome.as_str())]).inc();
    }

    /// A renewal has ended.
    pub fn renewal(&self, outcome: Outcome) {
        self.renewals.get_or_create(&[(label::OUTCOME, outcome.as_str())]).inc();
    }

    /// A node has taken so many bytes of a bundle.
    pub fn bundle_bytes(&self, bytes: u64) {
        self.bundle_bytes.inc_by(bytes);
    }

    /// Agents have sent so many spans over their lines.
    pub fn relayed(&self, outcome: RelayOutcome, spans: u32) {
        self.relayed.get_or_create(&[(label::OUTCOME, outcome.as_str())]).inc_by(spans.into());
    }

    /// An RPC has been served. `method` is one of [`crate::names::rpc`].
    pub fn rpc_finished(&self, method: &'static str, status: tonic::Code, took: Duration) {
        self.rpcs
            .get_or_create(&[(label::RPC_METHOD, method), (label::RPC_STATUS_CODE, rpc::status_name(status))])
            .observe(took.as_secs_f64());
    }

    /// All metrics as `OpenMetrics` text, to be served as [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing into a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    fn register(&mut self, version: &'static str) {
        let to = &mut self.registry;
        let build = Info::new([(label::VERSION, version)]);
        to.register(stem(metric::BUILD_INFO), "The version that runs", build);
        to.register(
            metric::JOIN_PHASE_DURATION,
            "How long phases of joins took",
            self.phase_duration.clone(),
        );
        to.register(metric::JOIN_DURATION, "How long whole joins took", self.join_duration.clone());
        to.register(stem(metric::JOINS), "Joins that ended", self.joins.clone());
        to.register(metric::JOINS_IN_FLIGHT, "Joins within a phase", self.in_flight.clone());
        to.register(metric::JOINS_WAITING, "Joins that wait", self.waiting.clone());
        to.register(stem(metric::CONNECTIONS), "Connections to the join listener", self.connections.clone());
        to.register(stem(metric::RENEWALS), "Renewals of certificates", self.renewals.clone());
        to.register(
            stem(metric::BUNDLE_BYTES),
            "Bytes of bundles that nodes have taken",
            self.bundle_bytes.clone(),
        );
        to.register(
            stem(metric::RELAYED_SPANS),
            "Spans that agents sent over their lines",
            self.relayed.clone(),
        );
        to.register(
            metric::RPC_SERVER_DURATION,
            "How long RPCs took; a stream counts whole",
            self.rpcs.clone(),
        );
    }

    /// Brings the series into being whose labels are known beforehand.
    fn touch(&self) {
        for outcome in Outcome::ALL {
            let outcome_label = (label::OUTCOME, outcome.as_str());
            drop(self.join_duration.get_or_create(&[outcome_label]));
            drop(self.renewals.get_or_create(&[outcome_label]));
            for phase in Phase::ALL {
                drop(self.phase_duration.get_or_create(&[(label::PHASE, phase.as_str()), outcome_label]));
            }
            for code in reasons(outcome) {
                drop(self.joins.get_or_create(&[outcome_label, (label::REASON, reason(code))]));
            }
        }
        for phase in Phase::ALL {
            drop(self.in_flight.get_or_create(&[(label::PHASE, phase.as_str())]));
        }
        for code in Code::ALL {
            drop(self.waiting.get_or_create(&[(label::REASON, code.as_str())]));
        }
        for outcome in ConnectionOutcome::ALL {
            drop(self.connections.get_or_create(&[(label::OUTCOME, outcome.as_str())]));
        }
        for outcome in RelayOutcome::ALL {
            drop(self.relayed.get_or_create(&[(label::OUTCOME, outcome.as_str())]));
        }
        for method in rpc_names::JOIN_METHODS {
            let ok = rpc::status_name(tonic::Code::Ok);
            drop(self.rpcs.get_or_create(&[(label::RPC_METHOD, method), (label::RPC_STATUS_CODE, ok)]));
        }
    }
}

/// Something that is counted while it lives.
#[derive(Debug)]
pub struct Present {
    gauge: Gauge,
}

impl Present {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self { gauge }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[derive(Clone, Debug)]
struct JoinBuckets;

impl MetricConstructor<JoinHistogram> for JoinBuckets {
    fn new_metric(&self) -> JoinHistogram {
        JoinHistogram::new(JOIN_SECONDS.into_iter())
    }
}

#[derive(Clone, Debug)]
struct RpcBuckets;

impl MetricConstructor<Histogram> for RpcBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(RPC_SECONDS.into_iter().chain(LONG_SECONDS))
    }
}

/// The reasons that can stand beside an outcome from the start.
fn reasons(outcome: Outcome) -> Vec<Option<Code>> {
    match outcome {
        Outcome::Ok | Outcome::Cancelled => vec![None],
        Outcome::Refused | Outcome::Failed | Outcome::Waiting => Code::ALL.into_iter().map(Some).collect(),
    }
}

fn reason(code: Option<Code>) -> &'static str {
    code.map_or(label::NO_REASON, Code::as_str)
}

fn exemplar(trace_id: Option<&str>) -> Option<Exemplar> {
    trace_id.map(|id| [(label::TRACE_ID, id.to_owned())])
}

/// The encoder adds the suffix by the metric's type.
fn stem(name: &'static str) -> &'static str {
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}

/// From a phase on a quick machine to a wait that a person ends.
const JOIN_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

/// The buckets that the RPC conventions advise …
const RPC_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// … and some for streams that last a whole join.
const LONG_SECONDS: [f64; 3] = [60.0, 180.0, 600.0];

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn every_closed_series_is_there_before_anything_happens() {
        let text = Metrics::new("1.2.3").encode();
        for line in [
            "berth_build_info{version=\"1.2.3\"} 1",
            "berth_joins_total{outcome=\"ok\",reason=\"none\"} 0",
            "berth_joins_total{outcome=\"refused\",reason=\"TOKEN_SPENT\"} 0",
            "berth_joins_in_flight{phase=\"registration\"} 0",
            "berth_joins_waiting{reason=\"SWAP_ON\"} 0",
            "berth_connections_total{outcome=\"handshake\"} 0",
            "berth_renewals_total{outcome=\"failed\"} 0",
            "berth_nodes{state=\"banned\"} 0",
            "berth_join_phase_duration_seconds_count{phase=\"authorization\",outcome=\"refused\"} 0",
            "berth_join_duration_seconds_count{outcome=\"cancelled\"} 0",
            "rpc_server_call_duration_seconds_count{rpc_method=\"berth.join.v1.JoinService/Enroll\",\
             rpc_response_status_code=\"OK\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("berth_certificate_expiry_timestamp_seconds{"), "no false alarm");
    }

    #[test]
    fn a_slow_join_is_found_by_the_trace_in_its_bucket() {
        let metrics = Metrics::new("1");
        let took = Duration::from_secs(200);
        metrics.phase_finished(Phase::Registration, Outcome::Ok, took, Some(TRACE));
        metrics.join_finished(Outcome::Failed, Some(Code::SwapOn), took, Some(TRACE));
        let text = metrics.encode();
        let bucket = "berth_join_phase_duration_seconds_bucket{le=\"600.0\",\
                      phase=\"registration\",outcome=\"ok\"} 1 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 200.0";
        assert!(text.lines().any(|line| line == bucket), "{text}");
        assert!(text.contains("berth_joins_total{outcome=\"failed\",reason=\"SWAP_ON\"} 1"));
        assert!(text.contains("berth_join_duration_seconds_sum{outcome=\"failed\"} 200.0"));
    }

    #[test]
    fn what_is_present_is_counted_until_it_goes() {
        let metrics = Metrics::new("1");
        let first = metrics.in_flight(Phase::Authentication);
        let second = metrics.in_flight(Phase::Authentication);
        let waits = metrics.waiting(Code::SwapOn);
        assert!(metrics.encode().contains("berth_joins_in_flight{phase=\"authentication\"} 2"));
        assert!(metrics.encode().contains("berth_joins_waiting{reason=\"SWAP_ON\"} 1"));
        drop((first, waits));
        assert!(metrics.encode().contains("berth_joins_in_flight{phase=\"authentication\"} 1"));
        assert!(metrics.encode().contains("berth_joins_waiting{reason=\"SWAP_ON\"} 0"));
        drop(second);
    }

    #[test]
    fn gauges_and_counters_say_what_they_were_told() {
        let metrics = Metrics::new("1");
        metrics.connection(ConnectionOutcome::Accepted);
        metrics.renewal(Outcome::Ok);
        metrics.nodes(NodeState::Ready, 3);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        metrics.certificate_expires(Certificate::Ca, at);
        metrics.rpc_finished(rpc_names::RENEW, tonic::Code::PermissionDenied, Duration::from_millis(3));
        let text = metrics.encode();
        for line in [
            "berth_connections_total{outcome=\"accepted\"} 1",
            "berth_renewals_total{outcome=\"ok\"} 1",
            "berth_nodes{state=\"ready\"} 3",
            "berth_certificate_expiry_timestamp_seconds{certificate=\"ca\"} 1800000000.0",
            "rpc_server_call_duration_seconds_count{rpc_method=\"berth.join.v1.JoinService/Renew\",\
             rpc_response_status_code=\"PERMISSION_DENIED\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line}\n{text}");
        }
    }
}
