//! What the service manager is told: readiness, one line of status, and that
//! the process lives (sd_notify(3)). Without a service manager nobody is told.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::attendance::Told;

/// How often the manager is told at least.
const PERIOD: Duration = Duration::from_secs(15);

/// How long it is to wait for the next word, in microseconds.
const GRACE_MICROS: u32 = 60_000_000;

/// The service manager, if one started this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    /// Whoever started this process.
    #[must_use]
    pub(super) fn of_this_process() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// The node attends: units that wait for this one may start.
    pub(super) fn ready(self) {
        notify(&[NotifyState::Ready]);
    }

    /// One line for `systemctl status`.
    pub(super) fn status(self, line: &str) {
        notify(&[NotifyState::Status(line)]);
    }

    /// The process is about to end.
    pub(super) fn stopping(self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Tells of life until dropped: at half the time that the manager's watchdog
    /// allows, and often enough that a join may wait as long as it must.
    pub(super) async fn keep_alive(self) {
        let period = self.watchdog.map_or(PERIOD, |watchdog| (watchdog / 2).min(PERIOD));
        let mut tick = tokio::time::interval(period.max(Duration::from_millis(10)));
        loop {
            tick.tick().await;
            // Once the service is ready, the manager ignores the second.
            notify(&[NotifyState::Watchdog, NotifyState::ExtendTimeoutUsec(GRACE_MICROS)]);
        }
    }

    /// How the attendance stands.
    pub(super) fn told(self, told: &Told) {
        match told {
            Told::Attending => {
                tracing::info!("attending");
                self.ready();
                self.status("Attending");
            }
            Told::Away(why) => {
                tracing::warn!(%why, mend = why.mend(), "away from the server");
                self.status(&format!("Away from the server: {why}"));
            }
            Told::Renewed { not_after } => {
                tracing::info!(%not_after, "the certificate was renewed");
                self.status(&format!("Attending; certificate renewed, good until {not_after}"));
            }
        }
    }
}

/// A manager that cannot be told is no reason to stop.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
