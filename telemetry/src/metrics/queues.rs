//! Queues and limiters: how much waits, how much may, how long it took, and what was
//! decided. A queue's owner keeps a meter; one by default counts for nobody, so that an
//! adapter works without metrics.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Decision, Labels, Limiter, Metrics, Queue, stem};
use crate::names::{label, metric};

/// The metrics of all queues and limiters.
#[derive(Debug)]
pub(super) struct Queues {
    depth: Family<Labels<1>, Gauge>,
    limit: Family<Labels<1>, Gauge>,
    wait: Family<Labels<1>, Histogram, WaitBuckets>,
    decisions: Family<Labels<2>, Counter>,
}

impl Queues {
    /// All of them at zero. A queue's limit comes with its owner: a server has not all
    /// queues.
    pub(super) fn register(to: &mut Registry) -> Self {
        let queues = Self {
            depth: Family::default(),
            limit: Family::default(),
            wait: Family::new_with_constructor(WaitBuckets),
            decisions: Family::default(),
        };
        to.register(metric::QUEUE_DEPTH, "What waits in a queue now", queues.depth.clone());
        to.register(metric::QUEUE_LIMIT, "What may wait in a queue at most", queues.limit.clone());
        to.register(metric::QUEUE_WAIT, "How long waiting in a queue took", queues.wait.clone());
        to.register(stem(metric::LIMITER_DECISIONS), "Decisions of limiters", queues.decisions.clone());
        for limiter in Limiter::ALL {
            for decision in Decision::ALL {
                drop(queues.decisions.get_or_create(&decided(limiter, decision)));
            }
        }
        queues
    }
}

impl Metrics {
    /// The meter of a queue in which at most `limit` may wait; `None`: as many as there
    /// are callers, who are bounded elsewhere.
    #[must_use]
    pub fn queue(&self, queue: Queue, limit: Option<usize>) -> QueueMeter {
        let labels = [(label::QUEUE, queue.as_str())];
        if let Some(limit) = limit {
            self.queues.limit.get_or_create(&labels).set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        QueueMeter {
            depth: self.queues.depth.get_or_create_owned(&labels),
            wait: self.queues.wait.get_or_create_owned(&labels),
        }
    }

    /// What waits in a queue whose owner is asked when metrics are read, and what may.
    pub fn queue_is(&self, queue: Queue, depth: u64, limit: usize) {
        let labels = [(label::QUEUE, queue.as_str())];
        self.queues.depth.get_or_create(&labels).set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.queues.limit.get_or_create(&labels).set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// The meter of a limiter.
    #[must_use]
    pub fn limiter(&self, limiter: Limiter) -> LimiterMeter {
        let counter = |decision| self.queues.decisions.get_or_create_owned(&decided(limiter, decision));
        LimiterMeter {
            passed: counter(Decision::Passed),
            waited: counter(Decision::Waited),
            refused: counter(Decision::Refused),
        }
    }
}

const fn decided(limiter: Limiter, decision: Decision) -> Labels<2> {
    [(label::LIMITER, limiter.as_str()), (label::DECISION, decision.as_str())]
}

/// Counts what waits in one queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueMeter {
    depth: Gauge,
    wait: Histogram,
}

impl Default for QueueMeter {
    fn default() -> Self {
        Self { depth: Gauge::default(), wait: WaitBuckets.new_metric() }
    }
}

impl QueueMeter {
    /// Something waits until the value is dropped; how long is counted then.
    #[must_use]
    pub fn enter(&self) -> Queued {
        self.depth.inc();
        Queued { meter: self.clone(), since: Instant::now() }
    }
}

/// Something that waits in a queue.
#[derive(Debug)]
pub struct Queued {
    meter: QueueMeter,
    since: Instant,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.meter.depth.dec();
        self.meter.wait.observe(self.since.elapsed().as_secs_f64());
    }
}

/// Counts what one limiter decides. Cheap to clone; by default for nobody.
#[derive(Clone, Debug, Default)]
pub struct LimiterMeter {
    passed: Counter,
    waited: Counter,
    refused: Counter,
}

impl LimiterMeter {
    /// Something was decided.
    pub fn decided(&self, decision: Decision) {
        match decision {
            Decision::Passed => self.passed.inc(),
            Decision::Waited => self.waited.inc(),
            Decision::Refused => self.refused.inc(),
        };
    }
}

#[derive(Clone, Debug)]
struct WaitBuckets;

impl MetricConstructor<Histogram> for WaitBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(WAIT_SECONDS)
    }
}

/// From a queue that is empty to one whose owner gives up.
const WAIT_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    #[test]
    fn what_waits_is_counted_and_how_long_it_took() {
        let metrics = Metrics::new("1");
        let meter = metrics.queue(Queue::Writes, Some(4_096));
        let (first, second) = (meter.enter(), meter.enter());
        let text = metrics.encode();
        assert!(has(&text, "berth_queue_depth{queue=\"writes\"} 2"), "{text}");
        assert!(has(&text, "berth_queue_limit{queue=\"writes\"} 4096"), "{text}");
        drop(first);
        drop(second);
        let text = metrics.encode();
        assert!(has(&text, "berth_queue_depth{queue=\"writes\"} 0"), "{text}");
        assert!(has(&text, "berth_queue_wait_seconds_count{queue=\"writes\"} 2"), "{text}");
    }

    #[test]
    fn a_limiter_counts_by_what_it_decides() {
        let metrics = Metrics::new("1");
        let meter = metrics.limiter(Limiter::Source);
        meter.decided(Decision::Refused);
        meter.decided(Decision::Passed);
        let text = metrics.encode();
        assert!(has(&text, "berth_limiter_decisions_total{limiter=\"source\",decision=\"refused\"} 1"));
        assert!(has(&text, "berth_limiter_decisions_total{limiter=\"source\",decision=\"passed\"} 1"));
        assert!(has(&text, "berth_limiter_decisions_total{limiter=\"joins\",decision=\"waited\"} 0"));
    }

    #[test]
    fn a_meter_by_default_counts_for_nobody() {
        drop(QueueMeter::default().enter());
        LimiterMeter::default().decided(Decision::Passed);
    }
}
