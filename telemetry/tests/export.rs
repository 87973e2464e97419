//! Spans as a collector receives them, over real sockets.
#![expect(clippy::expect_used, reason = "a test that finds its own set-up broken should stop there")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_telemetry::collector::{Collector, Kind, ReceivedSpan, SpanStatus};
use berth_telemetry::effect::{Effect, performed};
use berth_telemetry::names::{attribute, rpc as method, service};
use berth_telemetry::phase::{join_span, observed, watched};
use berth_telemetry::rpc::{Side, client_span, record_status, server_span};
use berth_telemetry::{LogFormat, Outcome, Settings, Share, Telemetry, propagation};
use http::HeaderMap;
use tonic::metadata::MetadataMap;
use tracing::instrument::WithSubscriber;
use tracing::{Dispatch, Instrument, Span, dispatcher};

const PATIENCE: Duration = Duration::from_secs(10);

fn settings(endpoint: Option<String>) -> Settings {
    Settings {
        service_name: service::AGENT,
        service_version: "1.2.3",
        instance_id: "instance-1".to_owned(),
        resource: vec![(attribute::HOST_ARCH, "amd64".to_owned())],
        otlp_endpoint: endpoint,
        good_traces: Share::ALL,
        keeps_spans: false,
        recent: None,
        log_format: LogFormat::Text,
        log_filter: "error".to_owned(),
        colour: false,
    }
}

fn prepared(settings: &Settings) -> (Telemetry, Dispatch) {
    Telemetry::prepare(settings, io::sink).expect("telemetry")
}

fn named<'spans>(spans: &'spans [ReceivedSpan], name: &str) -> &'spans ReceivedSpan {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().expect(name);
    assert!(found.next().is_none(), "{name} is there more than once");
    span
}

/// One join in small: agent and server in one process, a hop between them.
async fn small_join() -> Option<String> {
    let join = join_span(1);
    join.record(attribute::JOIN_ID, "j-1");
    let trace = propagation::trace_id(&join);
    async {
        let _: Result<(), Diagnosis> = observed(Phase::Authentication, async {
            let call = client_span(method::ENROLL);
            let mut metadata = MetadataMap::new();
            propagation::inject(&call, &mut metadata);
            served(&metadata.into_headers()).await;
            record_status(&call, tonic::Code::PermissionDenied, Side::Client);
            tracing::info!(target: "berth_agent::line", "heard a refusal");
            tracing::debug!(target: "berth_agent::line", "not for the trace");
            tracing::info!(target: "h2::client", "not for the trace");
            Err(Diagnosis::new(Code::TokenSpent, Phase::Authentication))
        })
        .await;
    }
    .instrument(join)
    .await;
    trace
}

async fn served(headers: &HeaderMap) {
    let span = server_span(method::ENROLL, headers);
    record_status(&span, tonic::Code::PermissionDenied, Side::Server);
    async {
        let foreign = tracing::info_span!(target: "h2::client", "frames");
        let redeemed: Result<(), Diagnosis> =
            performed(Effect::Redeem, async { Ok(()) }).instrument(foreign).await;
        redeemed.expect("redeemed");
    }
    .instrument(span)
    .await;
}

#[tokio::test]
async fn a_join_is_one_tree_across_a_hop() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    let trace = small_join().with_subscriber(dispatch).await.expect("a trace id");
    assert_eq!(telemetry.shutdown(PATIENCE).lost, 0);

    let spans = collector.spans();
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let join = named(&spans, "join");
    let phase = named(&spans, "authentication");
    let redeem = named(&spans, "redeem");
    let rpcs: Vec<_> = spans.iter().filter(|span| span.name == method::ENROLL).collect();
    let [served, called] = rpcs.as_slice() else { unreachable!("two sides: {rpcs:?}") };
    assert_eq!(join.parent_span_id, None);
    for (child, parent) in [(phase, join), (*called, phase), (*served, *called), (redeem, *served)] {
        assert_eq!(child.parent_span_id.as_ref(), Some(&parent.span_id), "{}", child.name);
    }
    assert!(spans.iter().all(|span| span.trace_id == trace));
    assert_eq!((called.kind, served.kind), (Kind::Client, Kind::Server));
    assert_eq!((join.kind, phase.kind), (Kind::Internal, Kind::Internal));

    assert_eq!(called.status, SpanStatus::Error(String::new()));
    assert_eq!(served.status, SpanStatus::Unset, "to refuse is no error of the server's");
    assert_eq!(phase.status, SpanStatus::Error("TOKEN_SPENT".to_owned()));
    assert_eq!(phase.events, ["heard a refusal", "phase ended"]);
}

