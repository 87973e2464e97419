//! The server's side: a queue of its own to the collector, for spans that are the
//! agents' and not the server's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_domain::span::RelayedSpan;
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor as _};

use super::words;
use crate::export::{Counts, Queue};
use crate::names::{attribute, service};
use crate::sample::{Share, went_wrong};
use crate::setup::{Delivery, InstallError, Spans};

/// What passes agents' spans on. It never waits: what the collector does not take in
/// time is lost and counted.
#[derive(Debug)]
pub struct Passed {
    queue: Queue,
    counts: Arc<Counts>,
    good: Share,
}

impl Passed {
    /// Towards a collector's OTLP/gRPC endpoint, of traces in which all went well only the
    /// share that is `good`.
    ///
    /// # Errors
    /// The endpoint is not understood, or its thread does not start.
    pub fn to(endpoint: &str, good: Share) -> Result<Self, InstallError> {
        // What else describes an agent's process differs from node to node.
        let of_agents = Resource::builder_empty()
            .with_attributes([KeyValue::new(attribute::SERVICE_NAME, service::AGENT)])
            .build();
        let queue = Queue::start(endpoint, of_agents)?;
        let counts = queue.counts();
        Ok(Self { queue, counts, good })
    }

    /// Passes on the spans of a node that is known by its certificate; how many of
    /// them are Berth's.
    pub fn pass(&self, spans: &[RelayedSpan], node: &str) -> u32 {
        let mut taken = 0_u32;
        let known: Vec<SpanData> = spans.iter().filter_map(|span| words::read(span, node)).collect();
        // They come a join at a time: what went wrong with one of them concerns all.
        let bad: Vec<TraceId> =
            known.iter().filter(|span| went_wrong(span)).map(|span| span.span_context.trace_id()).collect();
        for span in known {
            taken = taken.saturating_add(1);
            let trace = span.span_context.trace_id();
            if bad.contains(&trace) || self.good.keeps(trace.to_bytes()) {
                self.queue.on_end(span);
            }
        }
        taken
    }

    /// What became of the spans that were passed on.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans(Arc::clone(&self.counts))
    }

    /// Hands what still waits to the collector, for at most so long.
    pub fn shutdown(&self, patience: Duration) -> Delivery {
        // Late or not, the counts tell what became of them.
        let _late = self.queue.shutdown_with_timeout(patience);
        let delivered = self.counts.delivered.load(Ordering::Relaxed);
        let lost = self.counts.ended.load(Ordering::Relaxed).saturating_sub(delivered);
        Delivery { delivered, lost }
    }
}
