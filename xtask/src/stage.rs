//! A server and its operator's tools in a temporary directory: what demo and
//! bench play on.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Finished, Running, build, command, heed_signals, listen, pause};
use crate::test::seconds;

/// The programs, and the places where they meet.
pub(crate) struct Stage {
    pub(crate) server: PathBuf,
    pub(crate) agent: PathBuf,
    /// Where machines join.
    pub(crate) join: SocketAddr,
    /// Where `/readyz` answers.
    pub(crate) health: SocketAddr,
    folder: TempDir,
}

impl Stage {
    /// Builds the programs, each by its profile, and finds a place for them.
    pub(crate) fn build(server: &[&str], agent: &[&str]) -> Result<Self> {
        let mut programs = build(&["berth-server"], server)?;
        programs.extend(build(&["berth-agent"], agent)?);
        // From here on there is something to clean up.
        heed_signals()?;
        let [server, agent] = programs.try_into().ok().context("two programs were asked for")?;
        let folder =
            tempfile::Builder::new().prefix("berth-").tempdir().context("making a temporary directory")?;
        let [join, health] = free_addresses()?;
        Ok(Self { server, agent, join, health, folder })
    }

    /// A place in the stage's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An empty root for a machine's files.
    pub(crate) fn machine_root(&self, name: &str) -> Result<PathBuf> {
        let root = self.path(name);
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        Ok(root)
    }

    /// The operators' socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("admin.sock")
    }

    /// The server, answering `/readyz`, and how long that took. `launcher` goes
    /// before its command line, `further` behind it.
    pub(crate) fn start_server(&self, launcher: &[&str], further: &[&str]) -> Result<(Running, Duration)> {
        let began = Instant::now();
        let log = self.path("server.log");
        let words = launcher.iter().map(OsString::from).chain([self.server.clone().into_os_string()]);
        let words: Vec<OsString> = words.collect();
        let (program, before) = words.split_first().context("a command line has a first word")?;
        let mut server = command(program);
        server.args(before).arg("run").arg("--data-dir").arg(self.path("server"));
        server.args(["--join-listen", &self.join.to_string(), "--health-listen", &self.health.to_string()]);
        server.arg("--admin-socket").arg(self.socket()).args(further);
        let mut server = Running::start(&mut server, &log)?;
        while !ready(self.health) {
            let ended = server.ended()?;
            if ended.is_some() || began.elapsed() > READY_WITHIN {
                let state = ended.map_or("is not ready".to_owned(), |status| format!("ended with {status}"));
                bail!("the server {state} after {}; it said:\n{}", seconds(began.elapsed()), read(&log));
            }
            pause()?;
        }
        Ok((server, began.elapsed()))
    }

    /// A fresh token, bound as `binding` says.
    pub(crate) fn mint(&self, binding: &[&str]) -> Result<String> {
        let words = [&["token", "create", "--ttl", "1h", "-o", "json"], binding].concat();
        let made = self.ask(&words, |_| {})?;
        let made: Value = serde_json::from_str(&made.stdout).context("reading the new token's JSON")?;
        let token = made
            .get("token")
            .and_then(Value::as_str)
            .context("the JSON of a new token has no field `token`")?;
        Ok(token.to_owned())
    }

    /// A machine's own copy of a token, in a file that only its owner may read.
    /// The agent removes it once it has used it.
    pub(crate) fn token_file(&self, machine: &str, token: &str) -> Result<PathBuf> {
        let path = self.path(&format!("{machine}.token"));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(token.as_bytes())).context("writing the token's file")?;
        Ok(path)
    }

    /// An operator's question; `heard` gets each line of the answer.
    pub(crate) fn ask(&self, words: &[&str], heard: impl FnMut(&str)) -> Result<Finished> {
        let mut operator = command(&self.server);
        operator.args(words).arg("--admin-socket").arg(self.socket());
        self.finish(operator, STEP_WITHIN, 0, heard)
    }

    /// Runs a step to its end.
    ///
    /// # Errors
    /// It ended otherwise than expected: with all that it and the server said.
    pub(crate) fn finish(
        &self,
        mut step: Command,
        within: Duration,
        expected: i32,
        heard: impl FnMut(&str),
    ) -> Result<Finished> {
        let finished = listen(&mut step, within, heard)?;
        if finished.status.code() != Some(expected) {
            let Finished { status, stdout, stderr } = finished;
            let log = read(&self.path("server.log"));
            bail!(
                "expected exit status {expected}, got {status}; it said:\n{stdout}{stderr}\nand the server:\n{log}"
            );
        }
        Ok(finished)
    }

    /// Leaves the directory where it is.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// Ports that nobody listens on now. The programs bind them a moment later.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(listeners) {
        *address = listener.and_then(|listener| listener.local_addr()).context("finding a free port")?;
    }
    Ok(addresses)
}

/// True if a GET of `/readyz` is answered with 200.
pub(crate) fn ready(health: SocketAddr) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut line = TcpStream::connect_timeout(&health, PROBE_WITHIN)?;
        line.set_read_timeout(Some(PROBE_WITHIN))?;
        line.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        line.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_else(|error| format!("({}: {error})", log.display()))
}

const READY_WITHIN: Duration = Duration::from_secs(30);
/// What one step of a demonstration may take.
pub(crate) const STEP_WITHIN: Duration = Duration::from_secs(60);
const PROBE_WITHIN: Duration = Duration::from_secs(1);
