//! What the server asks of others: the signer, and the API server, which also takes Events.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{ApiKind, ApiOutcome, ApiVerb, EventOutcome, Labels, Metrics, SignerKind, stem};
use crate::names::{label, metric};
use crate::phase::Outcome;

type Durations<const N: usize> = Family<Labels<N>, Histogram, CallBuckets>;

/// The metrics of all that is asked.
#[derive(Debug)]
pub(super) struct Calls {
    signer: Durations<2>,
    api: ApiMeter,
    events: Family<Labels<1>, Counter>,
}

impl Calls {
    /// Nothing asked yet. The series of a verb and a kind come with their first call: most
    /// pairs never meet.
    pub(super) fn register(to: &mut Registry) -> Self {
        let calls = Self {
            signer: Family::new_with_constructor(CallBuckets),
            api: ApiMeter::default(),
            events: Family::default(),
        };
        to.register(metric::SIGNER_DURATION, "How long signing took", calls.signer.clone());
        to.register(
            metric::APISERVER_DURATION,
            "How long the API server took to answer",
            calls.api.0.clone(),
        );
        to.register(stem(metric::EVENTS), "Events for kubectl describe", calls.events.clone());
        for outcome in EventOutcome::ALL {
            drop(calls.events.get_or_create(&[(label::OUTCOME, outcome.as_str())]));
        }
        calls
    }
}

impl Metrics {
    /// The meter of the signer in use.
    #[must_use]
    pub fn signer(&self, signer: SignerKind) -> SignerMeter {
        let meter = SignerMeter { signer, durations: self.calls.signer.clone() };
        for outcome in [Outcome::Ok, Outcome::Failed] {
            drop(meter.durations.get_or_create(&meter.labels(outcome)));
        }
        meter
    }

    /// The meter of calls to the API server.
    #[must_use]
    pub fn apiserver(&self) -> ApiMeter {
        self.calls.api.clone()
    }

    /// The meter of Events.
    #[must_use]
    pub fn events(&self) -> EventMeter {
        let counter = |outcome: EventOutcome| {
            self.calls.events.get_or_create_owned(&[(label::OUTCOME, outcome.as_str())])
        };
        EventMeter {
            written: counter(EventOutcome::Written),
            dropped: counter(EventOutcome::Dropped),
            failed: counter(EventOutcome::Failed),
        }
    }
}

/// Times a signer.
#[derive(Clone, Debug)]
pub struct SignerMeter {
    signer: SignerKind,
    durations: Durations<2>,
}

impl SignerMeter {
    /// It signs from now on; dropped before its end, it was given up.
    #[must_use]
    pub fn begin(&self) -> Signing<'_> {
        Signing { meter: self, since: Instant::now(), outcome: Outcome::Cancelled }
    }

    const fn labels(&self, outcome: Outcome) -> Labels<2> {
        [(label::SIGNER, self.signer.as_str()), (label::OUTCOME, outcome.as_str())]
    }
}

/// A signature that is awaited.
#[derive(Debug)]
pub struct Signing<'a> {
    meter: &'a SignerMeter,
    since: Instant,
    outcome: Outcome,
}

impl Signing<'_> {
    /// How it ended.
    pub fn ended(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Signing<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        self.meter.durations.get_or_create(&self.meter.labels(self.outcome)).observe(took);
    }
}

/// Times calls to the API server. Cheap to clone; by default for nobody.
#[derive(Clone, Debug)]
pub struct ApiMeter(Durations<3>);

impl Default for ApiMeter {
    fn default() -> Self {
        Self(Family::new_with_constructor(CallBuckets))
    }
}

impl ApiMeter {
    /// A call has ended.
    pub fn called(&self, verb: ApiVerb, kind: ApiKind, outcome: ApiOutcome, took: Duration) {
        let labels = called(verb, kind, outcome);
        if self.0.get(&labels).is_none() {
            // Its other ends exist from now on: a rate over them misses no first step.
            for other in ApiOutcome::ALL {
                drop(self.0.get_or_create(&called(verb, kind, other)));
            }
        }
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

const fn called(verb: ApiVerb, kind: ApiKind, outcome: ApiOutcome) -> Labels<3> {
    [(label::VERB, verb.as_str()), (label::KIND, kind.as_str()), (label::OUTCOME, outcome.as_str())]
}

/// Counts what became of Events. Cheap to clone; by default for nobody.
#[derive(Clone, Debug, Default)]
pub struct EventMeter {
    written: Counter,
    dropped: Counter,
    failed: Counter,
}

impl EventMeter {
    /// This became of so many Events.
    pub fn became(&self, outcome: EventOutcome, events: u64) {
        match outcome {
            EventOutcome::Written => self.written.inc_by(events),
            EventOutcome::Dropped => self.dropped.inc_by(events),
            EventOutcome::Failed => self.failed.inc_by(events),
        };
    }
}

#[derive(Clone, Debug)]
struct CallBuckets;

impl MetricConstructor<Histogram> for CallBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(CALL_SECONDS)
    }
}

/// From a signature in memory to a cluster that signs once a person has approved.
const CALL_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_is_timed_by_how_it_ended_also_when_it_was_given_up() {
        let metrics = Metrics::new("1");
        let meter = metrics.signer(SignerKind::Cluster);
        meter.begin().ended(Outcome::Ok);
        drop(meter.begin());
        let text = metrics.encode();
        for (outcome, count) in [("ok", 1), ("cancelled", 1), ("failed", 0)] {
            let line = format!(
                "berth_signer_duration_seconds_count{{signer=\"cluster\",outcome=\"{outcome}\"}} {count}"
            );
            assert!(text.lines().any(|found| found == line), "missing {line}\n{text}");
        }
    }

    #[test]
    fn a_call_is_timed_by_verb_kind_and_outcome() {
        let metrics = Metrics::new("1");
        let took = Duration::from_millis(3);
        metrics.apiserver().called(ApiVerb::Update, ApiKind::NodeJoins, ApiOutcome::Conflict, took);
        let line = "berth_apiserver_request_duration_seconds_bucket{le=\"0.005\",verb=\"update\",\
                    kind=\"nodejoins\",outcome=\"conflict\"} 1";
        let text = metrics.encode();
        assert!(text.lines().any(|found| found == line), "{text}");
        let other = "berth_apiserver_request_duration_seconds_count{verb=\"update\",kind=\"nodejoins\",\
                     outcome=\"unreachable\"} 0";
        assert!(text.lines().any(|found| found == other), "{text}");
    }

    #[test]
    fn events_are_counted_by_what_became_of_them() {
        let metrics = Metrics::new("1");
        let meter = metrics.events();
        meter.became(EventOutcome::Written, 1);
        meter.became(EventOutcome::Dropped, 3);
        EventMeter::default().became(EventOutcome::Failed, 1);
        let text = metrics.encode();
        for (outcome, count) in [("written", 1), ("dropped", 3), ("failed", 0)] {
            let line = format!("berth_events_total{{outcome=\"{outcome}\"}} {count}");
            assert!(text.lines().any(|found| found == line), "missing {line}\n{text}");
        }
    }
}
