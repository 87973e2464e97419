//! What operators ask of a server: berth.admin.v1. A request with wrong fields is
//! told all of them at once.

mod tokens;

pub use tokens::{DEFAULT_TTL, LONGEST_TTL, NewToken, SHORTEST_TTL, new_token_from_wire};

/// berth.admin.v1, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
pub mod v1 {
    tonic::include_proto!("berth.admin.v1");
}

use std::fmt::Display;
use std::str::FromStr;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The longest words of a person (description, reason), in bytes.
pub const LONGEST_WORDS: usize = 256;

/// One wrong field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, as the proto file names it.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// A request with wrong fields: all of them, not only the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvalidRequest {
    violations: Vec<Violation>,
}

impl InvalidRequest {
    /// The wrong fields.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The status that ends the call: `INVALID_ARGUMENT` with google.rpc.BadRequest.
    #[must_use]
    pub fn into_status(self) -> Status {
        let mut details = ErrorDetails::new();
        let mut sentences = Vec::new();
        for violation in self.violations {
            sentences.push(format!("{}: {}", violation.field, violation.problem));
            details.add_bad_request_violation(violation.field, violation.problem);
        }
        Status::with_error_details(Code::InvalidArgument, sentences.join("; "), details)
    }

    /// The wrong fields that a status names; none if it names none.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let named = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        let violations = named.into_iter().map(|it| Violation { field: it.field, problem: it.description });
        Self { violations: violations.collect() }
    }

    /// Notes a wrong field.
    fn note(&mut self, field: impl Into<String>, problem: impl Display) {
        self.violations.push(Violation { field: field.into(), problem: problem.to_string() });
    }

    /// The value of a field, or a note of what is wrong with it.
    fn take<T, E: Display>(&mut self, field: impl Into<String>, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|problem| self.note(field, problem)).ok()
    }

    /// The same for a text with a grammar.
    fn parse<T: FromStr<Err: Display>>(&mut self, field: impl Into<String>, text: &str) -> Option<T> {
        self.take(field, text.parse())
    }

    /// What was built from the fields, if none was wrong.
    fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            Some(_) | None => Err(self),
        }
    }
}

/// A person's words, fit to be kept and shown.
///
/// # Errors
/// They are longer than [`LONGEST_WORDS`], or would draw on a terminal (SECURITY R24).
pub fn words_from_wire(field: &'static str, words: String) -> Result<String, InvalidRequest> {
    let mut invalid = InvalidRequest::default();
    let words = invalid.take(field, words_fit(words));
    invalid.finish(words)
}

/// One field by its grammar.
///
/// # Errors
/// Names the field and what is wrong with it.
pub fn parse_field<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, InvalidRequest> {
    let mut invalid = InvalidRequest::default();
    let value = invalid.parse(field, text);
    invalid.finish(value)
}

fn words_fit(words: String) -> Result<String, WordsUnfit> {
    if words.len() > LONGEST_WORDS {
        return Err(WordsUnfit::TooLong(words.len()));
    }
    if words.chars().any(char::is_control) {
        return Err(WordsUnfit::ControlCharacters);
    }
    Ok(words)
}

/// Words that are not kept.
#[derive(Debug, thiserror::Error)]
enum WordsUnfit {
    #[error("it has {0} bytes and may have {LONGEST_WORDS}; say it shorter")]
    TooLong(usize),
    #[error("it has control characters; write it on one line of plain text")]
    ControlCharacters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named_and_comes_back_from_the_status() {
        let mut invalid = InvalidRequest::default();
        invalid.note("ttl_ms", "too long");
        invalid.note("binding.uses", "too many");
        let status = invalid.clone().into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(InvalidRequest::from_status(&status), invalid);
    }

    #[test]
    fn words_cannot_move_the_cursor() {
        let refused = words_from_wire("reason", "a\u{1b}[2J".to_owned()).expect_err("an escape sequence");
        assert_eq!(refused.violations()[0].field, "reason");
        assert!(words_from_wire("reason", "x".repeat(LONGEST_WORDS + 1)).is_err());
        assert_eq!(words_from_wire("reason", "stolen".to_owned()), Ok("stolen".to_owned()));
    }
}