#[tokio::test]
async fn a_span_carries_its_own_attributes_and_no_others() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    small_join().with_subscriber(dispatch).await;
    telemetry.shutdown(PATIENCE);

    let spans = collector.spans();
    let exactly = |name: &str, kind: Kind, wanted: &[(&str, &str)]| {
        let span = spans.iter().find(|span| span.name == name && span.kind == kind).expect(name);
        let found: Vec<_> =
            span.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, wanted, "{name}");
    };
    exactly("join", Kind::Internal, &[("berth.attempt", "1"), ("berth.join.id", "j-1")]);
    exactly(
        "authentication",
        Kind::Internal,
        &[("berth.code", "TOKEN_SPENT"), ("berth.outcome", "refused"), ("berth.phase", "authentication")],
    );
    exactly("redeem", Kind::Internal, &[("berth.outcome", "ok")]);
    let rpc = [
        ("rpc.method", "berth.join.v1.JoinService/Enroll"),
        ("rpc.response.status_code", "PERMISSION_DENIED"),
        ("rpc.system.name", "grpc"),
    ];
    exactly(method::ENROLL, Kind::Server, &rpc);
    exactly(method::ENROLL, Kind::Client, &[&[("error.type", "PERMISSION_DENIED")], &rpc[..]].concat());

    for span in &spans {
        assert_eq!(span.service, "berth-agent");
        assert_eq!(span.resource.get("service.version").map(String::as_str), Some("1.2.3"));
        assert_eq!(span.resource.get("service.instance.id").map(String::as_str), Some("instance-1"));
        assert_eq!(span.resource.get("host.arch").map(String::as_str), Some("amd64"));
    }
}

#[tokio::test]
async fn a_phase_that_is_dropped_half_way_says_so() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    let mut told = Vec::new();
    let work = watched(Phase::Registration, std::future::pending::<Result<(), Diagnosis>>(), |finished| {
        told.push((finished.phase, finished.outcome, finished.code))
    });
    let gone = tokio::time::timeout(Duration::from_millis(1), work.with_subscriber(dispatch)).await;
    assert!(gone.is_err());
    telemetry.shutdown(PATIENCE);
    assert_eq!(told, [(Phase::Registration, Outcome::Cancelled, None)]);
    let spans = collector.spans();
    let span = named(&spans, "registration");
    assert_eq!(span.attribute(attribute::OUTCOME), Some("cancelled"));
    assert_eq!(span.status, SpanStatus::Unset);
}

#[tokio::test]
async fn a_malformed_traceparent_begins_a_new_trace() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let long = format!("{good}{}", "0".repeat(10_000));
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", value.parse().expect("a header"));
        }
        headers.append("baggage", "secret=1".parse().expect("a header"));
        headers
    };
    let adopted = |values: &[&str]| {
        dispatcher::with_default(&dispatch, || {
            propagation::trace_id(&server_span(method::JOIN, &headers(values)))
        })
        .expect("a trace id")
    };
    assert_eq!(adopted(&[good]), "0af7651916cd43dd8448eb211c80319c");
    for bad in [&["nonsense"][..], &[&long], &[good, good], &["00-0-0-0"], &[]] {
        assert_ne!(adopted(bad), "0af7651916cd43dd8448eb211c80319c", "{bad:?}");
    }
    telemetry.shutdown(PATIENCE);
    let spans = collector.spans();
    let with_parent: Vec<_> = spans.iter().filter_map(|span| span.parent_span_id.clone()).collect();
    assert_eq!((spans.len(), with_parent), (6, vec!["b7ad6b7169203331".to_owned()]));
}

