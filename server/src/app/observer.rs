//! What the server counts beside its joins: connections, and nodes by state.

use std::sync::Arc;
use std::time::Duration;

use berth_telemetry::metrics::{ConnectionOutcome as Counter, Metrics, NodeState};
use tokio_util::sync::CancellationToken;

use crate::listener::{ConnectionOutcome, Observer};
use crate::ports::{Cluster, NodeCounts};

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
}

/// Counts nodes by state, now and then. Runs until `end`.
pub(super) async fn count_nodes(
    cluster: Arc<dyn Cluster>,
    metrics: Arc<Metrics>,
    every: Duration,
    end: CancellationToken,
) {
    loop {
        if let Ok(NodeCounts { ready, not_ready, banned }) = cluster.count().await {
            metrics.nodes(NodeState::Ready, ready);
            metrics.nodes(NodeState::NotReady, not_ready);
            metrics.nodes(NodeState::Banned, banned);
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}
