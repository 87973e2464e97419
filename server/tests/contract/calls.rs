//! What the Kubernetes backend asks of the API server: few calls a join, and a pace for
//! what strangers cause.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::join::Event;
use berth_domain::phase::Phase;
use berth_server::cluster::kube::Settings;
use berth_server::ports::{Joins, Nodes, Observation, Tokens};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::Backend;
use crate::fixtures::{binding, claim, facts, join, later, name, now, origin, soon, token};
use crate::kubernetes::World;
use crate::tokens::race;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_one_token_takes_few_writes() {
    let Some(world) = World::fresh().await else { return };
    let kube = world.replica().await;
    let minted = token(1, 1_000);
    kube.mint(minted.clone()).await.expect("a fresh id");
    let mut audit = world.cluster().audit_from_now().expect("an audit log");
    let backend: Arc<dyn Backend> = kube;
    assert_eq!(race(&backend, &minted, 300).await.len(), 300);
    let object = world.tokens().get(minted.id.as_str()).await.expect("it is there");
    assert_eq!(object.record().expect("it is minted").used.len(), 300);
    let calls = calls(audit.events().expect("a readable log"));
    let writes = calls.iter().filter(|call| *call == "update jointokens/status").count();
    assert!((1..=20).contains(&writes), "{writes} writes for 300 uses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cause_calls_at_a_pace() {
    let Some(world) = World::fresh().await else { return };
    let settings = Settings {
        looks: 10,
        looks_every: Duration::from_secs(60),
        strangers: 5,
        strangers_every: Duration::from_secs(60),
        ..Settings::default()
    };
    let kube = world.replica_with(settings).await;
    let mut audit = world.cluster().audit_from_now().expect("an audit log");
    for seed in 0..=255 {
        assert!(kube.find(&token(seed, 1).id).await.expect("an answer").is_none());
        let why = Diagnosis::new(Code::TokenRejected, Phase::Authentication);
        let refused = Event::Refused { origin: None, why };
        kube.record(join([seed]), None, refused, now()).await.expect("recorded");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let calls = calls(audit.events().expect("a readable log"));
    let looks = calls.iter().filter(|call| call.starts_with("get jointokens")).count();
    let written = calls.iter().filter(|call| call.contains("nodejoins")).count();
    assert!(looks <= 10 && written <= 10, "{looks} looks, {written} writes: {calls:?}");
    assert_eq!(kube.joins(1_000).await.expect("an answer").len(), 256, "all are known here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_join_takes_few_calls() {
    let Some(world) = World::fresh().await else { return };
    let kube = world.replica().await;
    let minted = token(1, 1);
    kube.mint(minted.clone()).await.expect("a fresh id");
    let mut audit = world.cluster().audit_from_now().expect("an audit log");
    let wanted = binding("n1", "m", "k");
    let used = kube.redeem(&claim(&minted, wanted.key), &origin(&minted.id), now()).await.expect("a use");
    let wanted = berth_domain::node::Binding { join: used.join, ..wanted };
    kube.bind(&wanted, now()).await.expect("a free name");
    kube.admit(&name("n1"), wanted.key, later(1)).await.expect("its key");
    let profile = Digest::of(b"profile");
    kube.observe(&name("n1"), Observation::Configured { profile }, later(2)).await.expect("observed");
    kube.observe(&name("n1"), Observation::Registered { facts: facts() }, later(3)).await.expect("observed");
    let why = Diagnosis::new(Code::NodeNotReady, Phase::Registration);
    kube.observe(&name("n1"), Observation::NotReady { why }, later(3)).await.expect("observed");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    kube.observe(&name("n1"), Observation::Ready, later(4)).await.expect("observed");
    for second in 5..50 {
        kube.observe(&name("n1"), Observation::Heard, later(second)).await.expect("observed");
        kube.observe(&name("n1"), Observation::Ready, later(second)).await.expect("observed");
    }
    kube.close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut calls = calls(audit.events().expect("a readable log"));
    calls.retain(|call| !call.contains("leases"));
    // Its steps are written with its end.
    let expected = ["update jointokens/status", "create nodejoins", "update nodejoins/status"];
    let kept: Vec<&String> = calls.iter().filter(|call| **call != "create events").collect();
    assert_eq!(kept, expected, "{calls:?}");
    assert_eq!(calls.len(), expected.len() + 1, "and one Event: {calls:?}");
    let events = world.events().list(&ListParams::default()).await.expect("an administrator may").items;
    let joined: Vec<_> = events
        .iter()
        .filter(|event| event.note.as_ref().is_some_and(|note| note.contains(&wanted.join.to_string())))
        .map(|event| {
            (event.reason.as_deref(), event.annotations().get("berth.dev/trace-id").map(String::as_str))
        })
        .collect();
    assert_eq!(joined, [(Some("Joined"), origin(&minted.id).trace_id.as_deref())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_seen_at_once_and_takes_no_status_of_its_own() {
    let Some(world) = World::fresh().await else { return };
    let kube =
        world.replica_with(Settings { behind: Duration::from_millis(20), ..Settings::default() }).await;
    let mut audit = world.cluster().audit_from_now().expect("an audit log");
    let mut statuses = async |most: usize| {
        let calls = calls(audit.events().expect("a readable log"));
        let statuses = calls.iter().filter(|call| *call == "update nodejoins/status").count();
        assert_eq!(statuses, most, "{calls:?}");
    };
    kube.bind(&binding("n1", "m1", "k1"), now()).await.expect("a free name");
    let seen = ["get", "nodejoin", "n1", "-o", "jsonpath={.status.phase} {.status.state}"];
    assert_eq!(world.kubectl(&seen), "authorization Running");
    // The step of another is written, and it came later.
    kube.bind(&binding("n2", "m2", "k2"), now()).await.expect("a free name");
    let profile = Digest::of(b"profile");
    kube.observe(&name("n2"), Observation::Configured { profile }, later(2)).await.expect("observed");
    let status = async |node: &str| world.joins().get(node).await.expect("it is there").status;
    soon("the step is seen", async || status("n2").await.is_some_and(|status| status.join_id.is_some()))
        .await;
    statuses(1).await;

    world.kubectl(&["annotate", "nodejoin", "n1", "example.com/rack=7"]);
    let issued = Observation::Issued { serial: "0b".repeat(16), not_before: now(), not_after: later(60) };
    kube.observe(&name("n1"), issued, later(1)).await.expect("observed");
    soon("what was signed is recorded", async || {
        status("n1").await.is_some_and(|status| format!("{:?}", status.events).contains("0b0b"))
    })
    .await;
    statuses(1).await;
    let object = world.joins().get("n1").await.expect("it is there");
    assert_eq!(
        object.annotations().get("example.com/rack").map(String::as_str),
        Some("7"),
        "others' are kept"
    );
}

/// `verb resource/subresource` of what was asked of Berth's kinds and more, watches left out.
fn calls(events: Vec<serde_json::Value>) -> Vec<String> {
    let text = |event: &serde_json::Value, at: &str| {
        event.pointer(at).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let own = ["jointokens", "nodejoins", "machinebans", "events", "secrets", "leases"];
    let all = events.iter().filter(|event| text(event, "/user/username") == "kubernetes-admin");
    let called = all.filter(|event| own.contains(&text(event, "/objectRef/resource").as_str()));
    let not_watched = called.filter(|event| !["watch", "list"].contains(&text(event, "/verb").as_str()));
    let named = not_watched.map(|event| {
        let (verb, resource) = (text(event, "/verb"), text(event, "/objectRef/resource"));
        match text(event, "/objectRef/subresource").as_str() {
            "" => format!("{verb} {resource}"),
            sub => format!("{verb} {resource}/{sub}"),
        }
    });
    named.collect()
}
