//! The whole answer to "why": what, since when, the proof, the mend, the story.

use std::fmt::Write as _;

use anstyle::Style;
use berth_domain::timestamp::Timestamp;
use berth_proto::admin::v1;

use crate::cli::output::{age, coloured, table};
use crate::forms::{docs, moment, phase};

/// A join for people.
pub(super) fn explanation(join: &v1::Join, events: &[v1::Event], now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |label: &str, said: &str| {
        if !said.is_empty() {
            let _infallible = writeln!(text, "{BOLD}{label:<9}{BOLD:#} {said}");
        }
    };
    line("Join:", &join.id);
    line("Node:", &join.node_name);
    line("State:", &state(join, now));
    if let Some(why) = &join.diagnosis {
        line("Reason:", &why.code);
        line("Cause:", &why.cause);
        for (place, (key, value)) in why.values.iter().enumerate() {
            line(if place == 0 { "Values:" } else { "" }, &format!("{key} = {value}"));
        }
        line("Mend:", &why.mend);
        line("Docs:", &docs(why));
    }
    line("Decision:", &join.decision);
    line("Token:", &join.token_id);
    line("Source:", &join.source);
    line("Agent:", &join.agent_version);
    line("Trace:", &join.trace_id);
    text.push_str(&phases(join));
    text.push_str(&story(events));
    text
}

fn state(join: &v1::Join, now: Timestamp) -> String {
    let state = format!("{} in {}", coloured(&join.state), phase(join.phase));
    match join.waiting_since_unix_ms.map(moment) {
        Some(since) => format!("{state} since {since}, for {}", age(now.since(since))),
        None => {
            let updated = moment(join.updated_unix_ms);
            format!("{state} at {updated}, {} ago", age(now.since(updated)))
        }
    }
}

/// When each phase's effect was recorded, and how long that took.
fn phases(join: &v1::Join) -> String {
    let mut before = moment(join.started_unix_ms);
    let mut rows = Vec::new();
    for reached in &join.reached {
        let at = moment(reached.at_unix_ms);
        let took = humantime::format_duration(at.since(before)).to_string();
        rows.push(vec![phase(reached.phase).to_owned(), at.to_string(), took]);
        before = at;
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(&["PHASE", "REACHED", "TOOK"], rows, true))
}

fn story(events: &[v1::Event]) -> String {
    if events.is_empty() {
        return String::new();
    }
    let rows = events.iter().map(|event| {
        let mut words: Vec<String> =
            event.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        words.extend(event.diagnosis.as_ref().map(|why| format!("{}: {}", why.code, why.cause)));
        vec![moment(event.at_unix_ms).to_string(), event.kind.clone(), words.join(" ")]
    });
    format!("\n{}", table(&["TIME", "EVENT", "DETAILS"], rows.collect(), true))
}

const BOLD: Style = Style::new().bold();
