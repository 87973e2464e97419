//! deploy/prometheus and deploy/grafana against a real Prometheus, fed by real joins: every
//! panel's query has an answer, every alert can be computed, and one whose cause is given
//! fires.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_compose::prometheus_for_tests;
use berth_tests::{Running, World, eventually, http_get, own_address, system_program};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_panel_and_alert_has_an_answer_from_real_joins_and_an_alert_fires() {
    let Some(programs) = prometheus_for_tests().expect("Prometheus") else { return };
    let mut world = World::start();
    let prometheus = Prometheus::start(&programs.prometheus(), &world);
    // Rates need a first value before anything happens.
    prometheus.answer("berth_build_info");
    let token = world.server.token(&["--uses", "3"]);
    for number in 0..3 {
        let joined = world.machine(&format!("n{number}")).join(world.server.endpoint(), &token, &[]);
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    }
    for number in 3..10 {
        let refused =
            world.machine(&format!("n{number}")).join(world.server.endpoint(), &token, &["--no-wait"]);
        assert_eq!(refused.code(), Some("TOKEN_SPENT"), "{}", refused.ended.all());
    }

    prometheus.fires("BerthJoinsFail", Some("TOKEN_SPENT"));
    for (panel, query) in panels() {
        eventually(&format!("an answer to {panel}: {query}"), PATIENCE, || {
            let answer = prometheus.query(&query)?;
            let series = answer.pointer("/data/result")?.as_array()?.len();
            (series > 0).then_some(())
        });
    }
    // An alert that Prometheus cannot compute says so.
    let rules = prometheus.get("/api/v1/rules").expect("its rules");
    let rules = rules.pointer("/data/groups/0/rules").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(rules.len() >= 9, "{rules:#?}");
    for rule in &rules {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule:#}");
        let runbook = rule.pointer("/annotations/runbook_url").and_then(Value::as_str).expect("a runbook");
        assert!(has_section(runbook), "{runbook} leads nowhere");
    }
    // A good server has nothing to alert of but what was done to it.
    assert_eq!(prometheus.firing("BerthCertificateExpires"), Vec::<Value>::new());

    let exemplars = prometheus
        .get("/api/v1/query_exemplars?query=berth_join_duration_seconds_bucket&start=0&end=9999999999");
    assert!(exemplars.expect("exemplars").to_string().contains("trace_id"), "a slow join leads to its trace");

    world.server.kill();
    prometheus.fires("BerthServerDown", None);
    prometheus.fires("BerthNoServer", None);
}

struct Prometheus {
    address: SocketAddr,
    _running: Running,
}

impl Prometheus {
    /// Looks at a world's server every second, with the alerts as they are, but at once.
    fn start(program: &std::path::Path, world: &World) -> Self {
        let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yml")).expect("a file");
        let at_once: String = alerts
            .lines()
            .filter(|line| !line.trim().starts_with("for:"))
            .map(|line| format!("{line}\n"))
            .collect();
        let rules = world.file("alerts.yml", &at_once);
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: berth-server\n  static_configs: [{{targets: [\"{}\"]}}]\n",
            rules.display(),
            world.server.health()
        );
        let configuration = world.file("prometheus.yml", &configuration);
        let address = SocketAddr::from((own_address(), 19090));
        let mut command = system_program(&program.to_string_lossy());
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", world.path().join("metrics").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--enable-feature=exemplar-storage");
        let mut running = Running::start_command(command, |_| {});
        eventually("a Prometheus that is ready", PATIENCE, || {
            assert!(!running.has_ended(), "{}", running.stderr());
            http_get(address, "/-/ready").filter(|(status, _)| *status == 200)
        });
        Self { address, _running: running }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (_, body) = http_get(self.address, path)?;
        serde_json::from_str(&body).ok()
    }

    fn query(&self, query: &str) -> Option<Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={query}"))
    }

    fn answer(&self, query: &str) {
        eventually(query, PATIENCE, || {
            let answer = self.query(query)?;
            (!answer.pointer("/data/result")?.as_array()?.is_empty()).then_some(())
        });
    }

    fn firing(&self, alert: &str) -> Vec<Value> {
        let alerts = self.get("/api/v1/alerts").unwrap_or_default();
        let alerts = alerts.pointer("/data/alerts").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |found: &Value| found.pointer("/labels/alertname").and_then(Value::as_str) == Some(alert);
        alerts.into_iter().filter(|found| of(found) && found["state"] == "firing").collect()
    }

    fn fires(&self, alert: &str, reason: Option<&str>) {
        eventually(&format!("{alert} firing"), PATIENCE, || {
            let firing = self.firing(alert);
            let found = firing.iter().any(|found| {
                reason.is_none_or(|reason| {
                    found.pointer("/labels/reason").and_then(Value::as_str) == Some(reason)
                })
            });
            found.then_some(())
        });
    }
}

/// Every query of every dashboard, with its panel's title.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(deploy("grafana/dashboards")).expect("dashboards").flatten() {
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
    assert!(found.len() >= 18, "{found:#?}");
    found
}

/// Whether a runbook's link leads to a heading.
fn has_section(link: &str) -> bool {
    let Some((file, anchor)) = link.split_once('#') else { return false };
    let text = std::fs::read_to_string(deploy("..").join(file)).unwrap_or_default();
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(|heading| heading.to_lowercase().replace(' ', "-")).any(|heading| heading == anchor)
}

fn deploy(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../deploy", path].iter().collect()
}
