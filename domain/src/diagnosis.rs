//! Why a join waits or stops: one code of a closed list, the values that prove
//! it, and how to mend it. The agent's terminal, the operator's `joins explain`
//! and the trace all show this one value.

mod catalogue;
mod code;

pub use code::{Code, Exit, NotACode};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::Phase;

/// The most values one diagnosis carries.
pub const MOST_VALUES: usize = 16;

/// The longest value, in bytes; what is longer is cut at a character boundary.
pub const LONGEST_VALUE: usize = 512;

/// Whether asking again can help, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "after")]
pub enum Retry {
    /// The same attempt will be refused again: something must change first.
    Never,
    /// The join may go on by itself after this time at the earliest.
    After(#[serde(with = "whole_millis")] Duration),
}

/// Who may read a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Both the machine that joins and the operators.
    Everyone,
    /// Operators only: it would tell a stranger about other machines or tokens.
    Operators,
}

/// One value that proves a cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// What it says, at most [`LONGEST_VALUE`] bytes.
    pub text: String,
    /// Who may read it.
    pub audience: Audience,
}

/// A cause with its evidence. Sentences are made from it, never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    code: Code,
    phase: Phase,
    retry: Retry,
    values: BTreeMap<Cow<'static, str>, Value>,
}

impl Diagnosis {
    /// A cause found in `phase`, with the retry that is usual for its code.
    #[must_use]
    pub fn new(code: Code, phase: Phase) -> Self {
        Self { code, phase, retry: code.usual_retry(), values: BTreeMap::new() }
    }

    /// Adds a value that everyone may read.
    #[must_use]
    pub fn with(self, key: impl Into<Cow<'static, str>>, text: impl fmt::Display) -> Self {
        self.with_value(key.into(), text.to_string(), Audience::Everyone)
    }

    /// Adds a value that only operators may read.
    #[must_use]
    pub fn with_private(self, key: impl Into<Cow<'static, str>>, text: impl fmt::Display) -> Self {
        self.with_value(key.into(), text.to_string(), Audience::Operators)
    }

    /// Says when asking again can help.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The phase in which the cause was found.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether and when asking again can help.
    #[must_use]
    pub const fn when_to_retry(&self) -> Retry {
        self.retry
    }

    /// The values, by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// One value's text, if it is there.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.text.as_str())
    }

    /// What a machine that joins may know: the same without private values.
    #[must_use]
    pub fn told(&self) -> Self {
        let mut told = self.clone();
        told.values.retain(|_, value| value.audience == Audience::Everyone);
        told
    }

    /// One sentence that names the cause with the values that prove it.
    #[must_use]
    pub fn cause(&self) -> String {
        self.fill(catalogue::cause(self.code))
    }

    /// One sentence that names the command or change that mends it.
    #[must_use]
    pub fn mend(&self) -> String {
        self.fill(catalogue::mend(self.code))
    }

    /// Where the documentation explains the code.
    #[must_use]
    pub fn anchor(&self) -> String {
        format!("docs/diagnosis.md#{}", self.code.as_str().to_ascii_lowercase())
    }

    fn with_value(mut self, key: Cow<'static, str>, text: String, audience: Audience) -> Self {
        if self.values.len() < MOST_VALUES || self.values.contains_key(&key) {
            self.values.insert(key, Value { text: printable(&text), audience });
        }
        self
    }

    /// Puts values into a template's `{key}` places. A clause in `[…]` is left
    /// out when one of its values is missing, so that what the reader may not
    /// see leaves no hole in the sentence.
    fn fill(&self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, from)) = rest.split_once('[') {
            let (clause, after) = from.split_once(']').unwrap_or((from, ""));
            out.push_str(&self.fill_places(before).0);
            let (filled, whole) = self.fill_places(clause);
            if whole {
                out.push_str(&filled);
            }
            rest = after;
        }
        out.push_str(&self.fill_places(rest).0);
        out
    }

    fn fill_places(&self, template: &str) -> (String, bool) {
        let mut out = String::new();
        let mut whole = true;
        let mut rest = template;
        while let Some((before, from)) = rest.split_once('{') {
            let (key, after) = from.split_once('}').unwrap_or((from, ""));
            out.push_str(before);
            match self.value(key) {
                Some(text) => out.push_str(text),
                None => {
                    whole = false;
                    out.push_str("(unknown)");
                }
            }
            rest = after;
        }
        out.push_str(rest);
        (out, whole)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.cause())
    }
}

impl std::error::Error for Diagnosis {}

/// Text of a peer as it may stand on a terminal: control characters are
/// replaced, so that no escape sequence gets through, and the length is bounded.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST_VALUE));
    for character in text.chars() {
        let character = if character.is_control() { '\u{fffd}' } else { character };
        if out.len() + character.len_utf8() > LONGEST_VALUE {
            break;
        }
        out.push(character);
    }
    out
}

mod whole_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_not_told_what_only_operators_may_know() {
        let spent = Diagnosis::new(Code::TokenSpent, Phase::Authentication)
            .with("token", "aaaaaaaaaa")
            .with("uses", 1)
            .with_private("usedBy", "rack1-n7");
        assert_eq!(spent.value("usedBy"), Some("rack1-n7"));
        assert!(spent.cause().contains("rack1-n7"), "{}", spent.cause());
        assert_eq!(spent.told().value("usedBy"), None);
        assert!(!spent.told().cause().contains("(unknown)"), "{}", spent.told().cause());
    }

    #[test]
    fn a_value_from_a_peer_cannot_move_the_cursor_or_fill_the_screen() {
        let value = format!("\u{1b}[2Jx\n{}", "y".repeat(4096));
        let diagnosis = Diagnosis::new(Code::Unexplained, Phase::Registration).with("evidence", value);
        let text = diagnosis.value("evidence").expect("it was just put in");
        assert!(!text.contains('\u{1b}') && !text.contains('\n'));
        assert!(text.len() <= LONGEST_VALUE);
    }

    #[test]
    fn every_code_is_explained_and_survives_its_own_name() {
        for code in Code::ALL {
            let diagnosis = Diagnosis::new(code, Phase::Initialization);
            assert!(!diagnosis.cause().is_empty() && !diagnosis.mend().is_empty(), "{code}");
            assert_eq!(code.as_str().parse::<Code>(), Ok(code));
        }
    }
}
