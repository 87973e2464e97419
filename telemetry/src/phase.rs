//! The spans of a join and of its phases, and how they end: each with an
//! outcome, also when its future is dropped half-way.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis, Exit};
use berth_domain::phase::Phase;
use opentelemetry::trace::Status;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::names::{attribute, span};
use crate::propagation;

/// How something ended: `berth.outcome` in spans, `outcome` in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// One side decided against it.
    Refused,
    /// It could not be done.
    Failed,
    /// It stopped to wait, and goes on by itself.
    Waiting,
    /// It was given up from outside before it ended.
    Cancelled,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Refused, Self::Failed, Self::Waiting, Self::Cancelled];

    /// The outcome's name, as it stands in spans and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a trace should show it as an error.
    const fn is_error(self) -> bool {
        match self {
            Self::Refused | Self::Failed => true,
            Self::Ok | Self::Waiting | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error that knows its code of the closed list.
pub trait Coded {
    /// The code.
    fn code(&self) -> Code;

    /// How what it ended is to be counted: what the code's exit status says.
    fn outcome(&self) -> Outcome {
        match self.code().exit() {
            Exit::Refused | Exit::Denied => Outcome::Refused,
            Exit::Interrupted => Outcome::Cancelled,
            Exit::Other | Exit::Preflight | Exit::Usage | Exit::Unreachable | Exit::NotReady => {
                Outcome::Failed
            }
        }
    }
}

impl Coded for Diagnosis {
    fn code(&self) -> Code {
        Self::code(self)
    }
}

/// What is known when a phase has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which phase.
    pub phase: Phase,
    /// How.
    pub outcome: Outcome,
    /// Why, where it did not go well.
    pub code: Option<Code>,
    /// How long it took.
    pub elapsed: Duration,
    /// The trace it belongs to, 32 hex digits.
    pub trace_id: Option<String>,
}

/// The root of a trace: attempt number `attempt` (from 1) of the agent to
/// join. Join id and node name are recorded once they are known.
#[must_use]
pub fn join_span(attempt: u32) -> Span {
    tracing::info_span!(
        parent: None,
        span::JOIN,
        { attribute::ATTEMPT } = attempt,
        { attribute::JOIN_ID } = Empty,
        { attribute::NODE_NAME } = Empty,
        { attribute::CLUSTER_UID } = Empty,
        { attribute::OUTCOME } = Empty,
        { attribute::CODE } = Empty,
    )
}

/// The span of a phase, named as the phase, a child of the current span.
#[must_use]
pub fn phase_span(phase: Phase) -> Span {
    // A span's name is part of its call site, hence five of them.
    macro_rules! named {
        ($phase:path) => {
            tracing::info_span!(
                $phase.as_str(),
                { attribute::PHASE } = $phase.as_str(),
                { attribute::OUTCOME } = Empty,
                { attribute::CODE } = Empty,
            )
        };
    }
    match phase {
        Phase::Initialization => named!(Phase::Initialization),
        Phase::Authentication => named!(Phase::Authentication),
        Phase::Authorization => named!(Phase::Authorization),
        Phase::Configuration => named!(Phase::Configuration),
        Phase::Registration => named!(Phase::Registration),
    }
}

/// Records on a span of this module or of [`crate::effect`] how it ended.
pub fn finish(span: &Span, outcome: Outcome, code: Option<Code>) {
    span.record(attribute::OUTCOME, outcome.as_str());
    if let Some(code) = code {
        span.record(attribute::CODE, code.as_str());
    }
    if outcome.is_error() {
        // The code only: free text here could be a peer's.
        span.set_status(Status::error(code.map_or("", Code::as_str)));
    }
}

/// Runs a phase in its span and records how it ended.
///
/// # Errors
///
/// Those of the phase.
pub async fn observed<T, E: Coded>(phase: Phase, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    watched(phase, work, |_| {}).await
}

/// Runs a phase in its span, records how it ended, and tells `tell` once, also
/// when the phase is dropped before its end. It is the place for metrics.
///
/// # Errors
///
/// Those of the phase.
pub async fn watched<T, E: Coded>(
    phase: Phase,
    work: impl Future<Output = Result<T, E>>,
    tell: impl FnOnce(&Finished),
) -> Result<T, E> {
    let span = phase_span(phase);
    let mut watch = Watch { span: span.clone(), phase, begun: Instant::now(), tell: Some(tell) };
    let result = work.instrument(span).await;
    match &result {
        Ok(_) => watch.end(Outcome::Ok, None),
        Err(error) => watch.end(error.outcome(), Some(error.code())),
    }
    result
}

struct Watch<F: FnOnce(&Finished)> {
    span: Span,
    phase: Phase,
    begun: Instant,
    tell: Option<F>,
}

impl<F: FnOnce(&Finished)> Watch<F> {
    fn end(&mut self, outcome: Outcome, code: Option<Code>) {
        let Some(tell) = self.tell.take() else { return };
        finish(&self.span, outcome, code);
        let finished = Finished {
            phase: self.phase,
            outcome,
            code,
            elapsed: self.begun.elapsed(),
            trace_id: propagation::trace_id(&self.span),
        };
        // Outcome and code stand in the line already, as fields of the span. A join that
        // goes well is one line, of its last phase: each line is a write of its own.
        let elapsed = finished.elapsed;
        self.span.in_scope(|| match (outcome, self.phase) {
            (
                Outcome::Ok,
                Phase::Initialization | Phase::Authentication | Phase::Authorization | Phase::Configuration,
            ) => {
                tracing::debug!(?elapsed, "phase ended");
            }
            _ => tracing::info!(?elapsed, "phase ended"),
        });
        tell(&finished);
    }
}

impl<F: FnOnce(&Finished)> Drop for Watch<F> {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled, None);
    }
}
