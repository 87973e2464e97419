use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_proto::{event_to_wire, join_to_wire};

use super::*;
use crate::cli::golden::{golden, now, plain};

const TOKEN: &str = "aaaaaaaaaa";

fn id(key: &[u8]) -> JoinId {
    JoinId::of(&TOKEN.parse().expect("a token id"), SpkiHash::of(key))
}

fn origin() -> Origin {
    Origin {
        token: TOKEN.parse().expect("a token id"),
        source: "192.0.2.7".to_owned(),
        agent_version: "0.1.0".to_owned(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
    }
}

/// A join of these events, one every 1.25 seconds until now.
fn join(key: &[u8], node: Option<&str>, events: Vec<Event>) -> (v1::Join, Vec<v1::Event>) {
    let step = Duration::from_millis(1_250);
    let count = u32::try_from(events.len()).expect("a few");
    let mut at = now().before(step.saturating_mul(count));
    let mut record = JoinRecord::begin(id(key), at);
    let mut told = Vec::new();
    for (sequence, event) in (1..).zip(events) {
        at = at.after(step);
        let node = node.map(|name| name.parse().expect("a name"));
        let entry = Entry { sequence, at, join: id(key), node, event };
        record.take(&entry);
        told.push(event_to_wire(&entry));
    }
    (join_to_wire(&record), told)
}

fn redeemed() -> Event {
    Event::Redeemed { origin: origin(), key: SpkiHash::of(b"a") }
}

fn refused() -> (v1::Join, Vec<v1::Event>) {
    let why = Diagnosis::new(Code::TokenSpent, Phase::Authentication)
        .with("token", TOKEN)
        .with("uses", 1)
        .with_private("usedBy", id(b"a"));
    join(b"b", None, vec![Event::Refused { origin: Some(origin()), why }])
}

fn waiting() -> (v1::Join, Vec<v1::Event>) {
    let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization)
        .with("join", id(b"a"))
        .with("name", "rack1-n7")
        .with("since", now().before(Duration::from_millis(1_250)));
    join(b"a", Some("rack1-n7"), vec![redeemed(), Event::Waiting { why }])
}

fn ready() -> (v1::Join, Vec<v1::Event>) {
    let authorized = Event::Authorized {
        machine: berth_domain::identity::MachineId::of(b"machine"),
        key: SpkiHash::of(b"a"),
        serial: Some("4f".to_owned()),
        not_before: Timestamp::from_millis(now().millis() - 300_000),
        not_after: now().after(Duration::from_secs(6 * 3_600)),
        renewal: false,
    };
    let configured = Event::Configured { profile: berth_domain::identity::Digest::of(b"profile") };
    let approved = Event::Approved { by: "alice".to_owned() };
    let events = vec![redeemed(), approved, authorized, configured, Event::Registered, Event::Ready];
    join(b"a", Some("rack1-n7"), events)
}

#[test]
fn an_explanation_says_what_why_and_how_to_mend_it() {
    for (name, (join, events)) in [("refused", refused()), ("waiting", waiting()), ("ready", ready())] {
        golden(&format!("joins-explain-{name}-text"), &plain(&explanation(&join, &events, now())));
        golden(&format!("joins-explain-{name}-json"), &format!("{:#}", forms::explained(&join, &events)));
    }
}

#[test]
fn the_list_is_a_table_of_what_matters() {
    let joins = [refused().0, waiting().0, ready().0];
    golden("joins-list-text", &plain(&JOINS.table(&joins, false, true, now())));
    golden("joins-list-wide", &plain(&JOINS.table(&joins, true, true, now())));
}

#[test]
fn each_change_is_one_line() {
    let lines: String = [refused().0, waiting().0, ready().0].iter().map(watch_line).collect();
    golden("joins-watch-text", &plain(&lines));
    assert!(!forms::join(&ready().0).to_string().contains('\n'));
}
