//! How a join ended: the last words of `join`.

use std::fmt::Write as _;
use std::time::Duration;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::NodeIdentity;
use berth_domain::join::JoinId;
use berth_domain::timestamp::Timestamp;
use serde::Serialize;

use super::{BOLD, DiagnosisView, FAINT, OK, short};

/// A join that ended at Ready, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Who the node is.
    pub node: NodeIdentity,
    /// Which join made it so.
    pub join: JoinId,
    /// The server that was asked.
    pub server: String,
    /// Until when the certificate is good.
    pub expires: Timestamp,
    /// Whether the machine had joined before, and nothing was done.
    pub already: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// The trace that shows it.
    pub trace_id: Option<String>,
}

/// The last object of `join -o json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultView {
    #[serde(rename = "type")]
    kind: ResultTag,
    /// `joined`, `alreadyJoined` or `ended`.
    pub outcome: &'static str,
    /// The exit status.
    pub exit_code: u8,
    /// The node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The join's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// The server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Until when the certificate is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_millis: Option<u64>,
    /// The trace that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Why it did not end at Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<DiagnosisView>,
}

/// Tells the result from the steps before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum ResultTag {
    /// `"type": "result"`.
    #[default]
    Result,
}

impl From<&Joined> for ResultView {
    fn from(joined: &Joined) -> Self {
        Self {
            outcome: if joined.already { "alreadyJoined" } else { "joined" },
            node: Some(joined.node.name.to_string()),
            pool: Some(joined.node.pool.to_string()),
            join: Some(joined.join.to_string()),
            server: Some(joined.server.clone()),
            certificate_expires: Some(joined.expires),
            elapsed_millis: Some(u64::try_from(joined.elapsed.as_millis()).unwrap_or(u64::MAX)),
            trace_id: joined.trace_id.clone(),
            ..Self::default()
        }
    }
}

impl ResultView {
    /// A join that did not end at Ready.
    #[must_use]
    pub fn ended(why: &Diagnosis, trace_id: Option<&str>) -> Self {
        Self {
            outcome: "ended",
            exit_code: why.code().exit() as u8,
            trace_id: trace_id.map(str::to_owned),
            diagnosis: Some(why.into()),
            ..Self::default()
        }
    }
}

/// A join that ended at Ready, for people.
#[must_use]
pub fn joined(joined: &Joined) -> String {
    let name = &joined.node.name;
    let mut text = if joined.already {
        format!("{OK}already joined{OK:#}: this machine is the node {BOLD}{name}{BOLD:#}\n")
    } else {
        format!("{OK}joined{OK:#}: the node {BOLD}{name}{BOLD:#} is Ready after {}\n", short(joined.elapsed))
    };
    let mut line = |label: &str, said: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {FAINT}{label:<12}{FAINT:#} {said}");
    };
    line("pool:", &joined.node.pool);
    line("join:", &joined.join);
    line("certificate:", &format!("good until {}", joined.expires));
    if let Some(trace_id) = &joined.trace_id {
        line("trace:", trace_id);
    }
    text
}
