//! Collectors that are dead, slow, refuse or come back: joins end as without one, what waits
//! is bounded, and what is lost is counted and told. `cargo xtask bench` has the times.

#![expect(clippy::expect_used, reason = "a test that panics has failed, as it should")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use berth_telemetry::collector::{Collector, Manner};
use berth_tests::{ServerOptions, World, eventually};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);

/// A join that the collector is no hindrance to, on a busy machine in debug form: without
/// the last spans of the agent's own, which have a second.
const USUAL: Duration = Duration::from_secs(15);

/// What may wait in each of a server's queues of spans.
const QUEUE: f64 = 2_048.0;

#[test]
fn a_collector_that_is_not_there_is_no_hindrance() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|held| held.local_addr());
    is_no_hindrance(free.expect("a free port"));
}

#[test]
fn a_collector_that_never_answers_is_no_hindrance() {
    // Connections are made with its kernel; nobody reads them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    is_no_hindrance(silent.local_addr().expect("an address"));
}

#[test]
fn a_collector_that_answers_after_five_seconds_is_no_hindrance() {
    let (_runtime, collector) = collector(Manner::Slow(Duration::from_secs(5)));
    is_no_hindrance(address(&collector));
}

#[test]
fn a_collector_that_refuses_is_no_hindrance() {
    let (_runtime, collector) = collector(Manner::Refusing);
    is_no_hindrance(address(&collector));
}

#[test]
fn a_collector_that_comes_back_gets_the_spans_that_follow() {
    let (runtime, first) = collector(Manner::Prompt);
    let address = address(&first);
    let world = World::with(&ServerOptions::default().tracing_to(&first.endpoint()));
    let token = world.server.token(&["--uses", "3"]);
    let delivered = || spans(&world, "own", "delivered");
    join(&world, "n0", &token, &[]);
    eventually("spans at the collector", PATIENCE, || (delivered() > 0.0).then_some(()));

    drop(first);
    join(&world, "n1", &token, &[]);
    eventually("spans that are lost", PATIENCE, || (spans(&world, "own", "failed") > 0.0).then_some(()));
    let before = delivered();

    let back = eventually("its port", PATIENCE, || runtime.block_on(Collector::start_at(address)).ok());
    join(&world, "n2", &token, &[]);
    let trace = world.server.explain("n2").pointer("/join/traceId").cloned().expect("the join's trace");
    let followed = runtime.block_on(back.wait_for(
        |spans| {
            let of_join = |service: &str| {
                spans.iter().any(|span| span.service == service && trace == span.trace_id.as_str())
            };
            of_join("berth-server") && of_join("berth-agent")
        },
        PATIENCE,
    ));
    followed.expect("the server's part of the join that followed, and the agent's by its line");
    // Once the collector's answer has come.
    eventually("spans that are counted", PATIENCE, || (delivered() > before).then_some(()));
}

/// Joins one after another, with agents that send their spans there themselves and such as
/// send them over their lines.
fn is_no_hindrance(collector: SocketAddr) {
    let endpoint = format!("http://{collector}");
    let world = World::with(&ServerOptions::default().tracing_to(&endpoint));
    let token = world.server.token(&["--uses", "6"]);
    for number in 0..6 {
        let own: &[&str] = if number % 2 == 0 { &["--otlp-endpoint", &endpoint] } else { &[] };
        join(&world, &format!("n{number}"), &token, own);
    }
    for path in ["own", "relayed"] {
        eventually(&format!("lost spans that are counted: {path}"), PATIENCE, || {
            let lost = spans(&world, path, "failed") + spans(&world, path, "dropped");
            (lost > 0.0).then_some(())
        });
        assert!(spans(&world, path, "delivered") == 0.0, "{path}");
    }
    for queue in ["spans", "relayed_spans"] {
        let metric = |name: &str| world.server.metric(&format!("{name}{{queue=\"{queue}\"}}"));
        assert_eq!(metric("berth_queue_limit"), Some(QUEUE));
        assert!(metric("berth_queue_depth").is_some_and(|waits| waits <= QUEUE), "{queue}");
    }
    let told = world.server.process().stderr();
    assert!(told.contains("spans could not be exported; joins go on"), "{told}");
}

fn join(world: &World, name: &str, token: &str, flags: &[&str]) {
    let began = std::time::Instant::now();
    let joined = world.machine(name).join(world.server.endpoint(), token, flags);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let took = began.elapsed();
    assert!(took < USUAL, "{name} took {took:?}");
}

fn spans(world: &World, path: &str, outcome: &str) -> f64 {
    let series = format!("berth_spans_total{{path=\"{path}\",outcome=\"{outcome}\"}}");
    world.server.metric(&series).expect("it is there from the start")
}

/// A collector with a manner of its own, and the runtime that asks it.
fn collector(manner: Manner) -> (Runtime, Collector) {
    let runtime = Runtime::new().expect("a runtime");
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let collector = runtime.block_on(Collector::start_with(free, manner)).expect("a collector");
    (runtime, collector)
}

fn address(collector: &Collector) -> SocketAddr {
    collector.endpoint().trim_start_matches("http://").parse().expect("an address")
}
