//! The view against news that come late, twice, out of order or not at all.

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{Event, Origin};
use berth_domain::name::PoolName;
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + second * 1000)
}

fn id(who: &str) -> JoinId {
    JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), SpkiHash::of(who.as_bytes()))
}

fn redeemed(who: &str, second: i64) -> Entry {
    let origin = Origin {
        token: "aaaaaaaaaa".parse().expect("a token id"),
        source: "192.0.2.7".to_owned(),
        agent_version: "0.1.0".to_owned(),
        trace_id: None,
    };
    let event = Event::Redeemed { origin, key: SpkiHash::of(who.as_bytes()) };
    Entry { sequence: 0, at: at(second), join: id(who), node: None, event }
}

fn authorized(who: &str, second: i64) -> Entry {
    let event = Event::Authorized {
        machine: MachineId::of(b"m"),
        key: SpkiHash::of(who.as_bytes()),
        serial: Some("01".to_owned()),
        not_before: at(0),
        not_after: at(3600),
        renewal: false,
    };
    Entry { sequence: 0, at: at(second), join: id(who), node: Some(name()), event }
}

fn name() -> NodeName {
    "n1".parse().expect("a name")
}

/// `n1`, bound by this join, as the API server would answer.
fn named(who: &str, uid: &str, version: u64) -> NodeJoin {
    let node = NodeRecord {
        identity: NodeIdentity { name: name(), pool: PoolName::default() },
        machine: MachineId::of(b"m"),
        join: id(who),
        key: SpkiHash::of(who.as_bytes()),
        next_key: None,
        labels: berth_domain::labels::Labels::new(),
        taints: Vec::new(),
        certificate: CertificateTerms {
            serial: Some("01".to_owned()),
            not_before: at(0),
            not_after: at(3600),
        },
        issued: vec![at(2)],
        readiness: Readiness::Bound,
        last_seen: at(2),
    };
    let mut join = JoinRecord::begin(id(who), at(1));
    let entry = authorized(who, 2);
    join.take(&entry);
    let story = Story { join, entries: vec![entry.clone()], node: Some(node), facts: None };
    versioned(NodeJoin::new("n1", story.spec(&[entry], None)), uid, version)
}

fn versioned(mut object: NodeJoin, uid: &str, version: u64) -> NodeJoin {
    object.metadata.uid = Some(uid.to_owned());
    object.metadata.resource_version = Some(version.to_string());
    object
}

fn events(view: &View, who: &str) -> usize {
    view.entries(Some(id(who)), 0, 100).len()
}

#[test]
fn what_comes_late_does_not_lead_back() {
    let mut view = View::default();
    assert!(view.take_join(named("new", "u", 7), at(9)).is_some());
    assert!(view.take_join(named("old", "u", 5), at(9)).is_none(), "an older version");
    assert!(view.take_join(named("new", "u", 7), at(9)).is_none(), "the same again");
    assert_eq!(view.node(&name()).map(|node| node.join), Some(id("new")));
    assert_eq!(events(&view, "new"), 1);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let mut view = View::default();
    view.take_join(named("a", "u", 7), at(9));
    view.drop_join("n1", Some(&"u".to_owned()), at(10));
    assert!(view.take_join(named("a", "u", 8), at(11)).is_none(), "news that was under way");
    assert!(view.node(&name()).is_none());
    assert!(view.take_join(named("b", "v", 9), at(12)).is_some(), "another object of that name");
    assert!(view.drop_join("n1", Some(&"u".to_owned()), at(13)).is_none(), "the first one's end comes twice");
    assert_eq!(view.node(&name()).map(|node| node.join), Some(id("b")));
}

#[test]
fn a_name_freed_by_hand_is_told_once_and_not_when_one_of_us_did_it() {
    let mut view = View::default();
    view.take_join(named("a", "u", 7), at(9));
    view.drop_join("n1", Some(&"u".to_owned()), at(10));
    let entries = view.entries(Some(id("a")), 0, 100);
    assert!(matches!(entries.last().map(|entry| &entry.event), Some(Event::Forgotten { .. })), "{entries:?}");
    assert!(!view.is_dirty(id("a")), "nothing is written for it");

    let mut view = View::default();
    view.take_join(named("a", "u", 7), at(9));
    let story = Story { node: None, ..view.story(id("a")).expect("it is known") };
    let loose = NodeJoin::new(&id("a").to_string(), story.spec(&story.entries, None));
    view.take_join(versioned(loose, "w", 8), at(10));
    view.drop_join("n1", Some(&"u".to_owned()), at(10));
    assert_eq!(events(&view, "a"), 1, "its archive says how it ended");
}

#[test]
fn a_late_beginning_fills_in_and_leads_nothing_back() {
    let mut view = View::default();
    view.take_join(named("a", "u", 7), at(9));
    assert!(view.note(redeemed("a", 1)));
    assert!(!view.note(redeemed("a", 1)), "said once");
    let record = view.join(id("a")).expect("it is known");
    assert!(record.origin.is_some());
    assert_eq!(record.phase, berth_domain::phase::Phase::Authorization);
    assert_eq!(events(&view, "a"), 2);
}

#[test]
fn a_wait_that_is_told_late_stops_nothing() {
    let waiting = |code, phase, second| {
        let event = Event::Waiting { why: Diagnosis::new(code, phase) };
        Entry { sequence: 0, at: at(second), join: id("a"), node: Some(name()), event }
    };
    let mut bound = named("a", "u", 7);
    let mut story = bound.story().expect("a node's name");
    story.entries.push(Entry { event: Event::Ready, ..authorized("a", 5) });
    story.join.take(&story.entries[1]);
    bound.status = Some(story.status(&bound));
    let mut view = View::default();
    view.take_join(bound, at(9));
    let state = |view: &View| view.join(id("a")).map(|join| join.state.as_str().to_owned());
    assert!(view.note(waiting(Code::SignerUnavailable, Phase::Authorization, 4)), "it is part of the story");
    assert_eq!(state(&view).as_deref(), Some("Ready"));
    view.note(waiting(Code::StoreUnavailable, Phase::Registration, 6));
    assert_eq!(state(&view).as_deref(), Some("Waiting"), "what comes after is news");
}

#[test]
fn what_was_written_elsewhere_is_not_written_again() {
    let mut view = View::default();
    view.note(redeemed("a", 1));
    view.note(authorized("a", 2));
    assert!(view.is_dirty(id("a")));
    view.take_join(named("a", "u", 7), at(9));
    assert_eq!(view.pending(id("a")), [redeemed("a", 1)], "the other is in the object");
    assert_eq!(events(&view, "a"), 2);
    assert_eq!(view.last_sequence(), 2, "and has its number already");
}

#[test]
fn the_object_from_before_is_absorbed_with_all_it_says() {
    let mut view = View::default();
    let mut join = JoinRecord::begin(id("a"), at(1));
    join.take(&redeemed("a", 1));
    let story = Story { join, entries: vec![redeemed("a", 1)], node: None, facts: None };
    let loose = NodeJoin::new(&id("a").to_string(), story.spec(&story.entries, None));
    view.take_join(versioned(loose, "w", 5), at(9));
    let mut bound = named("a", "u", 7);
    let own = bound.story().expect("a node's name");
    bound.status = Some(own.status(&bound));
    view.take_join(bound, at(9));
    assert!(view.has_both(id("a")) && view.is_dirty(id("a")), "its own status lacks the beginning");
    let story = view.story(id("a")).expect("it is known");
    assert_eq!(story.entries, [redeemed("a", 1), authorized("a", 2)]);
    assert!(story.join.origin.is_some() && story.node.is_some());
}
