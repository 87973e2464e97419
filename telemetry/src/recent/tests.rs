use std::io;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_domain::span::SpanPlace;
use berth_domain::trace::Kind;
use http::HeaderMap;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use super::*;
use crate::effect::{Effect, performed};
use crate::names::{attribute, rpc, service};
use crate::phase::observed;
use crate::rpc::{Side as Of, record_status, server_span};
use crate::{LogFormat, Settings, Share, Telemetry};

const JOIN: &str = "j-aaaaaaaaaaaaaaaa";

fn telemetry(recent: &Recent) -> (Telemetry, tracing::Dispatch) {
    let settings = Settings {
        service_name: service::SERVER,
        service_version: "1",
        instance_id: "1".to_owned(),
        resource: Vec::new(),
        otlp_endpoint: None,
        good_traces: Share::ALL,
        keeps_spans: false,
        recent: Some(recent.clone()),
        log_format: LogFormat::Text,
        log_filter: "error".to_owned(),
        colour: false,
    };
    Telemetry::prepare(&settings, io::sink).expect("telemetry")
}

fn hex(trace: u32) -> String {
    format!("{trace:032x}")
}

/// A call of connection 1, as a stranger makes it, or with a proof that holds.
async fn enrolls(trace: u32, proves: bool) {
    let mut headers = HeaderMap::new();
    let parent = format!("00-{}-00000000000000ca-01", hex(trace));
    headers.insert("traceparent", parent.parse().expect("a header"));
    let span = server_span(rpc::ENROLL, &headers);
    async {
        let _: Result<(), Diagnosis> = observed(Phase::Initialization, async { Ok(()) }).await;
        let proof = async {
            let why = Diagnosis::new(berth_domain::diagnosis::Code::TokenRejected, Phase::Authentication);
            if proves { performed(Effect::Redeem, async { Ok(()) }).await } else { Err(why) }
        };
        let _ended = observed(Phase::Authentication, proof).await;
    }
    .instrument(span.clone())
    .await;
    span.record(attribute::JOIN_ID, JOIN);
    record_status(&span, tonic::Code::Ok, Of::Server);
}

fn of(recent: &Recent, trace: u32) -> Option<Seen> {
    recent.of_join(JoinId::of(&"aaaaaaaaaa".parse().expect("an id"), key()), Some(&hex(trace)), Some("n1"))
}

const fn key() -> berth_domain::identity::SpkiHash {
    berth_domain::identity::SpkiHash([7; 32])
}

/// A span as an agent sends it.
fn sent(trace: u32, id: u8, name: &str) -> RelayedSpan {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&trace.to_be_bytes());
    RelayedSpan {
        place: SpanPlace::new(bytes, [id; 8]).expect("not zero"),
        parent: None,
        name: name.to_owned(),
        is_call: name == rpc::ENROLL,
        began: Duration::from_secs(1),
        ended: Duration::from_secs(2),
        attributes: Vec::new(),
        error: None,
        links: Vec::new(),
    }
}

#[tokio::test]
async fn a_join_is_seen_while_it_goes_on_and_when_it_has_ended() {
    let recent = Recent::default();
    let (_telemetry, dispatch) = telemetry(&recent);
    async {
        let mut headers = HeaderMap::new();
        let parent = format!("00-{}-00000000000000ca-01", hex(1));
        headers.insert("traceparent", parent.parse().expect("a header"));
        let span = server_span(rpc::ENROLL, &headers);
        let trace = crate::propagation::trace_id(&span);
        assert_eq!(trace, Some(hex(1)));
        let open = of(&recent, 1).expect("it is there from its beginning").spans;
        assert_eq!(
            open.iter().map(|span| (span.name, span.ended)).collect::<Vec<_>>(),
            [(rpc::ENROLL, None)]
        );
    }
    .with_subscriber(dispatch.clone())
    .await;
    enrolls(2, true).with_subscriber(dispatch).await;
    let spans = of(&recent, 2).expect("it is kept").spans;
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
    let (call, phase, redeem) = (named(rpc::ENROLL), named("authentication"), named("redeem"));
    assert_eq!((call.kind, call.status, call.side), (Kind::Answer, Some("OK"), Side::Server));
    assert_eq!((phase.parent, phase.outcome), (Some(call.id), Some("ok")));
    assert_eq!(redeem.parent, Some(phase.id));
    assert!(spans.iter().all(|span| span.ended.is_some()), "{spans:#?}");
    assert_eq!(spans.len(), 4, "each once: {spans:#?}");
    // Also where the record knows of another attempt only.
    let join = JOIN.parse().expect("an id");
    assert_eq!(recent.of_join(join, None, None).expect("by the join's id").trace[15], 2);
}

