//! Joins as Jaeger shows them: a trace over two replicas, the agent and the API server;
//! a failed join found by its code; and the page that a person sees.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use berth_compose::{Browser, Jaeger, jaeger_for_tests};
use berth_kubernetes::{ACCOUNT, Cluster, Component, Options};
use berth_tests::{Balance, KubernetesWorld, ServerOptions, World, eventually, http_get};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A span: whose it is, its name, and its parent's name.
type Seen = (String, String, Option<String>);

/// Who, name, and the name of its parent: the exact tree of a join. Each of the two
/// replicas has one half.
const TREE: [(&str, &str, Option<&str>); 18] = [
    ("berth-agent", "join", None),
    ("berth-agent", "initialization", Some("join")),
    ("berth-agent", "authentication", Some("join")),
    ("berth-agent", "authorization", Some("join")),
    ("berth-agent", "configuration", Some("join")),
    ("berth-agent", "registration", Some("join")),
    ("berth-agent", "berth.join.v1.JoinService/Enroll", Some("join")),
    ("berth-agent", "berth.join.v1.JoinService/Join", Some("join")),
    ("berth-server 0", "berth.join.v1.JoinService/Enroll", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server 0", "initialization", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server 0", "authentication", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server 0", "redeem", Some("authentication")),
    ("berth-server 0", "authorization", Some("berth.join.v1.JoinService/Enroll")),
    ("berth-server 0", "bind", Some("authorization")),
    ("berth-server 0", "sign", Some("authorization")),
    ("berth-server 1", "berth.join.v1.JoinService/Join", Some("berth.join.v1.JoinService/Join")),
    ("berth-server 1", "configuration", Some("berth.join.v1.JoinService/Join")),
    ("berth-server 1", "registration", Some("berth.join.v1.JoinService/Join")),
];

#[test]
fn a_join_over_two_replicas_is_one_trace_with_the_api_server_in_it() {
    let Some(programs) = jaeger_for_tests().expect("Jaeger") else { return };
    let jaeger = Jaeger::start(&programs).expect("Jaeger runs");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(cluster) = Cluster::for_tests(&traced_to(&jaeger, folder.path())).expect("a cluster") else {
        return;
    };
    // In this group, the server may name the parent of the API server's spans.
    let account = cluster.kubeconfig_for(ACCOUNT, &["system:serviceaccounts", "system:monitoring"]);
    let account = account.expect("a kubeconfig");
    let configuration = json!({ "telemetry": { "otlpEndpoint": jaeger.endpoint() } });
    let mut world = KubernetesWorld::with(cluster, &configuration, Balance::RoundRobin, |_| vec![account; 2]);
    let token = world.token(&[]);
    let machine = world.machine("n1");
    // It has no collector of its own: its spans go over its line.
    let joined = world.join(&machine, &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let trace = joined.result()["traceId"].as_str().expect("the trace id is told").to_owned();

    let spans = eventually("the whole trace in Jaeger", PATIENCE, || {
        let spans = spans_of(&jaeger, &trace);
        let own = spans.iter().filter(|(who, name, _)| who.starts_with("berth") && !is_small(name)).count();
        let others = spans.iter().any(|(who, ..)| who == "apiserver");
        (own >= TREE.len() && others).then_some(spans)
    });
    let own = |(who, name, parent): &Seen| {
        (who.starts_with("berth") && !is_small(name)).then(|| (who.clone(), name.clone(), parent.clone()))
    };
    let mut found: Vec<Seen> = spans.iter().filter_map(own).collect();
    let mut wanted: Vec<Seen> = TREE
        .into_iter()
        .map(|(who, name, parent)| (who.to_owned(), name.to_owned(), parent.map(str::to_owned)))
        .collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    // What the join has the API server do is done within it: the CSR, and the record.
    let asked_for: Vec<&str> = spans
        .iter()
        .filter(|(who, ..)| who == "apiserver")
        .filter_map(|(.., parent)| parent.as_deref())
        .filter(|parent| ["redeem", "bind", "sign"].contains(parent))
        .collect();
    assert!(asked_for.contains(&"bind") && asked_for.contains(&"sign"), "{spans:#?}");
    look_at(&jaeger, &trace);
}

#[test]
fn a_failed_join_is_found_by_its_code_and_a_retry_leads_back_to_it() {
    let Some(programs) = jaeger_for_tests().expect("Jaeger") else { return };
    let jaeger = Jaeger::start(&programs).expect("Jaeger runs");
    let world = World::with(&ServerOptions::default().tracing_to(&jaeger.endpoint()));
    let token = world.server.token(&["--uses", "1"]);
    let first = world.machine("n1").join(world.server.endpoint(), &token, &[]);
    assert_eq!(first.ended.code, Some(0), "{}", first.ended.all());
    let machine = world.machine("n2");
    let refused = machine.join(world.server.endpoint(), &token, &["--no-wait"]);
    assert_eq!(refused.code(), Some("TOKEN_SPENT"), "{}", refused.ended.all());
    let failed = refused.result()["traceId"].as_str().expect("it is told").to_owned();

    let found = eventually("the failed join by its code", PATIENCE, || {
        let found = search(&jaeger, "berth-server", &json!({ "berth.code": "TOKEN_SPENT" }));
        found.into_iter().find(|trace| trace["traceID"] == failed.as_str())
    });
    let text = found.to_string();
    assert!(text.contains("berth.outcome") && text.contains("refused"), "{found:#}");

    // Once the machine has a token that is good, its new trace leads back to the old one,
    // which has come over the line with it.
    let good = world.server.token(&[]);
    let joined = machine.join(world.server.endpoint(), &good, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let trace = joined.result()["traceId"].as_str().expect("it is told").to_owned();
    assert_ne!(trace, failed, "a retry is a trace of its own");
    eventually("a link to the attempt before", PATIENCE, || {
        let trace = trace_of(&jaeger, &trace)?;
        trace.to_string().contains(&failed).then_some(())
    });
}

/// An API server whose spans go to Jaeger where a caller's trace does.
fn traced_to(jaeger: &Jaeger, folder: &Path) -> Options {
    let path = folder.join("tracing.yaml");
    let text = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "TracingConfiguration",
        "endpoint": jaeger.endpoint().trim_start_matches("http://"),
        "samplingRatePerMillion": 0,
    });
    std::fs::write(&path, text.to_string()).expect("a file");
    Options::default().flag(Component::ApiServer, &format!("--tracing-config-file={}", path.display()))
}

/// Spans that come as often as something is written down or done.
fn is_small(name: &str) -> bool {
    ["apply", "record"].contains(&name)
}

/// The page of the trace, as a person sees it; its picture stays below target/.
fn look_at(jaeger: &Jaeger, trace: &str) {
    let Some(browser) = Browser::open().expect("a browser") else { return };
    browser.go_to(&format!("http://{}/trace/{trace}", jaeger.page()), ".span-row").expect("the trace's page");
    let text = browser.text().expect("its text");
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pictures/trace.png");
    browser.picture(&picture).expect("its picture");
    for shown in ["berth-agent", "berth-server", "apiserver", "authorization", "registration"] {
        assert!(text.contains(shown), "{shown} is not on the page:\n{text}");
    }
}

fn get(jaeger: &Jaeger, path: &str) -> Option<Value> {
    let (status, body) = http_get(jaeger.page(), path)?;
    (status == 200).then(|| serde_json::from_str(&body).ok()).flatten()
}

fn trace_of(jaeger: &Jaeger, trace: &str) -> Option<Value> {
    get(jaeger, &format!("/api/traces/{trace}"))?["data"].as_array()?.first().cloned()
}

fn search(jaeger: &Jaeger, service: &str, tags: &Value) -> Vec<Value> {
    let tags: String = tags.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/traces?service={service}&limit=20&lookback=1h&tags={tags}");
    let found = get(jaeger, &path).unwrap_or_default();
    found["data"].as_array().cloned().unwrap_or_default()
}

/// The trace's spans; servers are numbered in the order of their first span.
fn spans_of(jaeger: &Jaeger, trace: &str) -> Vec<Seen> {
    let Some(trace) = trace_of(jaeger, trace) else { return Vec::new() };
    let mut spans = trace["spans"].as_array().cloned().unwrap_or_default();
    spans.sort_by_key(|span| span["startTime"].as_u64());
    let name = |span: &Value| span["operationName"].as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        spans.iter().map(|span| (span["spanID"].to_string(), name(span))).collect();
    let mut servers: Vec<String> = Vec::new();
    spans
        .iter()
        .map(|span| {
            let process = span["processID"].as_str().unwrap_or_default();
            let mut who = trace["processes"][process]["serviceName"].as_str().unwrap_or_default().to_owned();
            if who == "berth-server" {
                let number = servers.iter().position(|known| known == process).unwrap_or(servers.len());
                if number == servers.len() {
                    servers.push(process.to_owned());
                }
                who = format!("berth-server {number}");
            }
            let references = span["references"].as_array().cloned().unwrap_or_default();
            let parent = references.iter().find(|reference| reference["refType"] == "CHILD_OF");
            let parent = parent.map(|parent| {
                names.get(&parent["spanID"].to_string()).cloned().unwrap_or_else(|| "?".to_owned())
            });
            (who, name(span), parent)
        })
        .collect()
}
