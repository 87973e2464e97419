//! The stack of docker-compose.yml at one daemon.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::Program;
use serde_json::Value;
use tempfile::TempDir;

use crate::command;
use crate::docker::Docker;
use crate::programs::Programs;

/// The stack, from images that were made here, or from foreign ones.
#[derive(Clone, Debug)]
pub struct Stack {
    docker: Docker,
    project: String,
    offline: bool,
    environment: Vec<(String, String)>,
}

/// A container of a service.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its service in docker-compose.yml.
    pub service: String,
    /// Whether it runs.
    pub running: bool,
    /// Its exit status, if it has ended.
    pub exit: i64,
    /// What its health check says, if it has one.
    pub health: Option<String>,
}

impl Stack {
    /// The stack under a project's name. `offline` takes images that were made here.
    #[must_use]
    pub fn new(docker: &Docker, project: &str, offline: bool) -> Self {
        Self { docker: docker.clone(), project: project.to_owned(), offline, environment: Vec::new() }
    }

    /// The same with a variable of docker-compose.yml, such as `JAEGER_PORT`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `docker compose ARGUMENTS` on this stack.
    #[must_use]
    pub fn compose(&self, arguments: &[&str]) -> Command {
        let mut words = vec!["--project-name", &self.project, "--project-directory", "."];
        if self.offline {
            words.extend(["--env-file", "deploy/offline.env"]);
        }
        let mut compose = self.docker.compose(&[&words, arguments].concat());
        compose.envs(self.environment.iter().map(|(name, value)| (name, value)));
        compose
    }

    /// Brings everything up with so many machines, and returns once all is started.
    ///
    /// # Errors
    /// A part of it does not come up; with its log.
    pub fn up(&self, machines: u32) -> Result<()> {
        self.start(machines, &[])
    }

    /// Makes it so many machines. Nothing else is looked at: what machines depend on may
    /// be restarting.
    ///
    /// # Errors
    /// One of them does not start; with the stack's log.
    pub fn scale(&self, machines: u32) -> Result<()> {
        self.start(machines, &["--no-deps", "--no-recreate", "agent"])
    }

    fn start(&self, machines: u32, only: &[&str]) -> Result<()> {
        let scale = format!("agent={machines}");
        let mut words = vec!["up", "--detach", "--scale", &scale];
        if self.offline {
            words.push("--no-build");
        }
        words.extend(only);
        Docker::said(self.compose(&words)).map(drop).map_err(|error| {
            let logs = self.logs(&[], 15).unwrap_or_default();
            error.context(format!("the stack does not come up; its logs:\n{logs}"))
        })
    }

    /// Takes everything down, with all that it kept.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn down(&self) -> Result<()> {
        Docker::said(self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "20"])).map(drop)
    }

    /// All containers of the stack.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let ids =
            Docker::said(self.docker.docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &label]))?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let told = Docker::said(self.docker.docker(&[&["inspect"], &ids[..]].concat()))?;
        let told: Vec<Value> = serde_json::from_str(&told).context("reading docker inspect")?;
        Ok(told.iter().map(Container::read).collect())
    }

    /// The end of what services have said; of all, if none is named.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn logs(&self, services: &[&str], lines: u32) -> Result<String> {
        let tail = format!("--tail={lines}");
        Docker::said(self.compose(&[&["logs", "--no-color", &tail], services].concat()))
    }

    /// The stack's cluster, as its administrator reaches it from here.
    ///
    /// # Errors
    /// It has no keys yet, or kubectl is missing.
    pub fn cluster(&self, programs: &Programs) -> Result<Cluster> {
        let view = ["run", "--rm", "-T", "kubectl", "config", "view", "--raw"];
        let text = Docker::said(self.compose(&view))?;
        let folder = tempfile::tempdir().context("making a folder for a kubeconfig")?;
        let path = folder.path().join("admin.conf");
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).context("writing a kubeconfig")?;
        Ok(Cluster {
            kubectl: programs.kubernetes(Program::Kubectl)?,
            folder,
            port: self.port("KUBE_PORT", 6443),
        })
    }

    /// A port on loopback that docker-compose.yml publishes under this variable.
    #[must_use]
    pub fn port(&self, variable: &str, usual: u16) -> u16 {
        let set = self.environment.iter().find(|(name, _)| name == variable);
        set.and_then(|(_, port)| port.parse().ok()).unwrap_or(usual)
    }

    /// Restarts a container, as an operator would.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn restart(&self, container: &Container) -> Result<()> {
        Docker::said(self.docker.docker(&["restart", "--time", "60", &container.id])).map(drop)
    }
}

/// The stack's cluster.
pub struct Cluster {
    kubectl: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Cluster {
    /// kubectl, as an administrator.
    ///
    /// # Errors
    /// It ended with another status than 0.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut kubectl = command(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(self.folder.path().join("admin.conf"));
        kubectl.arg("--cache-dir").arg(self.folder.path());
        kubectl.arg(format!("--server=https://127.0.0.1:{}", self.port)).args(arguments);
        Docker::said(kubectl)
    }

    /// Waits until so many nodes are Ready; how long that took from this call on.
    ///
    /// # Errors
    /// They are not in time; says how each stands.
    pub fn wait_for_nodes(&self, wanted: usize, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let nodes = self.kubectl(&["get", "nodes", "--no-headers"])?;
            let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
            if ready >= wanted {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                bail!("{ready} of {wanted} nodes are Ready after {within:?}:\n{nodes}");
            }
            thread::sleep(POLL);
        }
    }
}

impl Container {
    fn read(told: &Value) -> Self {
        let text = |pointer: &str| told.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: text("/Id").unwrap_or_default(),
            service: text("/Config/Labels/com.docker.compose.service").unwrap_or_default(),
            running: told.pointer("/State/Running").and_then(Value::as_bool).unwrap_or_default(),
            exit: told.pointer("/State/ExitCode").and_then(Value::as_i64).unwrap_or_default(),
            health: text("/State/Health/Status"),
        }
    }
}

const POLL: Duration = Duration::from_millis(500);
