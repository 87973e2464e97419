//! One node for people: who it is, how it stands, what it offers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::Style;
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;
use berth_proto::admin::v1;

use super::facts::machine;
use super::status;
use crate::cli::output::{age, coloured, or_dash, table};
use crate::forms::{docs, moment};

/// A node, with its machine's facts once they are known.
pub(super) fn shown(node: &v1::Node, facts: Option<&HostFacts>, now: Timestamp) -> String {
    let mut text = Lines::default();
    text.line("Name", &node.name);
    text.line("Pool", &node.pool);
    text.line("Status", &coloured(status(node)));
    if let Some(why) = &node.diagnosis {
        text.line("Reason", &why.code);
        text.line("Cause", &why.cause);
        text.line("Mend", &why.mend);
        text.line("Docs", &docs(why));
    }
    if let Some(ban) = &node.ban {
        text.line(
            "Banned",
            &format!("by {} at {}: {}", ban.by, moment(ban.at_unix_ms), or_dash(&ban.reason)),
        );
    }
    let seen = moment(node.last_seen_unix_ms);
    text.line("Seen", &format!("{seen} ({} ago)", age(now.since(seen))));
    text.line("Join", &node.join_id);
    text.line("Machine", &node.machine_id);
    text.line("Certificate", &certificate(node, now));
    text.lines("Labels", node.labels.iter().map(|(key, value)| format!("{key}={value}")));
    text.lines("Taints", node.taints.iter().cloned());
    if !node.capacity.is_empty() {
        text.heading("Resources");
        text.text.push_str(&resources(&node.capacity, &node.allocatable));
    }
    if let Some(facts) = facts {
        machine(facts, &mut text);
    }
    text.text
}

fn certificate(node: &v1::Node, now: Timestamp) -> String {
    let ends = moment(node.certificate_not_after_unix_ms);
    let left = if ends <= now { "expired".to_owned() } else { format!("{} left", age(ends.since(now))) };
    let serial = match node.certificate_serial.as_str() {
        "" => "not known yet",
        serial => serial,
    };
    format!("good until {ends} ({left}), serial {serial}")
}

fn resources(capacity: &BTreeMap<String, String>, allocatable: &BTreeMap<String, String>) -> String {
    let row = |(name, amount): (&String, &String)| {
        vec![format!("  {name}"), amount.clone(), or_dash(allocatable.get(name).map_or("", String::as_str))]
    };
    table(&["  RESOURCE", "CAPACITY", "ALLOCATABLE"], capacity.iter().map(row).collect(), true)
}

/// Lines of a label and what belongs to it.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) text: String,
}

impl Lines {
    /// A line; none where there is nothing to say.
    pub(super) fn line(&mut self, label: &str, said: &str) {
        if !said.is_empty() {
            let label = format!("{label}:");
            let _infallible = writeln!(self.text, "{BOLD}{label:<WIDTH$}{BOLD:#} {said}");
        }
    }

    /// A line for each, the label on the first.
    pub(super) fn lines(&mut self, label: &str, all: impl IntoIterator<Item = String>) {
        for (place, said) in all.into_iter().enumerate() {
            if place == 0 {
                self.line(label, &said);
            } else {
                let _infallible = writeln!(self.text, "{:WIDTH$} {said}", "");
            }
        }
    }

    /// A heading of what follows.
    pub(super) fn heading(&mut self, heading: &str) {
        let _infallible = writeln!(self.text, "\n{BOLD}{heading}{BOLD:#}");
    }
}

const BOLD: Style = Style::new().bold();
const WIDTH: usize = 14;
