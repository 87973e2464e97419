//! One join is one trace over both processes, and no secret leaves either.

#![expect(clippy::expect_used, reason = "a file that cannot be looked at must stop the search")]

use std::collections::BTreeMap;
use std::time::Duration;

use berth_telemetry::collector::{Collector, ReceivedSpan};
use berth_tests::{ServerOptions, World};

const PATIENCE: Duration = Duration::from_secs(20);

/// Who, name, and the name of its parent: the exact tree of a join.
const TREE: [(&str, &str, Option<&str>); 18] = [
    ("berth-agent", "join", None),
    ("berth-agent", "initialization", Some("join")),
    ("berth-agent", "authentication", Some("join")),
    ("berth-agent", "authorization", Some("join")),
    ("berth-agent", "configuration", Some("join")),
    ("berth-agent", "registration", Some("join")),
    ("berth-agent", "berth.join.v1.JoinService/Enroll", Some("join")),
    ("berth-agent", "berth.join.v1.JoinService/Join", Some("join")),
    ("berth-server", "berth.join.v1.JoinService/Enroll", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server", "initialization", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server", "authentication", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server", "redeem", Some("authentication")),
    ("berth-server", "authorization", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server", "bind", Some("authorization")),
    ("berth-server", "sign", Some("authorization")),
    ("berth-server", "berth.join.v1.JoinService/Join", Some("berth.join.v1.JoinService/Join")),
    ("berth-server", "configuration", Some("berth.join.v1.JoinService/Join")),
    ("berth-server", "registration", Some("berth.join.v1.JoinService/Join")),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_one_trace_over_both_processes_with_the_exact_tree() {
    let collector = Collector::start().await.expect("a collector");
    let endpoint = collector.endpoint();
    let (spans, trace_id) = tokio::task::spawn_blocking(move || {
        let world = World::with(&ServerOptions::default().tracing_to(&endpoint));
        let token = world.server.token(&[]);
        let joined =
            world.machine("n1").join(world.server.endpoint(), &token, &["--otlp-endpoint", &endpoint]);
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
        let trace_id = joined.result()["traceId"].as_str().expect("the trace id is told").to_owned();
        assert_eq!(world.server.explain("n1")["join"]["traceId"], trace_id.as_str(), "and kept");
        let of_join = |spans: &[ReceivedSpan]| spans.iter().filter(|span| span.trace_id == trace_id).count();
        let spans = tokio::runtime::Handle::current()
            .block_on(collector.wait_for(|spans| of_join(spans) >= TREE.len(), PATIENCE))
            .unwrap_or_else(|spans| panic!("only {} spans: {:#?}", spans.len(), names(&spans)));
        (spans, trace_id)
    })
    .await
    .expect("the world stands");

    let spans: Vec<ReceivedSpan> = spans.into_iter().filter(|span| span.trace_id == trace_id).collect();
    let by_id: BTreeMap<&str, &ReceivedSpan> =
        spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let mut found: Vec<(&str, &str, Option<&str>)> = spans
        .iter()
        .filter(|span| span.name != "apply" && span.name != "record")
        .map(|span| {
            let parent =
                span.parent_span_id.as_deref().map(|id| by_id.get(id).map_or("?", |p| p.name.as_str()));
            (span.service.as_str(), span.name.as_str(), parent)
        })
        .collect();
    found.sort_unstable();
    let mut wanted = TREE.to_vec();
    wanted.sort_unstable();
    assert_eq!(found, wanted);

    for span in &spans {
        if berth_domain::phase::Phase::ALL.iter().any(|phase| phase.as_str() == span.name) {
            assert_eq!(span.attribute("berth.outcome"), Some("ok"), "{span:#?}");
        }
    }
    let root = spans.iter().find(|span| span.name == "join").expect("it is in the tree");
    assert_eq!(root.attribute("k8s.node.name"), Some("n1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_in_no_output_span_log_argument_environment_or_file() {
    let collector = Collector::start().await.expect("a collector");
    let endpoint = collector.endpoint();
    tokio::task::spawn_blocking(move || {
        let mut options = ServerOptions::default().tracing_to(&endpoint);
        options.configuration["telemetry"]["logLevel"] = "trace".into();
        let world = World::with(&options);
        let token = world.server.token(&[]);
        let secret = token.split('.').nth(2).expect("the secret part").to_owned();
        let machine = world.machine("n1");
        let flags = ["--otlp-endpoint", &endpoint, "--log-level", "trace"];
        let agent = machine.start_join(world.server.endpoint(), &token, &flags);
        for part in ["cmdline", "environ"] {
            for id in [agent.id(), world.server.process().id()] {
                let bytes = std::fs::read(format!("/proc/{id}/{part}")).unwrap_or_default();
                assert!(!contains(&bytes, &secret), "{part} of {id}");
            }
        }
        let joined = agent.wait(PATIENCE);
        assert_eq!(joined.code, Some(0), "{}", joined.all());
        let refused = world.machine("n2").join(world.server.endpoint(), &token, &flags);
        assert_eq!(refused.ended.code, Some(4), "{}", refused.ended.all());
        std::fs::remove_file(world.machine("n2").root().with_extension("token")).ok();

        assert!(!collector.contains(secret.as_bytes()), "a span or an export's header");
        let server = world.server.process();
        for (what, text) in [
            ("the agent's output", joined.all()),
            ("the refused agent's output", refused.ended.all()),
            ("the server's output", format!("{}{}", server.stdout(), server.stderr())),
        ] {
            assert!(!contains(text.as_bytes(), &secret), "{what}");
        }
        let mut files = 0;
        walk(world.path(), &mut |path| {
            files += 1;
            let bytes = std::fs::read(path).unwrap_or_default();
            assert!(!contains(&bytes, &secret), "{}", path.display());
        });
        assert!(files > 10, "the store and the machine's files were looked at");
    })
    .await
    .expect("the world stands");
}

fn names(spans: &[ReceivedSpan]) -> Vec<(&str, &str)> {
    spans.iter().map(|span| (span.service.as_str(), span.name.as_str())).collect()
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

fn walk(directory: &std::path::Path, see: &mut dyn FnMut(&std::path::Path)) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("an entry");
        if kind.is_dir() {
            walk(&entry.path(), see);
        } else if kind.is_file() {
            see(&entry.path());
        }
    }
}
