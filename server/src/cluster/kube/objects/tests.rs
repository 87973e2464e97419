//! Objects say what the records say, and the CRDs in `deploy/` are these.

use std::path::Path;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{Decision, Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::PoolName;
use berth_domain::node::{Ban, CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken as Token, MINT_ENTROPY, Revocation, TokenBinding, TokenRecord, Use};
use kube::core::DynamicObject;
use serde_json::json;

use super::*;

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/crds");

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_123 + second * 1000)
}

fn token() -> TokenRecord {
    let token = Token::mint(&zeroize::Zeroizing::new([3; MINT_ENTROPY]), SpkiHash::of(b"ca"));
    let used = |key: &[u8], second| {
        let key = SpkiHash::of(key);
        Use { key, join: JoinId::of(&token.id, key), at: at(second) }
    };
    TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        binding: TokenBinding {
            names: "rack1-*".parse().expect("a pattern"),
            uses: 7,
            networks: vec!["10.0.0.0/8".parse().expect("a network")],
            labels: [("zone".parse().expect("a key"), "a".parse().expect("a value"))].into(),
            taints: vec!["dedicated=gpu:NoSchedule".parse().expect("a taint")],
            approval: true,
            pool: PoolName::default(),
        },
        description: "for rack 1".to_owned(),
        created: at(0),
        created_by: "alice".to_owned(),
        expires: at(3600),
        revoked: Some(Revocation { at: at(9), by: "bob".to_owned() }),
        used: vec![used(b"a", 1), used(b"b", 2)],
    }
}

