//! Agents' spans on their way to the collector and to the console: how many each node
//! may send, and who gets them. The one table of its bounds is [`RelayLimits`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_domain::name::NodeName;
use berth_domain::span::RelayedSpan;
use berth_telemetry::Spans;
use berth_telemetry::metrics::{Metrics, RelayOutcome};
use berth_telemetry::recent::Recent;
use berth_telemetry::relay::Passed;

/// What bounds the spans of nodes.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Bytes of one message: 64 spans of the largest kind would have more, those of
    /// Berth have a third of it.
    pub message_bytes: usize,
    /// Spans that a node may send at once: a dozen joins' worth.
    pub burst: u32,
    /// Time in which a node may send as many again.
    pub refill: Duration,
    /// Nodes whose share is known at one time; more are told to come back.
    pub nodes: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self { message_bytes: 64 * 1024, burst: 256, refill: Duration::from_secs(60), nodes: 16_384 }
    }
}

/// Who gets the spans of agents.
#[derive(Default)]
pub struct Takers {
    /// The collector.
    pub passed: Option<Passed>,
    /// The console of this server.
    pub recent: Option<Recent>,
}

/// Passes spans on, each node within its share.
pub struct Relay {
    takers: Takers,
    limits: RelayLimits,
    shares: Mutex<HashMap<NodeName, Share>>,
    metrics: Arc<Metrics>,
}

/// A node has used up its share; what it sent is lost.
#[derive(Debug, PartialEq, Eq)]
pub struct OverShare;

impl Relay {
    /// A relay to these; none, where nobody takes spans.
    #[must_use]
    pub fn to(takers: Takers, limits: RelayLimits, metrics: Arc<Metrics>) -> Option<Self> {
        let is_wanted = takers.passed.is_some() || takers.recent.is_some();
        is_wanted.then(|| Self { takers, limits, shares: Mutex::default(), metrics })
    }

    /// The bounds.
    #[must_use]
    pub const fn limits(&self) -> &RelayLimits {
        &self.limits
    }

    /// Passes on the spans of a node that is known by its certificate; how many of them
    /// go on.
    ///
    /// # Errors
    /// The node has used up its share.
    pub fn pass(&self, node: &NodeName, spans: &[RelayedSpan], now: Instant) -> Result<u32, OverShare> {
        let many = u32::try_from(spans.len()).unwrap_or(u32::MAX);
        if !self.admit(node, many, now) {
            self.metrics.relayed(RelayOutcome::Limited, many);
            return Err(OverShare);
        }
        let seen = self.takers.recent.as_ref().map(|recent| recent.take(spans, node.as_str()));
        let passed = self.takers.passed.as_ref().map(|passed| passed.pass(spans, node.as_str()));
        let taken = passed.or(seen).unwrap_or_default();
        self.metrics.relayed(RelayOutcome::Passed, taken);
        self.metrics.relayed(RelayOutcome::Unknown, many.saturating_sub(taken));
        Ok(taken)
    }

    /// What became of the spans that went on to the collector, if there is one.
    #[must_use]
    pub fn spans(&self) -> Option<Spans> {
        self.takers.passed.as_ref().map(Passed::spans)
    }

    /// Hands what waits to the collector, for so long at most.
    pub fn shutdown(&self, patience: Duration) {
        if let Some(passed) = &self.takers.passed {
            let delivery = passed.shutdown(patience);
            tracing::debug!(lost = delivery.lost, "the agents' last spans are sent");
        }
    }

    fn admit(&self, node: &NodeName, spans: u32, now: Instant) -> bool {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if !shares.contains_key(node) && shares.len() >= self.limits.nodes {
            shares.retain(|_, share| !share.is_whole(&self.limits, now));
            if shares.len() >= self.limits.nodes {
                return false;
            }
        }
        let whole = Share { left: f64::from(self.limits.burst), at: now };
        shares.entry(node.clone()).or_insert(whole).take(spans, &self.limits, now)
    }
}

/// What a node may still send: a bucket that fills up evenly.
struct Share {
    left: f64,
    at: Instant,
}

impl Share {
    fn take(&mut self, spans: u32, limits: &RelayLimits, now: Instant) -> bool {
        self.left = self.now(limits, now);
        self.at = now;
        let enough = self.left >= f64::from(spans);
        if enough {
            self.left -= f64::from(spans);
        }
        enough
    }

    fn now(&self, limits: &RelayLimits, now: Instant) -> f64 {
        let burst = f64::from(limits.burst);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + burst * passed / limits.refill.as_secs_f64()).min(burst)
    }

    /// Whether forgetting it would change nothing.
    fn is_whole(&self, limits: &RelayLimits, now: Instant) -> bool {
        self.now(limits, now) >= f64::from(limits.burst)
    }
}

#[cfg(test)]
mod tests {
    use berth_telemetry::Share;

    use super::*;

    fn relay(limits: RelayLimits) -> Relay {
        // Nobody listens there: what is passed on is lost, as it may be.
        let passed = Passed::to("http://127.0.0.1:9", Share::ALL).expect("an endpoint");
        let takers = Takers { passed: Some(passed), recent: None };
        Relay::to(takers, limits, Arc::new(Metrics::new("1"))).expect("somebody takes spans")
    }

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_node_has_its_share_and_gets_it_back_with_time() {
        let limits = RelayLimits { burst: 10, ..RelayLimits::default() };
        let (relay, began) = (relay(limits), Instant::now());
        assert!(relay.admit(&name("n1"), 10, began));
        assert!(!relay.admit(&name("n1"), 1, began), "the share is used up");
        assert!(relay.admit(&name("n2"), 10, began), "and no other's");
        let half = began + limits.refill / 2;
        assert!(!relay.admit(&name("n1"), 6, half) && relay.admit(&name("n1"), 5, half));
    }

    #[test]
    fn spans_that_nobody_takes_are_not_asked_for() {
        let limits = RelayLimits::default();
        assert!(Relay::to(Takers::default(), limits, Arc::new(Metrics::new("1"))).is_none());
        let takers = Takers { passed: None, recent: Some(Recent::default()) };
        assert!(Relay::to(takers, limits, Arc::new(Metrics::new("1"))).is_some(), "a console does");
    }

    #[test]
    fn what_is_known_of_nodes_is_bounded() {
        let limits = RelayLimits { nodes: 2, burst: 10, ..RelayLimits::default() };
        let (relay, began) = (relay(limits), Instant::now());
        assert!(relay.admit(&name("n1"), 1, began) && relay.admit(&name("n2"), 1, began));
        assert!(!relay.admit(&name("n3"), 1, began), "there is no room for a third");
        let later = began + limits.refill;
        assert!(relay.admit(&name("n3"), 1, later), "those whose share is whole are forgotten");
        assert_eq!(relay.shares.lock().expect("nobody panicked").len(), 1);
    }
}
