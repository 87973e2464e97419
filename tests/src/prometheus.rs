//! A Prometheus that looks at the servers of a test every second, with the alerts of
//! `deploy/prometheus/alerts.yml` as they are, but for the time that each must last: its
//! `for` is left out, so that a cause is seen firing at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Running, eventually, system_program};
use crate::{http_get, own_address};

const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus of a test's own.
pub struct Prometheus {
    address: SocketAddr,
    _running: Running,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts the program; it looks at these health listeners.
    ///
    /// # Panics
    /// It does not become ready.
    #[must_use]
    pub fn start(program: &Path, servers: &[SocketAddr]) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-prometheus-").tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file of Prometheus");
            path
        };
        let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yml")).expect("the alerts");
        let is_duration = |line: &&str| line.trim().starts_with("for:");
        let at_once: Vec<&str> = alerts.lines().filter(|line| !is_duration(line)).collect();
        let rules = file("alerts.yml", &at_once.join("\n"));
        let targets: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let configuration = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "berth-server", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        let configuration = file("prometheus.yml", &configuration.to_string());
        let address = SocketAddr::from((own_address(), 19090));
        let mut command = system_program(&program.to_string_lossy());
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--enable-feature=exemplar-storage");
        let mut running = Running::start_command(command, |_| {});
        eventually("a Prometheus that is ready", PATIENCE, || {
            assert!(!running.has_ended(), "{}", running.stderr());
            http_get(address, "/-/ready").filter(|(status, _)| *status == 200)
        });
        let prometheus = Self { address, _running: running, _directory: directory };
        for server in servers {
            // Rates need a first value before anything happens.
            prometheus.answers("a first look", &format!("berth_build_info{{instance=\"{server}\"}}"));
        }
        prometheus
    }

    /// Asks its API.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        let (_, body) = http_get(self.address, path)?;
        serde_json::from_str(&body).ok()
    }

    /// How many series a query has now; `None` if it cannot be computed.
    #[must_use]
    pub fn series(&self, query: &str) -> Option<usize> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}"))?;
        Some(answer.pointer("/data/result")?.as_array()?.len())
    }

    /// Waits until the query of a panel has an answer.
    ///
    /// # Panics
    /// It has none in time.
    pub fn answers(&self, panel: &str, query: &str) {
        eventually(&format!("an answer to {panel}: {query}"), PATIENCE, || {
            self.series(query).filter(|series| *series > 0)
        });
    }

    /// What fires now of one alert.
    #[must_use]
    pub fn firing(&self, alert: &str) -> Vec<Value> {
        let alerts = self.get("/api/v1/alerts").unwrap_or_default();
        let alerts = alerts.pointer("/data/alerts").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |found: &Value| found.pointer("/labels/alertname").and_then(Value::as_str) == Some(alert);
        alerts.into_iter().filter(|found| of(found) && found["state"] == "firing").collect()
    }

    /// Waits until an alert fires, perhaps with a label of this value.
    ///
    /// # Panics
    /// It does not in time.
    pub fn fires(&self, alert: &str, label: Option<(&str, &str)>) {
        eventually(&format!("{alert} firing {label:?}"), PATIENCE, || {
            let is_meant = |found: &Value| {
                label.is_none_or(|(name, value)| {
                    found.pointer(&format!("/labels/{name}")).and_then(Value::as_str) == Some(value)
                })
            };
            self.firing(alert).iter().any(is_meant).then_some(())
        });
    }

    /// Waits until an alert does not fire, if only for what was there before the first look.
    ///
    /// # Panics
    /// It goes on firing.
    pub fn rests(&self, alert: &str) {
        eventually(&format!("{alert} at rest"), PATIENCE, || self.firing(alert).is_empty().then_some(()));
    }

    /// All alerts that it knows, as it read them.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn rules(&self) -> Vec<Value> {
        let rules = self.get("/api/v1/rules").expect("its rules");
        rules.pointer("/data/groups/0/rules").and_then(Value::as_array).cloned().unwrap_or_default()
    }
}

/// A file below `deploy`.
fn deploy(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../deploy", path].iter().collect()
}