fn story() -> Story {
    let (id, key) = (JoinId::of(&token().id, SpkiHash::of(b"a")), SpkiHash::of(b"a"));
    let origin = Origin {
        token: token().id,
        source: "192.0.2.7".to_owned(),
        agent_version: "0.1.0".to_owned(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
    };
    let name: berth_domain::name::NodeName = "n1".parse().expect("a name");
    let why = Diagnosis::new(Code::NodeNotReady, Phase::Registration).with_private("condition", "no CNI");
    let certificate =
        CertificateTerms { serial: Some("0a".repeat(16)), not_before: at(0), not_after: at(3600) };
    let events = [
        (1, Event::Redeemed { origin, key }),
        (2, Event::Approved { by: "alice".to_owned() }),
        (
            3,
            Event::Authorized {
                machine: MachineId::of(b"m"),
                key,
                serial: certificate.serial.clone(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
                renewal: false,
            },
        ),
        (4, Event::Registered),
        (5, Event::NotReady { why: why.clone() }),
    ];
    let entry =
        |(second, event)| Entry { sequence: 0, at: at(second), join: id, node: Some(name.clone()), event };
    let entries: Vec<Entry> = events.into_iter().map(entry).collect();
    let mut join = JoinRecord::begin(id, at(1));
    for entry in &entries {
        join.take(entry);
    }
    let node = NodeRecord {
        identity: NodeIdentity { name, pool: PoolName::default() },
        machine: MachineId::of(b"m"),
        join: id,
        key,
        next_key: Some(SpkiHash::of(b"next")),
        labels: token().binding.labels,
        taints: token().binding.taints,
        certificate,
        issued: vec![at(3)],
        readiness: Readiness::NotReady { why },
        last_seen: at(6),
    };
    let facts = HostFacts { machine: Some("x86_64".to_owned()), ..HostFacts::default() };
    Story { join, entries, node: Some(node), facts: Some(std::sync::Arc::new(facts)) }
}

/// As it comes back from the API server.
fn again<K>(object: &K) -> K
where
    K: kube::Resource<DynamicType = ()> + serde::Serialize + serde::de::DeserializeOwned,
{
    let value = serde_json::to_value(object).expect("plain data");
    let object: DynamicObject = serde_json::from_value(value).expect("an object");
    read(object).expect("it was just written")
}

#[test]
fn a_token_comes_back_whole() {
    let record = token();
    let mut object = JoinToken::minted(&record);
    assert_eq!(object.record(), Some(TokenRecord { used: Vec::new(), revoked: None, ..record.clone() }));
    object.status = Some(object.status_of(&record, at(10)));
    assert_eq!(again(&object).record(), Some(record));
}

#[test]
fn a_join_and_its_node_come_back_whole() {
    let story = story();
    let mut object = NodeJoin::new("n1", story.spec(&[], None));
    object.status = Some(story.status(&object));
    assert_eq!(again(&object).story(), Some(story));
}

#[test]
fn what_the_spec_decided_counts_before_the_status_is_written() {
    let story = story();
    let decisive: Vec<Entry> = story.entries.iter().take(3).cloned().collect();
    let object = again(&NodeJoin::new("n1", story.spec(&decisive, None)));
    let seen = object.story().expect("a node's name");
    assert_eq!(seen.entries, decisive);
    assert_eq!((seen.join.phase, seen.join.state.as_str()), (Phase::Authorization, "Running"));
    assert_eq!(seen.join.origin, story.join.origin);
    assert_eq!(seen.node.map(|node| node.machine), story.node.as_ref().map(|node| node.machine));
    let mut object = object;
    object.status = Some(story.status(&object));
    assert_eq!(object.story(), Some(story), "and is not taken twice");
}

#[test]
fn what_the_api_server_says_of_a_bound_join_needs_no_writing() {
    let said = NodeJoin::crd().spec.versions[0]
        .schema
        .as_ref()
        .and_then(|schema| {
            schema.open_api_v3_schema.as_ref()?.properties.as_ref()?.get("status")?.default.clone()
        })
        .expect("a status that nobody wrote has a default");
    let said: NodeJoinStatus = serde_json::from_value(said.0).expect("a status");
    let story = story();
    let authorized = &story.entries[2..3];
    let mut unapproved = story.clone();
    unapproved.join = JoinRecord::begin(story.join.id, at(1));
    unapproved.join.take(&authorized[0]);
    let object = NodeJoin::new("n1", unapproved.spec(authorized, None));
    let shown = NodeJoin { status: Some(said.clone()), ..object.clone() };
    assert_eq!(shown.story(), object.story(), "it adds nothing");
    let join = object.story().expect("a node's name").join;
    assert_eq!((said.phase, said.state.as_str()), (join.phase, join.state.as_str()), "and it is true");
    assert!(!object.is_behind() && !shown.is_behind());

    let approved = NodeJoin::new("n1", story.spec(&story.entries[1..3], None));
    assert!(approved.is_behind(), "it does not say who approved");
    let unbound = Story { node: None, ..story.clone() };
    assert!(NodeJoin::new("j", unbound.spec(&[], None)).is_behind(), "it says too much of who has no name");
    let mut renewed = NodeJoin::new("n1", story.spec(&story.entries[..3], None));
    renewed.status = Some(story.status(&renewed));
    renewed.spec = story.spec(authorized, Some(&renewed));
    assert!(renewed.is_behind(), "one that was written says what comes later too");
}

#[test]
fn an_event_is_said_once_and_none_is_lost_between_two_writes() {
    let mut story = story();
    let mut object = NodeJoin::new("n1", story.spec(&story.entries[..3], None));
    object.status = Some(story.status(&object));
    let said = |object: &NodeJoin| {
        let told = object.status.as_ref().map(|status| status.events.as_slice()).unwrap_or_default();
        let whole = told.iter().filter(|told| matches!(told, ToldEvent::Whole(_)));
        (object.spec.events.len(), whole.count())
    };
    assert_eq!(said(&object), (3, 2), "each of five once");
    for renewal in 0..9 {
        let Event::Authorized { machine, key, serial, not_before, not_after, .. } =
            story.entries[2].event.clone()
        else {
            panic!("the third is the authorization");
        };
        let event = Event::Authorized { machine, key, serial, not_before, not_after, renewal: true };
        let entry = Entry { at: at(10 + renewal), event, ..story.entries[2].clone() };
        story.join.take(&entry);
        story.entries.push(entry.clone());
        object.spec = story.spec(std::slice::from_ref(&entry), Some(&object));
        assert_eq!(again(&object).story().expect("a node's name").entries, story.entries);
        object.status = Some(story.status(&object));
        assert_eq!(again(&object).story().as_ref(), Some(&story));
    }
    let (in_spec, told) = said(&object);
    assert!(in_spec <= 5, "{in_spec} in the spec, {told} in the status: the spec does not grow");
}

#[test]
fn a_use_that_is_no_use_is_told_with_its_line() {
    let mut value = serde_json::to_value(JoinToken::minted(&token())).expect("plain data");
    value["status"] = json!({ "used": format!("{} 2026-11-23T19:00:00.123Z\nx\n", SpkiHash::of(b"a")) });
    let object: DynamicObject = serde_json::from_value(value).expect("an object");
    let problem = read::<JoinToken>(object).expect_err("half a line").to_string();
    assert!(problem.contains("status.used") && problem.contains("line 2"), "{problem}");
}

#[test]
fn a_persons_patch_is_an_event() {
    let waiting = Event::Waiting { why: Diagnosis::new(Code::ApprovalPending, Phase::Authorization) };
    let mut story = Story { node: None, facts: None, ..story() };
    story.join = JoinRecord::begin(story.join.id, at(1));
    story.entries = vec![Entry { sequence: 0, at: at(2), join: story.join.id, node: None, event: waiting }];
    story.join.take(&story.entries[0]);
    let mut object = NodeJoin::new(&story.join.id.to_string(), story.spec(&[], None));
    object.status = Some(story.status(&object));
    object.spec.approval =
        Some(Approval { decision: ApprovalDecision::Approved, by: "alice".to_owned(), reason: None });
    let seen = object.story().expect("a loose join");
    assert_eq!(seen.join.decision, Some(Decision::Approved { by: "alice".to_owned() }));
    assert_eq!(seen.join.state.as_str(), "Running");
    assert_eq!(seen.entries.len(), 2);
}

#[test]
fn a_ban_comes_back_whole() {
    let ban = Ban {
        machine: MachineId::of(b"m"),
        name: "n1".parse().expect("a name"),
        by: "alice".to_owned(),
        reason: "stolen".to_owned(),
        at: at(1),
    };
    let object = again(&MachineBan::of(&ban, story().join.id));
    assert_eq!((object.ban(), object.spec.join), (Some(ban), Some(story().join.id)));
}

#[test]
fn a_malformed_object_is_named_with_its_field() {
    for none in ["x", "10.1.2.3/8"] {
        let mut value = serde_json::to_value(JoinToken::minted(&token())).expect("plain data");
        value["spec"]["networks"] = json!(["10.0.0.0/8", none]);
        let object: DynamicObject = serde_json::from_value(value).expect("an object");
        let problem = read::<JoinToken>(object).expect_err("no network").to_string();
        assert!(problem.contains("spec.networks[1]") && problem.contains(token().id.as_str()), "{problem}");
    }
}

#[test]
fn the_crds_are_those_in_deploy() {
    for (name, crd) in crds() {
        let yaml = serde_saphyr::to_string(&crd).expect("a schema has a YAML form");
        let path = Path::new(CRDS).join(format!("{name}.berth.dev.yaml"));
        #[expect(clippy::disallowed_methods, reason = "a golden file is rewritten when a person asks for it")]
        if std::env::var("UPDATE_GOLDEN").is_ok_and(|update| update == "1") {
            std::fs::write(&path, &yaml).expect("the directory is there");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == yaml,
            "{} is not what this program says; UPDATE_GOLDEN=1 writes it anew",
            path.display()
        );
    }
}
