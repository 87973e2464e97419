//! `status`: how this machine's join stands.

use std::fmt::Write as _;

use berth_domain::diagnosis::{Code, Diagnosis, Exit, Retry};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use serde::Serialize;

use super::{BOLD, DiagnosisView, ERROR, FAINT, OK, WARNING, short};

/// How the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// There is no trace of a join.
    NotJoined,
    /// A join was begun and is not at its end.
    Joining,
    /// The machine is a node.
    Joined,
    /// The machine was a node, and its certificate ended.
    Expired,
    /// The machine has left.
    Left,
}

impl State {
    const fn words(self) -> &'static str {
        match self {
            Self::NotJoined => "not joined",
            Self::Joining => "joining",
            Self::Joined => "joined",
            Self::Expired => "joined, and its certificate has expired",
            Self::Left => "left the cluster",
        }
    }
}

/// What is known of the machine's join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// The process that works on it now.
    pub agent_pid: Option<u32>,
    /// The phase that is passed next, while joining.
    pub phase: Option<Phase>,
    /// The node's name.
    pub node: Option<String>,
    /// The node's pool.
    pub pool: Option<String>,
    /// The join's id.
    pub join: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// Until when the certificate is good.
    pub expires: Option<Timestamp>,
    /// What last stood in the way, if it still does.
    pub why: Option<Diagnosis>,
    /// The trace of the last attempt.
    pub trace_id: Option<String>,
    /// When this was asked.
    pub now: Timestamp,
}

impl Status {
    /// Whether all is well.
    #[must_use]
    pub const fn healthy(&self) -> bool {
        matches!(self.state, State::Joined) && self.why.is_none()
    }

    /// The exit status, where all is not well.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match (&self.why, self.state) {
            (Some(why), _) => Some(why.code().exit()),
            (None, State::Joined) => None,
            (None, State::Expired) => Some(Code::CertificateExpired.exit()),
            (None, State::NotJoined | State::Joining | State::Left) => Some(Exit::Other),
        }
    }
}

/// The status for programs. The fields stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// How the machine stands.
    pub state: State,
    /// Whether all is well; the exit status is 0 then.
    pub healthy: bool,
    /// The process that works on it now.
    pub agent_pid: Option<u32>,
    /// The phase that is passed next, while joining.
    pub phase: Option<Phase>,
    /// The node's name.
    pub node: Option<String>,
    /// The node's pool.
    pub pool: Option<String>,
    /// The join's id.
    pub join: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// Until when the certificate is good.
    pub certificate_expires: Option<Timestamp>,
    /// What last stood in the way, if it still does.
    pub diagnosis: Option<DiagnosisView>,
    /// The trace of the last attempt.
    pub trace_id: Option<String>,
}

impl From<&Status> for StatusView {
    fn from(status: &Status) -> Self {
        Self {
            state: status.state,
            healthy: status.healthy(),
            agent_pid: status.agent_pid,
            phase: status.phase,
            node: status.node.clone(),
            pool: status.pool.clone(),
            join: status.join.clone(),
            server: status.server.clone(),
            certificate_expires: status.expires,
            diagnosis: status.why.as_ref().map(DiagnosisView::from),
            trace_id: status.trace_id.clone(),
        }
    }
}

/// The status for people.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |label: &str, said: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{FAINT}{label:<12}{FAINT:#} {said}");
    };
    let paint = match status.state {
        State::Joined => OK,
        State::Joining => WARNING,
        State::NotJoined | State::Left => BOLD,
        State::Expired => ERROR,
    };
    line("state:", &format!("{paint}{}{paint:#}", status.state.words()));
    match status.agent_pid {
        Some(pid) => line("agent:", &format!("running (pid {pid})")),
        None => line("agent:", &"not running"),
    }
    if let Some(phase) = status.phase {
        line("phase:", &phase);
    }
    for (label, value) in [
        ("node:", &status.node),
        ("pool:", &status.pool),
        ("join:", &status.join),
        ("server:", &status.server),
    ] {
        if let Some(value) = value {
            line(label, value);
        }
    }
    if let Some(expires) = status.expires {
        let left = expires.since(status.now);
        let when = if left.is_zero() { "over".to_owned() } else { format!("{} from now", short(left)) };
        line("certificate:", &format!("good until {expires} ({when})"));
    }
    if let Some(why) = &status.why {
        let label = match why.when_to_retry() {
            Retry::Never => "stopped by:",
            Retry::After(_) => "waits for:",
        };
        line(label, &why);
        line("mend:", &why.mend());
        line("docs:", &why.anchor());
    }
    if let Some(trace_id) = &status.trace_id {
        line("trace:", trace_id);
    }
    text
}
