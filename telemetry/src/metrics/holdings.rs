//! What the server holds: nodes, tokens and certificates by how they stand, bans, and
//! spans that wait for the collector.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use berth_domain::term::{CertificateTerm, TokenTerm};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Certificate, Labels, Metrics, NodeState, Queue, SpanOutcome, SpanPath, stem};
use crate::export::QUEUE;
use crate::names::{label, metric};
use crate::setup::Spans;

/// The metrics of all that is held.
#[derive(Debug)]
pub(super) struct Holdings {
    nodes: Family<Labels<1>, Gauge>,
    tokens: Family<Labels<1>, Gauge>,
    node_certificates: Family<Labels<1>, Gauge>,
    certificate_expiry: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    bans: Counter,
    spans: Family<Labels<2>, Counter>,
}

impl Holdings {
    /// Nothing held yet.
    pub(super) fn register(to: &mut Registry) -> Self {
        let held = Self {
            nodes: Family::default(),
            tokens: Family::default(),
            node_certificates: Family::default(),
            certificate_expiry: Family::default(),
            bans: Counter::default(),
            spans: Family::default(),
        };
        to.register(metric::NODES, "Nodes that the server knows", held.nodes.clone());
        to.register(metric::TOKENS, "Tokens that the server knows", held.tokens.clone());
        to.register(
            metric::NODE_CERTIFICATES,
            "Newest certificates of nodes that are not banned",
            held.node_certificates.clone(),
        );
        to.register(
            metric::CERTIFICATE_EXPIRY,
            "When a certificate of the server ends",
            held.certificate_expiry.clone(),
        );
        to.register(stem(metric::BANS), "Machines that were banned", held.bans.clone());
        to.register(stem(metric::SPANS), "Spans on their way to the collector", held.spans.clone());
        for state in NodeState::ALL {
            drop(held.nodes.get_or_create(&[(label::STATE, state.as_str())]));
        }
        for term in TokenTerm::ALL {
            drop(held.tokens.get_or_create(&[(label::STATE, term.as_str())]));
        }
        for term in CertificateTerm::ALL {
            drop(held.node_certificates.get_or_create(&[(label::STATE, term.as_str())]));
        }
        for path in SpanPath::ALL {
            for outcome in SpanOutcome::ALL {
                drop(held.spans.get_or_create(&sent(path, outcome)));
            }
        }
        held
    }
}

impl Metrics {
    /// How many nodes are in `state` now.
    pub fn nodes(&self, state: NodeState, count: u64) {
        set(&self.held.nodes, state.as_str(), count);
    }

    /// How many tokens stand so now.
    pub fn tokens(&self, term: TokenTerm, count: u64) {
        set(&self.held.tokens, term.as_str(), count);
    }

    /// How many nodes' certificates stand so now.
    pub fn node_certificates(&self, term: CertificateTerm, count: u64) {
        set(&self.held.node_certificates, term.as_str(), count);
    }

    /// When a certificate of the server's own ends.
    pub fn certificate_expires(&self, certificate: Certificate, at: SystemTime) {
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let labels = [(label::CERTIFICATE, certificate.as_str())];
        self.held.certificate_expiry.get_or_create(&labels).set(seconds);
    }

    /// A machine was banned.
    pub fn banned(&self) {
        self.held.bans.inc();
    }

    /// What became of spans so far, and how many wait; told when metrics are read.
    pub fn spans(&self, path: SpanPath, spans: &Spans) {
        let total = |outcome, count: u64| {
            // The exporter counts; this only shows its count.
            self.held.spans.get_or_create(&sent(path, outcome)).inner().store(count, Ordering::Relaxed);
        };
        total(SpanOutcome::Delivered, spans.delivered());
        total(SpanOutcome::Dropped, spans.dropped());
        total(SpanOutcome::Failed, spans.failed());
        let queue = match path {
            SpanPath::Own => Queue::Spans,
            SpanPath::Relayed => Queue::RelayedSpans,
        };
        self.queue_is(queue, spans.waiting(), QUEUE);
    }
}

fn set(family: &Family<Labels<1>, Gauge>, state: &'static str, count: u64) {
    family.get_or_create(&[(label::STATE, state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
}

const fn sent(path: SpanPath, outcome: SpanOutcome) -> Labels<2> {
    [(label::PATH, path.as_str()), (label::OUTCOME, outcome.as_str())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_says_what_it_was_told() {
        let metrics = Metrics::new("1");
        metrics.tokens(TokenTerm::Ending, 2);
        metrics.node_certificates(CertificateTerm::Late, 3);
        metrics.banned();
        let text = metrics.encode();
        for line in [
            "berth_tokens{state=\"ending\"} 2",
            "berth_tokens{state=\"usable\"} 0",
            "berth_node_certificates{state=\"late\"} 3",
            "berth_bans_total 1",
            "berth_spans_total{path=\"own\",outcome=\"dropped\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line}\n{text}");
        }
    }
}
