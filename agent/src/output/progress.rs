//! A join while it goes on: a bar on a terminal, plain lines elsewhere, JSON
//! lines for programs. A wait is told once, and again when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_telemetry::Outcome;
use serde::Serialize;

use super::bar::Bar;
use super::{DiagnosisView, ERROR, OK, WARNING, say_json, tell, wait};

/// One step of a join, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Step {
    /// A phase began.
    PhaseBegan {
        /// Which.
        phase: &'static str,
    },
    /// The join waits, and goes on by itself.
    Waiting {
        /// For what.
        diagnosis: DiagnosisView,
    },
    /// A phase ended.
    PhaseEnded {
        /// Which.
        phase: &'static str,
        /// How: a word of [`Outcome`].
        outcome: &'static str,
        /// How long it took.
        elapsed_millis: u64,
    },
}

/// Where a join's progress goes.
#[derive(Debug)]
enum Stage {
    Nowhere,
    Lines,
    Bar(Bar),
    Json,
}

/// Tells how a join goes on. A join that waits passes its first phases again
/// and again; people read of each phase once, when it was passed.
#[derive(Debug)]
pub struct Progress {
    stage: Stage,
    told: Option<(Code, String)>,
    begun: BTreeMap<Phase, Instant>,
    passed: BTreeSet<Phase>,
}

impl Progress {
    /// Says nothing.
    #[must_use]
    pub const fn quiet() -> Self {
        Self::on(Stage::Nowhere)
    }

    /// JSON lines on standard output.
    #[must_use]
    pub const fn json() -> Self {
        Self::on(Stage::Json)
    }

    /// Lines on standard error, below them a bar if that is a terminal.
    #[must_use]
    pub fn people(interactive: bool) -> Self {
        Self::on(if interactive { Stage::Bar(Bar::over(Phase::ALL.len())) } else { Stage::Lines })
    }

    const fn on(stage: Stage) -> Self {
        Self { stage, told: None, begun: BTreeMap::new(), passed: BTreeSet::new() }
    }

    /// A phase begins.
    pub fn began(&mut self, phase: Phase) {
        self.begun.entry(phase).or_insert_with(Instant::now);
        match &self.stage {
            Stage::Nowhere | Stage::Lines => {}
            Stage::Bar(bar) => bar.step(place(phase), phase.as_str()),
            Stage::Json => json(&Step::PhaseBegan { phase: phase.as_str() }),
        }
    }

    /// The join waits. The same cause with the same mend is told once, though
    /// its values, such as a place in a queue, may move.
    pub fn waiting(&mut self, why: &Diagnosis) {
        if let Stage::Bar(bar) = &self.stage {
            bar.say(&why.cause());
        }
        let told = Some((why.code(), why.mend()));
        if self.told == told {
            return;
        }
        self.told = told;
        match &self.stage {
            Stage::Nowhere => {}
            Stage::Lines => tell(&wait(why)),
            Stage::Bar(bar) => bar.suspend(|| tell(&wait(why))),
            Stage::Json => json(&Step::Waiting { diagnosis: why.into() }),
        }
    }

    /// A phase ended. One that did not end well is told by the wait or the
    /// refusal that follows.
    pub fn ended(&mut self, phase: Phase, outcome: Outcome, elapsed: Duration) {
        if let Stage::Json = self.stage {
            json(&Step::PhaseEnded {
                phase: phase.as_str(),
                outcome: outcome.as_str(),
                elapsed_millis: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            });
        }
        if outcome != Outcome::Ok || !self.passed.insert(phase) {
            return;
        }
        self.told = None;
        // With the waits within it: what a person has waited.
        let elapsed = self.begun.get(&phase).map_or(elapsed, Instant::elapsed);
        match &self.stage {
            Stage::Nowhere | Stage::Json => {}
            Stage::Lines => tell(&line(phase, outcome, elapsed)),
            Stage::Bar(bar) => {
                bar.step(place(phase) + 1, phase.as_str());
                bar.suspend(|| tell(&line(phase, outcome, elapsed)));
            }
        }
    }

    /// The join is over: nothing of the bar stays.
    pub fn close(&mut self) {
        if let Stage::Bar(bar) = std::mem::replace(&mut self.stage, Stage::Nowhere) {
            bar.close();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.close();
    }
}

/// A phase that ended, as a line.
#[must_use]
pub fn line(phase: Phase, outcome: Outcome, elapsed: Duration) -> String {
    let paint = match outcome {
        Outcome::Ok => OK,
        Outcome::Waiting | Outcome::Cancelled => WARNING,
        Outcome::Refused | Outcome::Failed => ERROR,
    };
    format!("{phase:<16} {paint}{outcome:<9}{paint:#} {}\n", short(elapsed))
}

/// A duration in few characters: `12ms`, `2.1s`, `1m 30s`.
#[must_use]
pub fn short(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ => humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string(),
    }
}

/// How many phases come before.
fn place(phase: Phase) -> usize {
    Phase::ALL.iter().take_while(|before| **before != phase).count()
}

/// A reader that has gone away misses nothing but progress.
fn json(step: &Step) {
    let _ = say_json(step);
}
