//! The checklist as text, in the manner of `linkerd check`, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style as Paint};
use serde::Serialize;

use super::{CheckResult, Group, Outcome};

/// How the text is drawn. Colours are always in it: the stream it is written
/// to takes them out where they are not wanted (`anstream`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Marks in ASCII, for terminals without UTF-8.
    pub ascii: bool,
    /// Only what is not as it should be; the closing line counts all the same.
    pub short: bool,
}

/// The checklist for machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether no check failed.
    pub success: bool,
    /// The checks by heading.
    pub categories: Vec<Category>,
}

/// The checks under one heading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Category {
    /// The heading.
    pub name: &'static str,
    /// Its checks, in order.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The stable id.
    pub id: &'static str,
    /// What should be so.
    pub description: &'static str,
    /// `success`, `warning` or `error`.
    pub result: &'static str,
    /// The diagnosis code, where the cause has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The cause in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The mend, and where the documentation says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether it would have failed, and the policy said to go on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// The values that it looked at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub finding: BTreeMap<String, String>,
}

/// The checklist for people: headings underlined, a mark for each check, and
/// below a failed one its cause, its mend and where to read more.
#[must_use]
pub fn render(results: &[CheckResult], style: Style) -> String {
    let mut out = String::new();
    let is_shown = |result: &&CheckResult| !style.short || result.outcome != Outcome::Ok;
    for (group, results) in by_group(results.iter().filter(is_shown)) {
        let heading = group.as_str();
        let _ = writeln!(out, "{BOLD}{heading}{BOLD:#}\n{}", "-".repeat(heading.len()));
        for result in results {
            let _ = writeln!(out, "{} {}", mark(result.outcome, style), result.description);
            let ignored = if result.ignored { " (ignored)" } else { "" };
            if let Some(told) = &result.told {
                let _ = writeln!(out, "    {told}{ignored}");
            }
            if let Some(mend) = &result.mend {
                let _ = writeln!(out, "    mend: {mend}");
            }
            if let Some(diagnosis) = &result.diagnosis {
                let _ = writeln!(out, "    see {FAINT}{}{FAINT:#}", diagnosis.anchor());
            }
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{}", closing(results, style));
    out
}

/// The checklist for machines.
#[must_use]
pub fn report(results: &[CheckResult]) -> Report {
    let check = |result: &CheckResult| Check {
        id: result.id.as_str(),
        description: result.description,
        result: match result.outcome {
            Outcome::Ok => "success",
            Outcome::Warning => "warning",
            Outcome::Failed => "error",
        },
        code: result.diagnosis.as_ref().map(|diagnosis| diagnosis.code().as_str()),
        error: result.told.clone(),
        hint: hint(result),
        ignored: result.ignored,
        finding: result.finding.clone(),
    };
    let category = |(group, results): (Group, Vec<&CheckResult>)| Category {
        name: group.as_str(),
        checks: results.into_iter().map(check).collect(),
    };
    Report {
        success: worst(results) < Outcome::Failed,
        categories: by_group(results.iter()).into_iter().map(category).collect(),
    }
}

fn hint(result: &CheckResult) -> Option<String> {
    let mend = result.mend.clone()?;
    Some(match &result.diagnosis {
        Some(diagnosis) => format!("{mend} ({})", diagnosis.anchor()),
        None => mend,
    })
}

fn by_group<'a>(results: impl Iterator<Item = &'a CheckResult>) -> BTreeMap<Group, Vec<&'a CheckResult>> {
    let mut groups: BTreeMap<Group, Vec<&CheckResult>> = BTreeMap::new();
    for result in results {
        groups.entry(result.group).or_default().push(result);
    }
    groups
}

fn worst(results: &[CheckResult]) -> Outcome {
    results.iter().map(|result| result.outcome).max().unwrap_or(Outcome::Ok)
}

fn closing(results: &[CheckResult], style: Style) -> String {
    let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
    let counted =
        |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let worst = worst(results);
    let verdict = match worst {
        Outcome::Ok | Outcome::Warning => "this machine can join",
        Outcome::Failed => "this machine cannot join yet",
    };
    let checks = counted(results.len(), "check");
    let warnings = counted(count(Outcome::Warning), "warning");
    let failures = counted(count(Outcome::Failed), "failure");
    format!("{} {verdict}: {checks}, {warnings}, {failures}", mark(worst, style))
}

fn mark(outcome: Outcome, style: Style) -> String {
    let (colour, mark) = match (outcome, style.ascii) {
        (Outcome::Ok, false) => (AnsiColor::Green, "√"),
        (Outcome::Warning, false) => (AnsiColor::Yellow, "‼"),
        (Outcome::Failed, false) => (AnsiColor::Red, "×"),
        (Outcome::Ok, true) => (AnsiColor::Green, "[ok]"),
        (Outcome::Warning, true) => (AnsiColor::Yellow, "[warn]"),
        (Outcome::Failed, true) => (AnsiColor::Red, "[fail]"),
    };
    let paint = colour.on_default();
    format!("{paint}{mark}{paint:#}")
}

const BOLD: Paint = Paint::new().bold();
const FAINT: Paint = Paint::new().dimmed();
