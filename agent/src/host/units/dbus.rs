//! systemd over the system's message bus. Its own socket for root would need none, but
//! zbus panics at the name under which systemd speaks there. Signals tell of changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

use super::ticks::Ticks;
use super::{UnitState, Units, UnitsError};

/// How long the manager may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a unit may take to start or stop. One that says itself when it is ready
/// has 90 s from systemd; nothing that Berth starts takes a third of it.
const JOB: Duration = Duration::from_secs(30);

/// Between two looks at a job whose end no signal told of.
const STEP: Duration = Duration::from_millis(100);

/// systemd of the running system. The line is made when it is first needed, and
/// again when it was lost.
#[derive(Default)]
pub struct Systemd {
    /// Where systemd is reached without a bus, in tests.
    socket: Option<PathBuf>,
    line: Mutex<Option<Line>>,
    ticks: Ticks,
}

struct Line {
    connection: Connection,
    /// Takes in signals as they come: a queue that nobody reads would stop the line.
    listening: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Systemd {
    /// The systemd that listens on this socket, without a bus.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub fn behind(socket: &Path) -> Self {
        Self { socket: Some(socket.to_owned()), ..Self::default() }
    }

    async fn connection(&self) -> zbus::Result<Connection> {
        let mut line = self.line.lock().await;
        if let Some(line) = line.as_ref().filter(|line| !line.connection.is_closed()) {
            return Ok(line.connection.clone());
        }
        let connection = timeout(ANSWER, connect(self.socket.as_deref()))
            .await
            .map_err(|_| zbus::Error::InputOutput(late()))??;
        let [jobs, units] = signals()?;
        let jobs = MessageStream::for_match_rule(jobs, &connection, None).await?;
        let units = MessageStream::for_match_rule(units, &connection, None).await?;
        let mut signals = stream::select(jobs, units);
        let ticks = self.ticks.sender();
        let listening = tokio::spawn(async move {
            while signals.next().await.is_some_and(|signal| signal.is_ok()) {
                ticks.send_replace(());
            }
            ticks.send_replace(());
        });
        *line = Some(Line { connection: connection.clone(), listening });
        drop(line);
        // Without it systemd sends no signals. Where it is refused, the steps of waits remain.
        let _ = call(&connection, MANAGER, "Subscribe", &()).await;
        Ok(connection)
    }

    /// Has the manager do a job, and waits until that is done.
    async fn job(&self, verb: &'static str, unit: &str) -> zbus::Result<()> {
        let connection = self.connection().await?;
        let mut ticks = self.ticks.sender().subscribe();
        let answer = call(&connection, MANAGER, verb, &(unit, "replace")).await?;
        let job: OwnedObjectPath = answer.body().deserialize()?;
        let number: u32 = job.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let until = Instant::now() + JOB;
        // A job that is done is gone.
        while call(&connection, MANAGER, "GetJob", &(number,)).await.is_ok() {
            if Instant::now() >= until {
                return Err(zbus::Error::InputOutput(late()));
            }
            let _ = timeout_at(until.min(Instant::now() + STEP), ticks.changed()).await;
        }
        Ok(())
    }

    async fn state(&self, unit: &str) -> zbus::Result<UnitState> {
        let connection = self.connection().await?;
        let answer = call(&connection, MANAGER, "LoadUnit", &(unit,)).await?;
        let path: OwnedObjectPath = answer.body().deserialize()?;
        let of = async |kind, name| property(&connection, &path, kind, name).await;
        // Asked all at once: each question by itself would be two switches to systemd and back.
        let (active, sub, result, status, restarts) = tokio::try_join!(
            of("Unit", "ActiveState"),
            of("Unit", "SubState"),
            of("Service", "Result"),
            of("Service", "ExecMainStatus"),
            of("Service", "NRestarts"),
        )?;
        Ok(UnitState {
            active: active.try_into()?,
            sub: sub.try_into()?,
            result: result.try_into()?,
            status: status.try_into()?,
            restarts: restarts.try_into()?,
        })
    }
}

#[async_trait]
impl Units for Systemd {
    async fn look(&self, unit: &str) -> Result<UnitState, UnitsError> {
        self.ticks.look();
        self.state(unit).await.map_err(failed("look at", unit))
    }

    async fn start(&self, unit: &str) -> Result<(), UnitsError> {
        self.reload().await?;
        // One that has failed too often is not started again before that is forgotten.
        if let Ok(connection) = self.connection().await {
            let _ = call(&connection, MANAGER, "ResetFailedUnit", &(unit,)).await;
        }
        self.job("RestartUnit", unit).await.map_err(failed("start", unit))
    }

    async fn stop(&self, unit: &str) -> Result<(), UnitsError> {
        match self.job("StopUnit", unit).await {
            Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_UNIT => Ok(()),
            done => done.map_err(failed("stop", unit)),
        }
    }

    async fn reload(&self) -> Result<(), UnitsError> {
        let done = async { call(&self.connection().await?, MANAGER, "Reload", &()).await.map(drop) };
        done.await.map_err(failed("reload", "its units"))
    }

    async fn changed(&self) {
        self.ticks.changed().await;
    }
}

/// The ends of jobs, and changes of units. While systemd reads its units again it tells
/// of each of them that it goes and comes, hundreds of signals that say nothing here.
fn signals() -> zbus::Result<[MatchRule<'static>; 2]> {
    let of = || MatchRule::builder().msg_type(Type::Signal);
    Ok([
        of().interface(MANAGER.1)?.member("JobRemoved")?.path(MANAGER.0)?.build(),
        of().interface(PROPERTIES)?.member("PropertiesChanged")?.path_namespace(UNITS)?.build(),
    ])
}

async fn connect(socket: Option<&Path>) -> zbus::Result<Connection> {
    let builder = match socket {
        Some(socket) => Builder::unix_stream(UnixStream::connect(socket).await?).p2p(),
        None => Builder::system()?,
    };
    builder.method_timeout(ANSWER).build().await
}

/// What is called: path and interface.
type Object<'a> = (&'a str, &'a str);

async fn call<B: serde::Serialize + DynamicType>(
    connection: &Connection,
    (path, interface): Object<'_>,
    verb: &str,
    body: &B,
) -> zbus::Result<zbus::Message> {
    connection.call_method(Some(SYSTEMD), path, Some(interface), verb, body).await
}

async fn property(
    connection: &Connection,
    path: &OwnedObjectPath,
    kind: &str,
    name: &str,
) -> zbus::Result<OwnedValue> {
    let body = (format!("{SYSTEMD}.{kind}"), name);
    let answer = call(connection, (path.as_str(), PROPERTIES), "Get", &body).await?;
    answer.body().deserialize()
}

fn failed(action: &'static str, unit: &str) -> impl FnOnce(zbus::Error) -> UnitsError {
    let unit = unit.to_owned();
    move |error| UnitsError { action, unit, cause: error.to_string() }
}

fn late() -> std::sync::Arc<std::io::Error> {
    std::sync::Arc::new(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time"))
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: Object<'static> = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const UNITS: &str = "/org/freedesktop/systemd1/unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
