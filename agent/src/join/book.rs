//! The join's way into the journal: how far it has come, and what it waits for.

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_telemetry::propagation;
use tracing::Span;

use crate::ports::{Clock, FileError, Journal, JournalEntry, Standing};

/// The journal of one join.
pub(crate) struct Book<'a> {
    journal: &'a dyn Journal,
    clock: &'a dyn Clock,
    trace: Trace,
}

/// The trace that shows a join.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// Its id.
    pub(crate) id: Option<String>,
    /// Its root's `traceparent`.
    pub(crate) parent: Option<String>,
}

impl Trace {
    /// The trace whose root is this span.
    pub(crate) fn of(root: &Span) -> Self {
        Self { id: propagation::trace_id(root), parent: propagation::traceparent(root) }
    }
}

impl<'a> Book<'a> {
    pub(crate) const fn new(journal: &'a dyn Journal, clock: &'a dyn Clock, trace: Trace) -> Self {
        Self { journal, clock, trace }
    }

    /// Links the root of a new trace to the trace of the join before.
    pub(crate) fn link(&self, root: &Span) {
        let former = self.journal.load().ok().and_then(|loaded| loaded.entry.traceparent);
        if let Some(former) = former {
            propagation::link(root, &former);
        }
    }

    /// How far the machine had come.
    pub(crate) fn standing(&self) -> Result<Standing, Diagnosis> {
        let loaded = self.journal.load().map_err(|error| error.into_diagnosis(Phase::Initialization))?;
        if let Some(path) = &loaded.set_aside {
            tracing::warn!(path = %path.display(), "the journal could not be read and was set aside");
        }
        Ok(loaded.entry.standing)
    }

    /// The machine has come this far.
    pub(crate) fn reached(&self, standing: Standing, phase: Phase) -> Result<(), Diagnosis> {
        self.save(standing, None).map_err(|error| error.into_diagnosis(phase))
    }

    /// The join waits or stops here. That it cannot be kept is no reason to stop.
    pub(crate) fn stopped(&self, why: &Diagnosis) {
        let standing = self.journal.load().map(|loaded| loaded.entry.standing);
        if let Err(error) = standing.and_then(|standing| self.save(standing, Some(why.clone()))) {
            tracing::warn!(%error, "why the join waits was not kept");
        }
    }

    /// What was waited for is there.
    pub(crate) fn going_on(&self) {
        let Ok(loaded) = self.journal.load() else { return };
        if loaded.entry.diagnosis.is_some()
            && let Err(error) = self.save(loaded.entry.standing, None)
        {
            tracing::warn!(%error, "that the node attends again was not kept");
        }
    }

    fn save(&self, standing: Standing, diagnosis: Option<Diagnosis>) -> Result<(), FileError> {
        // Attendance is part of no join: the trace of the last one stays.
        let Trace { id: trace, parent: traceparent } = match &self.trace {
            Trace { id: None, .. } => {
                let former = self.journal.load()?.entry;
                Trace { id: former.trace, parent: former.traceparent }
            }
            own @ Trace { id: Some(_), .. } => own.clone(),
        };
        let updated = self.clock.now();
        self.journal.save(&JournalEntry { standing, trace, traceparent, diagnosis, updated })
    }
}
