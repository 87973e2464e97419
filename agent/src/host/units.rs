//! The service manager as Berth uses it: five verbs, spoken to systemd over D-Bus
//! by [`Systemd`], kept in memory by its double.

mod dbus;
#[cfg(any(test, feature = "doubles"))]
mod memory;
mod ticks;

pub use dbus::Systemd;
#[cfg(any(test, feature = "doubles"))]
pub use memory::MemoryUnits;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;

/// A service manager.
#[async_trait]
pub trait Units: Send + Sync {
    /// How a unit stands.
    ///
    /// # Errors
    /// The manager cannot be asked.
    async fn look(&self, unit: &str) -> Result<UnitState, UnitsError>;

    /// Starts a unit, or starts it anew, with its files as they are now. Ends once
    /// the manager is done, whether the unit then runs or not.
    ///
    /// # Errors
    /// The manager refuses, or is not done in time.
    async fn start(&self, unit: &str) -> Result<(), UnitsError>;

    /// Stops a unit. One that does not run is stopped already.
    ///
    /// # Errors
    /// The manager refuses, or is not done in time.
    async fn stop(&self, unit: &str) -> Result<(), UnitsError>;

    /// Reads all unit files anew.
    ///
    /// # Errors
    /// The manager refuses.
    async fn reload(&self) -> Result<(), UnitsError>;

    /// Ends when some unit has changed since it was last looked at; never, where the
    /// manager is out of reach.
    async fn changed(&self);
}

/// How a unit stands, in systemd's words (`org.freedesktop.systemd1(5)`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `ActiveState`: `active`, `activating`, `inactive`, `failed`, ...
    pub active: String,
    /// `SubState`: `running`, `auto-restart`, ...
    pub sub: String,
    /// `Result` of its last run: `success`, `exit-code`, `signal`, ...
    pub result: String,
    /// `ExecMainStatus`: the exit status, or the signal that ended it.
    pub status: i32,
    /// `NRestarts`: how often it was started again by itself.
    pub restarts: u32,
}

impl UnitState {
    /// Whether its program runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.active == "active"
    }

    /// Whether it has ended without having been told to.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.active == "failed" || self.sub.starts_with("auto-restart")
    }

    /// How its last run ended: `exit status 1`, `signal 9`.
    #[must_use]
    pub fn end(&self) -> String {
        match self.result.as_str() {
            "signal" | "core-dump" | "watchdog" => format!("signal {}", self.status),
            "exit-code" | "success" => format!("exit status {}", self.status),
            other => format!("{other} (status {})", self.status),
        }
    }
}

/// The service manager did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the service manager did not {action} {unit}: {cause}")]
pub struct UnitsError {
    /// A verb: `start`.
    pub action: &'static str,
    /// Which unit.
    pub unit: String,
    /// What the manager said, or why it could not be asked.
    pub cause: String,
}

impl UnitsError {
    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        Diagnosis::new(Code::ServiceManagerFailed, phase)
            .with("action", self.action)
            .with("unit", self.unit)
            .with("error", self.cause)
    }
}
