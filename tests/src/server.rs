//! A server process, and the operator's command line to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Ended, Running, eventually};
use crate::{http_get, own_address};

/// How long a debug build may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The port of every test's join listener, on an address of its own; not the
/// usual one, which a server of this machine may hold on all addresses.
const JOIN_PORT: u16 = 18443;

/// The port of every test's health listener, likewise.
const HEALTH_PORT: u16 = 18480;

/// What a test configures of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Merged over the configuration that every test's server has.
    pub configuration: Value,
    /// Further environment.
    pub environment: Vec<(String, String)>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { configuration: json!({}), environment: Vec::new() }
    }
}

impl ServerOptions {
    /// Options with this configuration.
    #[must_use]
    pub fn new(configuration: Value) -> Self {
        Self { configuration, ..Self::default() }
    }

    /// The same with more configuration over it.
    #[must_use]
    pub fn over(mut self, configuration: Value) -> Self {
        merge(&mut self.configuration, configuration);
        self
    }

    /// Exports traces there.
    #[must_use]
    pub fn tracing_to(mut self, endpoint: &str) -> Self {
        merge(&mut self.configuration, json!({ "telemetry": { "otlpEndpoint": endpoint } }));
        self
    }
}

/// A server process.
pub struct Server {
    running: Option<Running>,
    name: String,
    configuration: PathBuf,
    socket: PathBuf,
    address: Ipv4Addr,
    options: ServerOptions,
}

impl Server {
    pub(crate) fn start(data: &Path, name: &str, options: &ServerOptions) -> Self {
        let parent = data.parent().expect("a data directory lies in the world");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).expect("a data directory");
        let address = own_address();
        let socket = data.join(format!("{name}.sock"));
        let mut configuration = json!({
            "apiVersion": "config.berth.dev/v1alpha1",
            "kind": "ServerConfiguration",
            "dataDir": data,
            "joinListen": SocketAddr::from((address, JOIN_PORT)),
            "advertise": SocketAddr::from((address, JOIN_PORT)),
            "healthListen": SocketAddr::from((address, HEALTH_PORT)),
            "adminSocket": socket,
            "telemetry": { "logLevel": "debug" },
        });
        merge(&mut configuration, options.configuration.clone());
        let path = parent.join(format!("{name}.yaml"));
        // JSON is YAML.
        std::fs::write(&path, configuration.to_string()).expect("a configuration file");
        let mut server = Self {
            running: None,
            name: name.to_owned(),
            configuration: path,
            socket,
            address,
            options: options.clone(),
        };
        server.start_again();
        server
    }

    /// Starts the process that was stopped or killed, with the same configuration.
    pub fn start_again(&mut self) {
        let configuration = self.configuration.clone();
        let environment = self.options.environment.clone();
        let mut running = Running::start("berth-server", |command| {
            command.arg("run").arg("--config").arg(configuration).envs(environment);
        });
        let health = self.health();
        eventually("a ready server", START, || {
            assert!(!running.has_ended(), "the server ended:\n{}\n{}", running.stdout(), running.stderr());
            http_get(health, "/readyz").filter(|(status, _)| *status == 200)
        });
        self.running = Some(running);
    }

    /// Kills the process without last words.
    pub fn kill(&mut self) -> Ended {
        self.running.take().expect("the server runs").kill()
    }

    /// Stops the process as systemd would.
    pub fn stop(&mut self) -> Ended {
        self.running.take().expect("the server runs").terminate(START)
    }

    /// Where machines join.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        (self.address, JOIN_PORT).into()
    }

    /// Where health and metrics are.
    #[must_use]
    pub fn health(&self) -> SocketAddr {
        (self.address, HEALTH_PORT).into()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    /// Its name in the world.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs an operator's command against it.
    #[must_use]
    pub fn admin(&self, arguments: &[&str]) -> Ended {
        self.start_admin(arguments).wait(START)
    }

    /// Starts an operator's command against it.
    #[must_use]
    pub fn start_admin(&self, arguments: &[&str]) -> Running {
        Running::start("berth-server", |command| {
            command.args(arguments).arg("--admin-socket").arg(&self.socket).stdin(Stdio::null());
        })
    }

    /// Runs an operator's command that asks no server, with its configuration.
    #[must_use]
    pub fn operate(&self, arguments: &[&str]) -> Ended {
        let started = Running::start("berth-server", |command| {
            command.args(arguments).arg("--config").arg(&self.configuration);
        });
        started.wait(START)
    }

    /// Runs an operator's command and reads its JSON.
    #[must_use]
    pub fn admin_json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        self.admin(&arguments).expect_success().json()
    }

    /// Makes a token with these flags; its printable text.
    #[must_use]
    pub fn token(&self, flags: &[&str]) -> String {
        let arguments: Vec<&str> = ["token", "create"].into_iter().chain(flags.iter().copied()).collect();
        let made = self.admin_json(&arguments);
        made["token"].as_str().expect("a token").to_owned()
    }

    /// The newest join of a node or of an id, as `joins explain` tells it.
    #[must_use]
    pub fn explain(&self, join: &str) -> Value {
        self.admin_json(&["joins", "explain", join])
    }

    /// One metric's value, if the server has it.
    #[must_use]
    pub fn metric(&self, line_start: &str) -> Option<f64> {
        let (_, body) = http_get(self.health(), "/metrics")?;
        let line = body.lines().find(|line| line.starts_with(line_start))?;
        line.split_once("# {").map_or(line, |(value, _)| value).split_whitespace().last()?.parse().ok()
    }
}

/// Lays one JSON value over another, field by field.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