#[tokio::test]
async fn strangers_push_out_strangers_only() {
    let recent = Recent::default();
    let (_telemetry, dispatch) = telemetry(&recent);
    async {
        enrolls(1, true).await;
        for trace in 2..=1_000 {
            enrolls(trace, false).await;
        }
    }
    .with_subscriber(dispatch)
    .await;
    assert!(of(&recent, 1).is_some(), "who has proved itself stays");
    assert_eq!(recent.ring().traces.len(), MOST_UNPROVED + 1);
    assert!(of(&recent, 2).is_none() && of(&recent, 1_000).is_some(), "the oldest give way");
}

#[tokio::test]
async fn the_last_joins_are_kept_and_the_oldest_give_way() {
    let recent = Recent::default();
    let (_telemetry, dispatch) = telemetry(&recent);
    let many = u32::try_from(MOST_TRACES).expect("a small number") + 10;
    async {
        for trace in 1..=many {
            enrolls(trace, true).await;
        }
    }
    .with_subscriber(dispatch)
    .await;
    let ring = recent.ring();
    assert_eq!(ring.traces.len(), MOST_TRACES);
    assert_eq!(ring.traces.front().expect("many").id.to_bytes()[15], 11);
}

#[test]
fn agents_spans_are_shown_for_the_join_of_the_node_that_sent_them() {
    let recent = Recent::default();
    let sent_by_n1 =
        [sent(1, 1, "initialization"), sent(1, 2, "join"), sent(9, 3, "attendance"), sent(1, 5, "?")];
    assert_eq!(recent.take(&sent_by_n1, "n1"), 3);
    recent.take(&[sent(1, 4, "registration")], "n2");
    let seen = of(&recent, 1).expect("it is kept");
    assert_eq!(seen.spans.iter().map(|span| span.name).collect::<Vec<_>>(), ["initialization", "join"]);
    assert!(of(&recent, 9).is_none(), "an attendance is no join");
    let join = JOIN.parse().expect("an id");
    let other = recent.of_join(join, Some(&hex(1)), Some("n2")).expect("a trace");
    assert_eq!(other.spans, [], "another's join does not show them");
}

#[test]
fn a_node_that_makes_up_joins_pushes_out_its_own_only() {
    let recent = Recent::default();
    recent.take(&[sent(1, 1, "join")], "n1");
    for trace in 2..=500 {
        recent.take(&[sent(trace, 1, "join")], "n2");
    }
    assert!(of(&recent, 1).is_some());
    assert_eq!(recent.ring().traces.len(), 1 + MOST_OF_A_NODE);
    let many: Vec<RelayedSpan> = (1..=200).map(|id| sent(1, id, "join")).collect();
    recent.take(&many, "n1");
    let seen = of(&recent, 1).expect("it is kept");
    assert_eq!(seen.spans.len(), MOST_OF_A_TRACE);
    assert_eq!(usize::try_from(seen.left_out), Ok(200 - MOST_OF_A_TRACE), "and what is more is counted");
}

#[test]
fn all_that_is_kept_is_some_megabytes() {
    let most = MOST_TRACES * MOST_OF_A_TRACE * size_of::<SeenSpan>();
    assert!(most < 5 * 1024 * 1024, "{most}");
}
