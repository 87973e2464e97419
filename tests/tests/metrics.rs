//! deploy/prometheus and deploy/grafana against a real Prometheus, fed by real joins: every
//! panel's query has an answer and every alert can be computed. `alerts.rs` causes them.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::path::PathBuf;

use berth_compose::prometheus_for_tests;
use berth_telemetry::collector::Collector;
use berth_telemetry::names::metric;
use berth_tests::{KubernetesWorld, Prometheus, ServerOptions, World, http_get};
use serde_json::{Value, json};

#[test]
fn every_panel_and_alert_has_an_answer_from_real_joins() {
    let Some(programs) = prometheus_for_tests().expect("Prometheus") else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let collector = runtime.block_on(Collector::start()).expect("a collector");
    let world = World::with(&ServerOptions::default().tracing_to(&collector.endpoint()));
    // Where its programs are missing, that was said loudly.
    let mut cluster = KubernetesWorld::start(1, &json!({}));
    let mut servers = vec![world.server.health()];
    servers.extend(cluster.iter().flat_map(|cluster| &cluster.servers).map(berth_tests::Server::health));
    let prometheus = Prometheus::start(&programs.prometheus(), &servers);
    let token = world.server.token(&["--uses", "3"]);
    for number in 0..3 {
        let joined = world.machine(&format!("n{number}")).join(world.server.endpoint(), &token, &[]);
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    }
    let refused = world.machine("n3").join(world.server.endpoint(), &token, &["--no-wait"]);
    assert_eq!(refused.code(), Some("TOKEN_SPENT"), "{}", refused.ended.all());
    if let Some(cluster) = &mut cluster {
        let (machine, token) = (cluster.machine("n1"), cluster.token(&[]));
        let joined = cluster.join(&machine, &token, &[]);
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    }

    for (panel, query) in panels() {
        if cluster.is_none() && query.contains("apiserver") {
            continue;
        }
        prometheus.answers(&panel, &query);
    }
    // An alert that Prometheus cannot compute says so.
    let rules = prometheus.rules();
    assert!(rules.len() >= 15, "{rules:#?}");
    for rule in &rules {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule:#}");
        let runbook = rule.pointer("/annotations/runbook_url").and_then(Value::as_str).expect("a runbook");
        assert!(has_section(runbook), "{runbook} leads nowhere");
    }
    let exemplars = prometheus
        .get("/api/v1/query_exemplars?query=berth_join_duration_seconds_bucket&start=0&end=9999999999");
    assert!(exemplars.expect("exemplars").to_string().contains("trace_id"), "a slow join leads to its trace");

    documented(&servers.into_iter().filter_map(|server| http_get(server, "/metrics")).collect::<Vec<_>>());
}

#[test]
fn every_panel_is_told_of_in_the_documentation() {
    let text = documentation();
    for (title, _) in panels() {
        assert!(text.contains(&format!("| {title} |")), "docs/observability.md says nothing of {title:?}");
    }
}

/// The table of metrics in the documentation is that of the code, and names the type and
/// the labels that the servers' pages have.
fn documented(pages: &[(u16, String)]) {
    let text = documentation();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `berth_") || line.starts_with("| `rpc_"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let mut told: Vec<&str> = rows.iter().map(|row| row[1].trim_matches('`')).collect();
    let mut wanted = metric::ALL.to_vec();
    told.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(told, wanted, "the table of docs/observability.md and berth_telemetry::names::metric::ALL");

    for row in rows {
        let (name, kind, labels) = (row[1].trim_matches('`'), row[2], row[4]);
        let stem = name.trim_end_matches("_total").trim_end_matches("_info");
        let is_typed = |page: &&(u16, String)| page.1.contains(&format!("# TYPE {stem} {kind}\n"));
        assert!(pages.iter().any(|page| is_typed(&page)), "{name} is no {kind}");
        let mut told: Vec<&str> = labels.split(", ").map(|label| label.trim_matches('`')).collect();
        told.retain(|label| !label.is_empty());
        told.sort_unstable();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            ["{", " ", "_count"].iter().any(|after| rest.starts_with(after))
        };
        let Some(line) = pages.iter().flat_map(|page| page.1.lines()).find(of_name) else { continue };
        let braces = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let mut found: Vec<&str> = braces
            .map(|(inside, _)| inside.split("\",").filter_map(|pair| pair.split('=').next()).collect())
            .unwrap_or_default();
        found.sort_unstable();
        assert_eq!(told, found, "the labels of {name} in docs/observability.md and in\n{line}");
    }
}

/// Every query of every dashboard, with its panel's title.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(root("deploy/grafana/dashboards")).expect("dashboards").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            assert!(
                panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{title} says nothing"
            );
            for target in panel["targets"].as_array().expect("queries") {
                let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
                found.push((title.to_owned(), query));
            }
        }
    }
    assert!(found.len() >= 30, "{found:#?}");
    found
}

/// Whether a runbook's link leads to a heading.
fn has_section(link: &str) -> bool {
    let Some((file, anchor)) = link.split_once('#') else { return false };
    let text = std::fs::read_to_string(root(file)).unwrap_or_default();
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(|heading| heading.to_lowercase().replace(' ', "-")).any(|heading| heading == anchor)
}

fn documentation() -> String {
    std::fs::read_to_string(root("docs/observability.md")).expect("the documentation")
}

fn root(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", path].iter().collect()
}
