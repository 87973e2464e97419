//! Conditions in the Kubernetes manner: `kubectl wait --for=condition=Ready`.

use berth_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// One condition. Its last transition is kept as long as its status is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the object that it was set for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its status last changed.
    pub last_transition_time: Timestamp,
    /// One word in camel case.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Sets a condition, and keeps the moment of its last change where it says the same.
pub(super) fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = conditions.iter_mut().find(|old| old.kind == new.kind) {
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time;
        }
        *old = new;
    } else {
        conditions.push(new);
    }
}

/// A condition that holds or does not.
pub(super) fn condition(
    kind: &str,
    holds: bool,
    at: Timestamp,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        observed_generation: None,
        last_transition_time: at,
        reason: reason.into(),
        message: message.into(),
    }
}
