//! How a join stands, told to whoever watches it.

use std::sync::{Mutex, PoisonError};

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::Finished;
use tokio::sync::Notify;

use crate::ports::Clock;

/// How a join stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase it is in.
    pub phase: Phase,
    /// Since when it is in it, or since when it waits.
    pub since: Timestamp,
    /// What it waits for; it goes on by itself.
    pub waiting_for: Option<Diagnosis>,
}

/// Who watches a join. Nothing here may take long: the join waits for it.
pub trait Observer: Send + Sync {
    /// The join begins, within this trace: 32 hexadecimal digits.
    fn began(&self, trace_id: Option<&str>) {
        let _ = trace_id;
    }

    /// The join stands otherwise than before.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }

    /// A phase ended, well or not.
    fn finished(&self, finished: &Finished) {
        let _ = finished;
    }

    /// No CA is pinned: the proof alone tells the server from another. Said at
    /// each attempt.
    fn unpinned(&self) {}

    /// The join passes one of [`POINTS`], right before or right after an effect
    /// that lasts. Tests end the process there.
    fn passing(&self, point: &'static str) {
        let _ = point;
    }
}

/// An observer that does not look.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Observer for Nobody {}

/// The points of [`Observer::passing`], in the order of a join.
pub const POINTS: [&str; 13] = [
    "before-prepare",
    "after-prepare",
    "before-credential",
    "after-credential",
    "before-token-forgotten",
    "after-token-forgotten",
    "after-software",
    "before-apply",
    "after-apply",
    "before-register",
    "after-register",
    "before-ready",
    "after-ready",
];

/// Keeps the progress of one join, and tells of each change once.
pub(crate) struct Teller<'a> {
    observer: &'a dyn Observer,
    clock: &'a dyn Clock,
    stands: Mutex<Progress>,
    waits: Notify,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(observer: &'a dyn Observer, clock: &'a dyn Clock) -> Self {
        let stands = Progress { phase: Phase::Initialization, since: clock.now(), waiting_for: None };
        observer.progress(&stands);
        Self { observer, clock, stands: Mutex::new(stands), waits: Notify::new() }
    }

    /// A phase begins. What an attempt before stopped at is waited for until its
    /// phase is passed.
    pub(crate) fn phase(&self, phase: Phase) {
        self.change(|stands| {
            let moved = stands.phase != phase;
            stands.phase = phase;
            let passed = stands.waiting_for.take_if(|why| why.phase() < phase);
            moved | passed.is_some()
        });
    }

    /// The join waits; its phase is the one in which the cause was found.
    pub(crate) fn waiting(&self, why: &Diagnosis) {
        self.change(|stands| {
            let moved = stands.waiting_for.as_ref() != Some(why);
            stands.waiting_for = Some(why.clone());
            moved
        });
        self.waits.notify_one();
    }

    /// Ends when the join waits for something.
    pub(crate) async fn waits(&self) {
        self.waits.notified().await;
    }

    /// What the join waited for is there.
    pub(crate) fn going_on(&self) {
        self.change(|stands| stands.waiting_for.take().is_some());
    }

    pub(crate) fn passing(&self, point: &'static str) {
        self.observer.passing(point);
    }

    pub(crate) fn unpinned(&self) {
        self.observer.unpinned();
    }

    pub(crate) fn finished(&self, finished: &Finished) {
        self.observer.finished(finished);
    }

    pub(crate) fn stands(&self) -> Progress {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Progress) -> bool) {
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stands.waiting_for.as_ref().map(Diagnosis::code);
        if !change(&mut stands) {
            return;
        }
        // A wait whose values move, such as a place in a queue, is the same wait.
        if before.is_none() || before != stands.waiting_for.as_ref().map(Diagnosis::code) {
            stands.since = self.clock.now();
        }
        let told = stands.clone();
        drop(stands);
        self.observer.progress(&told);
    }
}
