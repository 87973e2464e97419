//! What the server counts beside its joins, and the page on which all of it is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::term::{CertificateTerm, TokenTerm};
use berth_telemetry::Spans;
use berth_telemetry::metrics::{
    ConnectionOutcome as Counter, Limiter, LimiterMeter, Metrics, NodeState, Queue, QueueMeter, SignerKind,
    SpanPath,
};
use tokio_util::sync::CancellationToken;

use super::serving::Serving;
use super::settings::{Backend, Settings};
use crate::config::ClusterSigner;
use crate::health::EncodeMetrics;
use crate::join::initialization::Admission;
use crate::listener::{ConnectionOutcome, Observer};
use crate::ports::{Clock, Cluster, NodeCounts};

/// Counts connections.
pub(super) struct Counted(pub(super) Arc<Metrics>);

impl Observer for Counted {
    fn connection(&self, outcome: ConnectionOutcome) {
        let counter = match outcome {
            ConnectionOutcome::Accepted(_) => Counter::Accepted,
            ConnectionOutcome::SourceLimit
            | ConnectionOutcome::TotalLimit
            | ConnectionOutcome::AcceptError => Counter::Limited,
            ConnectionOutcome::ProxyHeaderUnexpected
            | ConnectionOutcome::ProxyHeaderMissing
            | ConnectionOutcome::ProxyHeaderInvalid
            | ConnectionOutcome::ProxySourceRefused => Counter::ProxyHeader,
            ConnectionOutcome::TlsFailed(_)
            | ConnectionOutcome::ClientCertificateRefused(_)
            | ConnectionOutcome::NoAlpn => Counter::Handshake,
            ConnectionOutcome::DeadlineHandshake
            | ConnectionOutcome::DeadlineFirstByte
            | ConnectionOutcome::DeadlineProof => Counter::TimedOut,
        };
        self.0.connection(counter);
    }

    fn handshakes(&self) -> QueueMeter {
        self.0.queue(Queue::Handshakes, None)
    }

    fn total(&self) -> LimiterMeter {
        self.0.limiter(Limiter::Connections)
    }

    fn source(&self) -> LimiterMeter {
        self.0.limiter(Limiter::Source)
    }
}

/// Renders the page; what others count is asked for then.
pub(super) fn page(
    metrics: Arc<Metrics>,
    serving: Arc<Serving>,
    own: Spans,
    relayed: Option<Spans>,
) -> EncodeMetrics {
    let relayed = relayed.unwrap_or_default();
    Arc::new(move || {
        serving.tell(&metrics);
        metrics.spans(SpanPath::Own, &own);
        metrics.spans(SpanPath::Relayed, &relayed);
        metrics.encode()
    })
}

/// The places of joins, counted.
pub(super) fn admission(metrics: &Metrics, settings: &Settings) -> Admission {
    let queue = usize::try_from(settings.queue).unwrap_or(usize::MAX);
    Admission::new(settings.joins_in_flight, settings.queue)
        .metered(metrics.queue(Queue::Joins, Some(queue)), metrics.limiter(Limiter::Joins))
}

/// Who signs for nodes, by these settings.
pub(super) fn signs(settings: &Settings) -> SignerKind {
    match &settings.backend {
        Backend::Kubernetes(kubernetes) if kubernetes.signer == ClusterSigner::Kube => SignerKind::Cluster,
        Backend::Kubernetes(_) => SignerKind::Files,
        Backend::Embedded if settings.signer.key.is_some() => SignerKind::Files,
        Backend::Embedded => SignerKind::Own,
    }
}

/// Counts nodes, tokens and nodes' certificates by how they stand, now and then: at most
/// a hundredth of the time goes into it, however many there are. Runs until `end`.
pub(super) async fn count_held(
    cluster: Arc<dyn Cluster>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    end: CancellationToken,
) {
    loop {
        let began = Instant::now();
        // What cannot be counted now stands as it was: joins say that the store is away.
        if let Ok(NodeCounts { ready, not_ready, banned }) = cluster.count().await {
            metrics.nodes(NodeState::Ready, ready);
            metrics.nodes(NodeState::NotReady, not_ready);
            metrics.nodes(NodeState::Banned, banned);
        }
        if let Ok(tokens) = cluster.tokens(clock.now()).await {
            let now = clock.now();
            let terms: Vec<TokenTerm> = tokens.iter().map(|token| TokenTerm::of(token, now)).collect();
            for term in TokenTerm::ALL {
                metrics.tokens(term, count(&terms, &term));
            }
        }
        if let Ok(certificates) = cluster.certificates().await {
            let now = clock.now();
            let terms: Vec<_> = certificates.iter().map(|terms| CertificateTerm::of(terms, now)).collect();
            for term in CertificateTerm::ALL {
                metrics.node_certificates(term, count(&terms, &term));
            }
        }
        let pause = BETWEEN_COUNTS.max(began.elapsed().saturating_mul(100));
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn count<T: PartialEq>(all: &[T], one: &T) -> u64 {
    all.iter().filter(|found| *found == one).count().try_into().unwrap_or(u64::MAX)
}

/// Between two counts, at least.
const BETWEEN_COUNTS: Duration = Duration::from_secs(15);
