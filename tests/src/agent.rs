//! A machine: an agent that works below a directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Ended, Running};

/// How long a join may take on a busy machine.
const JOIN: Duration = Duration::from_secs(60);

/// A machine and its agent.
pub struct Agent {
    root: PathBuf,
    name: String,
}

/// A join that ended, as `-o json` told it.
#[derive(Debug)]
pub struct Joined {
    /// The process.
    pub ended: Ended,
    /// The lines of its standard output that are JSON.
    pub told: Vec<Value>,
}

impl Joined {
    /// The last JSON line: the result.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.told.last().unwrap_or(&Value::Null)
    }

    /// The result's code, if it is a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.result()["diagnosis"]["code"].as_str()
    }
}

impl Agent {
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        std::fs::create_dir_all(root).expect("a machine's directory");
        Self { root: root.to_owned(), name: name.to_owned() }
    }

    /// The directory that stands for the machine's disk.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path on the machine's disk.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Keeps a token on the machine's disk, for its owner only.
    #[must_use]
    pub fn token_file(&self, token: &str) -> PathBuf {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.root.with_extension("token");
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(token.as_bytes())).expect("a token file");
        path
    }

    /// Starts `berth-agent VERB` on this machine.
    #[must_use]
    pub fn start(&self, verb: &[&str], arrange: impl FnOnce(&mut Command)) -> Running {
        Running::start("berth-agent", |command| {
            command.args(verb).arg("--root").arg(&self.root);
            arrange(command);
        })
    }

    /// Starts a join with a token.
    #[must_use]
    pub fn start_join(&self, endpoint: SocketAddr, token: &str, flags: &[&str]) -> Running {
        let file = self.token_file(token);
        let endpoint = endpoint.to_string();
        self.start(&["join", &endpoint], |command| {
            command.arg("--token-file").arg(file);
            if !flags.contains(&"--node-name") {
                command.args(["--node-name", &self.name]);
            }
            command.args(["-o", "json"]).args(flags);
        })
    }

    /// Joins with a token, to the end.
    #[must_use]
    pub fn join(&self, endpoint: SocketAddr, token: &str, flags: &[&str]) -> Joined {
        joined(self.start_join(endpoint, token, flags).wait(JOIN))
    }

    /// Runs `berth-agent VERB` to its end.
    #[must_use]
    pub fn run(&self, verb: &[&str]) -> Ended {
        self.start(verb, |_| {}).wait(JOIN)
    }
}

/// Reads what a join told.
#[must_use]
pub fn joined(ended: Ended) -> Joined {
    let told = ended.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Joined { ended, told }
}
