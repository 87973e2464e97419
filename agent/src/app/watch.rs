//! Who watches a join: the person or program at its output, the service
//! manager, and the tests that end the process half-way.

use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_domain::phase::Phase;
use berth_telemetry::Finished;

use super::service::Service;
use crate::join::{Observer, POINTS, Progress};
use crate::output;

/// One of [`POINTS`], where a test ends the process (`--crash-at`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CrashPoint(&'static str);

impl CrashPoint {
    /// The point of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        POINTS.into_iter().find(|point| *point == name).map(Self)
    }
}

/// Tells of a join wherever that is wanted.
pub(super) struct Watch {
    seen: Mutex<Seen>,
    service: Service,
    crash_at: Option<CrashPoint>,
}

struct Seen {
    output: output::Progress,
    phase: Option<Phase>,
    trace_id: Option<String>,
    unpinned: bool,
}

impl Watch {
    pub(super) const fn new(
        output: output::Progress,
        service: Service,
        crash_at: Option<CrashPoint>,
    ) -> Self {
        Self {
            seen: Mutex::new(Seen { output, phase: None, trace_id: None, unpinned: false }),
            service,
            crash_at,
        }
    }

    /// The trace of the last attempt.
    pub(super) fn trace_id(&self) -> Option<String> {
        self.seen().trace_id.clone()
    }

    /// The join is over: what is said next stands on a line of its own.
    pub(super) fn close(&self) {
        self.seen().output.close();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watch {
    fn began(&self, trace_id: Option<&str>) {
        self.seen().trace_id = trace_id.map(str::to_owned);
    }

    fn progress(&self, progress: &Progress) {
        let mut seen = self.seen();
        if seen.phase.replace(progress.phase) != Some(progress.phase) {
            seen.output.began(progress.phase);
        }
        match &progress.waiting_for {
            Some(why) => {
                seen.output.waiting(why);
                self.service.status(&format!("{}: waits for {why}", progress.phase));
            }
            None => self.service.status(&format!("Joining: {}", progress.phase)),
        }
    }

    fn finished(&self, finished: &Finished) {
        self.seen().output.ended(finished.phase, finished.outcome, finished.elapsed);
    }

    fn unpinned(&self) {
        // Once is enough, however often the join begins again.
        if !std::mem::replace(&mut self.seen().unpinned, true) {
            output::tell(&output::note(output::UNPINNED));
        }
    }

    fn passing(&self, point: &'static str) {
        if self.crash_at == Some(CrashPoint(point)) {
            std::process::abort();
        }
    }
}
