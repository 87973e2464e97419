//! An agent's spans over its line: kept within bounds, and passed on as the agent's, with
//! the node's name as its certificate has it.
#![expect(clippy::expect_used, reason = "a test that finds its own set-up broken should stop there")]

use std::io;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::span::{RelayedSpan, SpanValue};
use berth_telemetry::collector::{Collector, ReceivedSpan};
use berth_telemetry::names::{attribute, service};
use berth_telemetry::phase::{join_span, observed};
use berth_telemetry::relay::{Kept, MOST_KEPT, Passed};
use berth_telemetry::{LogFormat, Settings, Share, Telemetry};
use tracing::instrument::WithSubscriber;
use tracing::{Dispatch, Instrument};

const PATIENCE: Duration = Duration::from_secs(10);

fn keeping() -> (Telemetry, Dispatch) {
    let settings = Settings {
        service_name: service::AGENT,
        service_version: "1",
        instance_id: "1".to_owned(),
        resource: Vec::new(),
        otlp_endpoint: None,
        good_traces: Share::ALL,
        keeps_spans: true,
        recent: None,
        log_format: LogFormat::Text,
        log_filter: "error".to_owned(),
        colour: false,
    };
    Telemetry::prepare(&settings, io::sink).expect("telemetry")
}

/// An attempt with two phases, the second of which ends with this.
async fn attempt(number: u32, ended: Result<(), Diagnosis>) {
    let join = join_span(number);
    join.record(attribute::NODE_NAME, "what-the-agent-says");
    async {
        let _: Result<(), Diagnosis> = observed(Phase::Initialization, async { Ok(()) }).await;
        let _ended = observed(Phase::Authentication, async { ended }).await;
    }
    .instrument(join)
    .await;
}

fn refused() -> Result<(), Diagnosis> {
    Err(Diagnosis::new(Code::TokenSpent, Phase::Authentication))
}

/// What waits after so many attempts; the telemetry lives as long as the agent.
async fn kept(attempts: u32, ended: fn() -> Result<(), Diagnosis>) -> (Kept, Telemetry) {
    let (telemetry, dispatch) = keeping();
    async {
        for number in 1..=attempts {
            attempt(number, ended()).await;
        }
    }
    .with_subscriber(dispatch)
    .await;
    (telemetry.kept().expect("it keeps spans"), telemetry)
}

fn named<'spans>(spans: &'spans [ReceivedSpan], name: &str) -> &'spans ReceivedSpan {
    spans.iter().find(|span| span.name == name).expect(name)
}

#[tokio::test]
async fn spans_arrive_as_the_agents_under_the_name_of_its_certificate() {
    let collector = Collector::start().await.expect("a collector");
    let passed = Passed::to(&collector.endpoint(), Share::ALL).expect("an endpoint");
    let (kept, _agent) = kept(1, refused).await;
    let mut spans = kept.take();
    // A node may write what it likes; only what Berth's agents write comes through.
    let mut forged: RelayedSpan = spans.first().expect("three").clone();
    forged.name = "an alarming name".to_owned();
    spans.push(forged);
    let own = spans.first_mut().expect("three");
    own.attributes.push(("an.attribute".to_owned(), SpanValue::Text("of its own".to_owned())));
    own.error = Some("free text".to_owned());
    assert_eq!(passed.pass(&spans, "n1"), 3);

    let received = collector.wait_for(|spans| spans.len() >= 3, PATIENCE).await.expect("three spans");
    assert_eq!(received.len(), 3, "{received:#?}");
    for span in &received {
        assert_eq!(span.service, service::AGENT);
        assert_eq!(span.attribute(attribute::NODE_NAME), Some("n1"));
        assert_eq!(span.attribute("an.attribute"), None);
    }
    let (root, phase) = (named(&received, "join"), named(&received, "authentication"));
    assert_eq!(phase.parent_span_id.as_deref(), Some(root.span_id.as_str()));
    assert_eq!(phase.attribute(attribute::CODE), Some("TOKEN_SPENT"));
    assert!(!collector.contains(b"what-the-agent-says") && !collector.contains(b"free text"));
}

#[tokio::test]
async fn what_waits_is_bounded_and_the_newest_stay() {
    let (kept, _agent) = kept(100, refused).await;
    let mut spans = Vec::new();
    loop {
        let more = kept.take();
        if more.is_empty() {
            break;
        }
        spans.extend(more);
    }
    assert_eq!(spans.len(), MOST_KEPT);
    assert_eq!(kept.lost(), 300 - MOST_KEPT as u64);
    let last = spans.last().expect("many");
    assert!(
        last.attributes.contains(&(attribute::ATTEMPT.to_owned(), SpanValue::Text("100".to_owned()))),
        "{last:#?}"
    );
}

#[tokio::test]
async fn of_good_joins_the_share_that_is_configured_is_passed_on_and_every_bad_one() {
    let collector = Collector::start().await.expect("a collector");
    let passed = Passed::to(&collector.endpoint(), Share::percent(0)).expect("an endpoint");
    let (good, _agent) = kept(1, || Ok(())).await;
    let (bad, _other) = kept(1, refused).await;
    passed.pass(&good.take(), "good");
    passed.pass(&bad.take(), "bad");
    let received = collector.wait_for(|spans| spans.len() >= 3, PATIENCE).await.expect("three spans");
    assert!(received.iter().all(|span| span.attribute(attribute::NODE_NAME) == Some("bad")), "{received:#?}");
}

#[tokio::test]
async fn a_server_that_wants_no_spans_costs_no_memory() {
    let (kept, _agent) = kept(1, || Ok(())).await;
    kept.close();
    assert!(kept.take().is_empty());
}