#[tokio::test]
async fn a_new_attempt_is_a_new_trace_linked_to_the_one_before() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    let first = dispatcher::with_default(&dispatch, || {
        let first = propagation::traceparent(&join_span(1)).expect("a traceparent");
        let second = join_span(2);
        propagation::link(&second, &first);
        propagation::link(&second, "nonsense");
        first
    });
    telemetry.shutdown(PATIENCE);
    let spans = collector.spans();
    let second = spans.iter().find(|span| span.attribute("berth.attempt") == Some("2"));
    let second = second.expect("the second attempt");
    let [(trace, span)] = second.links.as_slice() else { unreachable!("{:?}", second.links) };
    assert_eq!(first, format!("00-{trace}-{span}-01"));
    assert_ne!(&second.trace_id, trace);
}

#[tokio::test]
async fn without_a_collector_there_are_trace_ids_all_the_same() {
    let (telemetry, dispatch) = prepared(&settings(None));
    let trace = small_join().with_subscriber(dispatch).await.expect("a trace id");
    assert_eq!(trace.len(), 32);
    assert_eq!(telemetry.shutdown(PATIENCE).lost, 0);
    assert_eq!(propagation::trace_id(&Span::none()), None);
}

#[tokio::test]
async fn an_effect_has_a_span_only_where_somebody_collects_it() {
    let here = async || {
        performed(Effect::Sign, async {
            Ok::<_, Diagnosis>(Span::current().metadata().map(|span| span.name()))
        })
        .instrument(join_span(1))
        .await
        .expect("done")
    };
    let (_telemetry, silent) = prepared(&settings(None));
    assert_eq!(here().with_subscriber(silent).await, Some("join"), "its join's is enough");
    let collector = Collector::start().await.expect("a collector");
    let (_telemetry, collected) = prepared(&settings(Some(collector.endpoint())));
    assert_eq!(here().with_subscriber(collected).await, Some("sign"));
}

#[test]
fn without_a_collector_a_trace_is_one_and_crosses_to_others() {
    // Whether anything is logged has no part in it.
    let silent = Settings { log_filter: "off".into(), ..settings(None) };
    let (_telemetry, dispatch) = prepared(&silent);
    let parts = |traceparent: &str| -> Vec<String> { traceparent.split('-').map(str::to_owned).collect() };
    dispatcher::with_default(&dispatch, || {
        let join = join_span(1);
        let trace = join.in_scope(|| {
            let (call, other) = (client_span(method::ENROLL), client_span(method::JOIN));
            let [first, again] = [&call, &call].map(|call| {
                let mut metadata = MetadataMap::new();
                propagation::inject(call, &mut metadata);
                metadata.into_headers()
            });
            assert_eq!(first, again, "a span has one id");
            let sent = parts(first["traceparent"].to_str().expect("text"));
            assert_eq!(sent.last().map(String::as_str), Some("01"), "who collects may have it");
            let beside = parts(&propagation::traceparent(&other).expect("a context"));
            assert_eq!(beside[1], sent[1], "spans below one root are one trace");
            assert_ne!(beside[2], sent[2]);
            let served = server_span(method::ENROLL, &first);
            assert_eq!(propagation::trace_id(&served).as_deref(), Some(sent[1].as_str()));
            let own = parts(&propagation::traceparent(&served).expect("a context"));
            assert_ne!(own[2], sent[2], "a span of its own");
            sent[1].clone()
        });
        assert_eq!(propagation::trace_id(&join), Some(trace.clone()));
        assert_ne!(propagation::trace_id(&join_span(2)), Some(trace));

        let mut headers = HeaderMap::new();
        let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        headers.insert("traceparent", unsampled.parse().expect("a header"));
        headers.insert("tracestate", "a=1".parse().expect("a header"));
        let mut metadata = MetadataMap::new();
        propagation::inject(&server_span(method::JOIN, &headers), &mut metadata);
        let sent = metadata.into_headers();
        let sent_on = parts(sent["traceparent"].to_str().expect("text"));
        assert_eq!((sent_on[1].as_str(), sent_on[3].as_str()), ("0af7651916cd43dd8448eb211c80319c", "00"));
        assert_eq!(sent["tracestate"], "a=1");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_by_themselves_from_a_runtime_with_many_threads() {
    let collector = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    tokio::spawn(small_join().with_subscriber(dispatch)).await.expect("the task");
    let spans = collector.wait_for(|spans| spans.len() == 5, PATIENCE).await;
    assert!(spans.is_ok(), "{spans:?}");
    assert!(collector.contains(b"j-1") && !collector.contains(b"not for the trace"));
    assert!(collector.received_bytes() > 0);
    assert_eq!(telemetry.shutdown(PATIENCE).delivered, 5);
}

#[test]
fn a_program_without_a_runtime_can_export_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime for the collector's start");
    let collector = runtime.block_on(Collector::start()).expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(collector.endpoint())));
    dispatcher::with_default(&dispatch, || drop(join_span(1)));
    let delivery = telemetry.shutdown(PATIENCE);
    assert_eq!((delivery.delivered, delivery.lost), (1, 0));
}

