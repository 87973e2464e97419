//! As much of systemd's D-Bus interface as Berth calls (`org.freedesktop.systemd1(5)`),
//! on a socket of its own, spoken without a message bus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, Guid, fdo, interface};

/// A systemd, and the socket that it listens on.
pub(super) struct FakeSystemd {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    state: Shared,
    accepting: JoinHandle<()>,
}

type Shared = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    running: BTreeSet<String>,
    ended: BTreeMap<String, i32>,
    failing: BTreeSet<String>,
    lines: Vec<Connection>,
}

impl FakeSystemd {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("private");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let state = Shared::default();
        let serving = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let line = Builder::unix_stream(stream)
                    .server(Guid::generate())
                    .and_then(|line| line.p2p().serve_at(MANAGER, Manager(Arc::clone(&serving))))
                    .and_then(|line| line.serve_at(UNIT, UnitObject(Arc::clone(&serving))))
                    .and_then(|line| line.serve_at(UNIT, Service(Arc::clone(&serving))))
                    .expect("objects");
                if let Ok(line) = line.build().await {
                    lock(&serving).lines.push(line);
                }
            }
        });
        Self { _directory: directory, socket, state, accepting }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn fail(&self, unit: &str, fails: bool) {
        let mut state = lock(&self.state);
        if fails {
            state.failing.insert(unit.to_owned())
        } else {
            state.failing.remove(unit)
        };
    }

    /// Ends every line, as a systemd that executes itself anew does.
    pub(super) async fn hang_up(&mut self) {
        let lines = std::mem::take(&mut lock(&self.state).lines);
        for line in lines {
            line.close().await.expect("a line that was open");
        }
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Manager(Shared);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn reload(&self) {}

    fn reset_failed_unit(&self, _unit: &str) -> fdo::Result<()> {
        Err(fdo::Error::Failed("it has not failed".to_owned()))
    }

    fn load_unit(&self, _unit: &str) -> OwnedObjectPath {
        path(UNIT)
    }

    async fn restart_unit(
        &self,
        unit: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        {
            let mut state = lock(&self.0);
            if state.failing.contains(unit) {
                state.running.remove(unit);
                state.ended.insert(unit.to_owned(), 1);
            } else {
                state.running.insert(unit.to_owned());
                state.ended.remove(unit);
            }
        }
        Self::job_removed(&emitter, unit).await?;
        Ok(path(JOB))
    }

    async fn stop_unit(
        &self,
        unit: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        {
            let mut state = lock(&self.0);
            state.running.remove(unit);
            state.ended.remove(unit);
        }
        Self::job_removed(&emitter, unit).await?;
        Ok(path(JOB))
    }

    fn get_job(&self, _number: u32) -> fdo::Result<OwnedObjectPath> {
        Err(fdo::Error::Failed("no such job: it is done".to_owned()))
    }

    #[zbus(signal)]
    async fn job_removed(emitter: &SignalEmitter<'_>, unit: &str) -> zbus::Result<()>;
}

struct UnitObject(Shared);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn active_state(&self) -> String {
        let state = lock(&self.0);
        let word = match (state.running.is_empty(), state.ended.is_empty()) {
            (false, _) => "active",
            (true, false) => "activating",
            (true, true) => "inactive",
        };
        word.to_owned()
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        let state = lock(&self.0);
        let word = match (state.running.is_empty(), state.ended.is_empty()) {
            (false, _) => "running",
            (true, false) => "auto-restart",
            (true, true) => "dead",
        };
        word.to_owned()
    }
}

struct Service(Shared);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property)]
    fn result(&self) -> String {
        if lock(&self.0).ended.is_empty() { "success" } else { "exit-code" }.to_owned()
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        lock(&self.0).ended.values().next().copied().unwrap_or(0)
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        0
    }
}

fn path(text: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).expect("a path")
}

const MANAGER: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "/org/freedesktop/systemd1/unit/kubelet_2eservice";
const JOB: &str = "/org/freedesktop/systemd1/job/7";
