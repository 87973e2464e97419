//! A diagnosis as people and programs read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use berth_domain::diagnosis::{Diagnosis, Retry};
use serde::Serialize;

use super::{BOLD, ERROR, FAINT, WARNING};

/// A diagnosis for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosisView {
    /// The stable code.
    pub code: &'static str,
    /// The phase in which the cause was found.
    pub phase: &'static str,
    /// The cause in one sentence.
    pub cause: String,
    /// The command or change that mends it.
    pub mend: String,
    /// The values that prove the cause.
    pub values: BTreeMap<String, String>,
    /// Where the documentation says more.
    pub docs: String,
    /// Milliseconds until asking again can help; absent where something must
    /// change first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_millis: Option<u64>,
}

impl From<&Diagnosis> for DiagnosisView {
    fn from(diagnosis: &Diagnosis) -> Self {
        Self {
            code: diagnosis.code().as_str(),
            phase: diagnosis.phase().as_str(),
            cause: diagnosis.cause(),
            mend: diagnosis.mend(),
            values: diagnosis.values().map(|(key, value)| (key.to_owned(), value.text.clone())).collect(),
            docs: diagnosis.anchor(),
            retry_after_millis: match diagnosis.when_to_retry() {
                Retry::Never => None,
                Retry::After(after) => Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            },
        }
    }
}

/// What ended a command, for people: the code, the cause, the values that
/// prove it, the mend, where to read more, and the trace.
#[must_use]
pub fn refusal(diagnosis: &Diagnosis, trace_id: Option<&str>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{ERROR}error: {}{ERROR:#} in {}", diagnosis.code(), diagnosis.phase());
    let values: Vec<_> = diagnosis.values().map(|(key, value)| (key, value.text.as_str())).collect();
    let mut line = |label: &str, said: &str| {
        let _ = writeln!(text, "  {FAINT}{label:<7}{FAINT:#} {said}");
    };
    line("cause:", &diagnosis.cause());
    for (index, (key, value)) in values.iter().enumerate() {
        line(if index == 0 { "values:" } else { "" }, &format!("{key} = {value}"));
    }
    line("mend:", &format!("{BOLD}{}{BOLD:#}", diagnosis.mend()));
    line("docs:", &diagnosis.anchor());
    if let Some(trace_id) = trace_id {
        line("trace:", trace_id);
    }
    text
}

/// What a join waits for, for people: the code and cause, then the mend.
#[must_use]
pub fn wait(diagnosis: &Diagnosis) -> String {
    format!(
        "{:<16} {WARNING}waiting{WARNING:#}   {}\n{:16} mend: {}\n",
        diagnosis.phase(),
        diagnosis,
        "",
        diagnosis.mend()
    )
}
