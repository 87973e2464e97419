//! The spans of effects: what a join changes in the world, beside its phases.

use std::fmt;
use std::future::Future;

use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::names::{attribute, span};
use crate::phase::{Coded, Outcome, finish};
use crate::uncollected;

/// Something that changes the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// One use of a token is reserved for a key.
    Redeem,
    /// A node name is bound to a machine.
    Bind,
    /// A certificate is signed.
    Sign,
    /// An audit event or a state change is made durable.
    Record,
    /// A plan is carried out on the host, or a Node is changed.
    Apply,
    /// A certificate is renewed.
    Renewal,
    /// A node attends.
    Attendance,
}

impl Effect {
    /// The effect's name, as it stands in spans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redeem => span::REDEEM,
            Self::Bind => span::BIND,
            Self::Sign => span::SIGN,
            Self::Record => span::RECORD,
            Self::Apply => span::APPLY,
            Self::Renewal => span::RENEWAL,
            Self::Attendance => span::ATTENDANCE,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The span of an effect, named as the effect, a child of the current span.
#[must_use]
pub fn effect_span(effect: Effect) -> Span {
    // A span's name is part of its call site, hence one for each.
    macro_rules! named {
        ($name:path) => {
            tracing::info_span!(
                $name,
                { attribute::NODE_NAME } = Empty,
                { attribute::OUTCOME } = Empty,
                { attribute::CODE } = Empty,
            )
        };
    }
    match effect {
        Effect::Redeem => named!(span::REDEEM),
        Effect::Bind => named!(span::BIND),
        Effect::Sign => named!(span::SIGN),
        Effect::Record => named!(span::RECORD),
        Effect::Apply => named!(span::APPLY),
        Effect::Renewal => named!(span::RENEWAL),
        Effect::Attendance => named!(span::ATTENDANCE),
    }
}

/// Runs an effect in its span and records how it ended. Where nobody collects spans it
/// has none: its phase's, by which logs and calls go, is enough.
///
/// # Errors
///
/// Those of the effect.
pub async fn performed<T, E: Coded>(
    effect: Effect,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if uncollected::is_everything() {
        return work.await;
    }
    let span = effect_span(effect);
    let result = work.instrument(span.clone()).await;
    match &result {
        Ok(_) => finish(&span, Outcome::Ok, None),
        Err(error) => finish(&span, error.outcome(), Some(error.code())),
    }
    result
}