#[tokio::test]
async fn a_collector_that_restarts_gets_the_spans_that_follow() {
    let first = Collector::start().await.expect("collector");
    let (telemetry, dispatch) = prepared(&settings(Some(first.endpoint())));
    dispatcher::with_default(&dispatch, || drop(join_span(1)));
    first.wait_for(|spans| spans.len() == 1, PATIENCE).await.expect("the first span");
    let address: SocketAddr = first.endpoint().trim_start_matches("http://").parse().expect("an address");
    drop(first);
    let second = restarted(address).await;
    dispatcher::with_default(&dispatch, || drop(join_span(2)));
    let arrived =
        |spans: &[ReceivedSpan]| spans.iter().any(|span| span.attribute(attribute::ATTEMPT) == Some("2"));
    second.wait_for(arrived, PATIENCE).await.expect("the second span");
    telemetry.shutdown(PATIENCE);
}

async fn restarted(address: SocketAddr) -> Collector {
    let until = Instant::now() + PATIENCE;
    loop {
        match Collector::start_at(address).await {
            Ok(collector) => return collector,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_bad_setting_is_named_with_its_mend() {
    let endpoint = Settings { log_filter: "info".into(), ..settings(Some("no url at all".into())) };
    let error = Telemetry::prepare(&endpoint, io::sink).expect_err("no endpoint");
    assert!(error.to_string().contains("no url at all"), "{error}");
    assert!(error.to_string().contains("http://HOST:PORT"), "{error}");
    let filter = Settings { log_filter: "berth=loud".into(), ..settings(None) };
    let error = Telemetry::prepare(&filter, io::sink).expect_err("no filter");
    assert!(error.to_string().contains("berth=loud"), "{error}");
}

/// 50,000 spans while nobody takes them: quick, in bounded memory, and the end
/// comes when it is due.
fn a_dead_collector_takes_nothing_from_us(endpoint: String) {
    let (telemetry, dispatch) = prepared(&settings(Some(endpoint)));
    let before = resident_bytes();
    let begun = Instant::now();
    dispatcher::with_default(&dispatch, || {
        for attempt in 0..50_000 {
            drop(join_span(attempt));
        }
    });
    let made = begun.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    assert!(made < Duration::from_secs(10), "50,000 spans took {made:?}");
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
    let spans = telemetry.spans();
    // A queue of 2,048, and a batch of 512 on its way.
    assert!(spans.waiting() <= 2_560, "{} wait", spans.waiting());
    let lost = spans.dropped() + spans.failed();
    assert!(lost >= 50_000 - 2_560, "{lost} are counted as lost");
    assert_eq!(spans.delivered(), 0);
    let patience = Duration::from_millis(300);
    let begun = Instant::now();
    let delivery = telemetry.shutdown(patience);
    let took = begun.elapsed();
    assert!(took < patience + Duration::from_millis(700), "shutdown took {took:?}");
    assert_eq!((delivery.delivered, delivery.lost), (0, 50_000));
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let resident = pages.split(' ').nth(1).expect("the second field");
    resident.parse::<u64>().expect("a number") * 4096
}

#[tokio::test]
async fn a_collector_that_refuses_takes_nothing_from_us() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port");
    a_dead_collector_takes_nothing_from_us(format!("http://{free}"));
}

#[tokio::test]
async fn a_collector_that_never_answers_takes_nothing_from_us() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    a_dead_collector_takes_nothing_from_us(format!("http://{address}"));
}
