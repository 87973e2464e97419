//! What the Kubernetes backend promises beyond the ports: any number of replicas,
//! people with kubectl beside them, and an API server that goes and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::join::{Decision, Event, State};
use berth_domain::node::Readiness;
use berth_domain::phase::Phase;
use berth_domain::token::JoinToken as Token;
use berth_kubernetes::{Cluster, Component, Options};
use berth_server::clock::ManualClock;
use berth_server::cluster::kube::{Kube, Minting, Settings};
use berth_server::ports::{Joins, Nodes, Observation, PortError, Release, Tokens};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use tokio::task::JoinSet;

use crate::Backend;
use crate::fixtures::{
    binding, claim, events_of, facts, join, key, later, name, now, origin, refusal, the_node, token,
};
use crate::kubernetes::{NAMESPACE, World, client_of, install};
use crate::tokens::race;

async fn replicas(world: &World) -> [Arc<Kube>; 3] {
    [world.replica().await, world.replica().await, world.replica().await]
}

/// Waits until it holds; what comes by a watch takes a moment.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_grant_a_token_of_one_use_once() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for round in 0..5 {
        let minted = token(round, 1);
        three[0].mint(minted.clone()).await.expect("a fresh id");
        let backends = three.clone().map(|kube| kube as Arc<dyn Backend>);
        // Each of the 100 keys at each replica: 300 at once.
        let (a, b, c) = tokio::join!(
            race(&backends[0], &minted, 100),
            race(&backends[1], &minted, 100),
            race(&backends[2], &minted, 100)
        );
        let winners: BTreeSet<_> = a.into_iter().chain(b).chain(c).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let object = world.tokens().get(minted.id.as_str()).await.expect("it is there");
        let used = object.record().expect("it is minted").used;
        assert_eq!(used.iter().map(|used| used.key).collect::<BTreeSet<_>>(), winners);
    }
}

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
async fn three_replicas_give_a_name_to_one_machine() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for round in 0..5 {
        let node = format!("n{round}");
        let mut racers = JoinSet::new();
        for racer in 0..30 {
            let (kube, node, who) = (Arc::clone(&three[racer % 3]), node.clone(), format!("m{racer}"));
            racers.spawn(async move {
                match kube.bind(&binding(&node, &who, &who), now()).await {
                    Ok(bound) => Some(bound.machine),
                    Err(error) => {
                        assert_eq!(refusal::<()>(Err(error)).code(), Code::NodeNameTaken);
                        None
                    }
                }
            });
        }
        let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}");
        for kube in &three {
            soon("every replica knows whose it is", async || {
                kube.nodes(Some(&name(&node)))
                    .await
                    .expect("an answer")
                    .first()
                    .map(|view| view.record.machine)
                    == winners.first().copied()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_did_another_goes_on_with_at_once() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for round in 0..20_u8 {
        let minted = token(round, 1);
        three[0].mint(minted.clone()).await.expect("a fresh id");
        assert!(three[1].find(&minted.id).await.expect("an answer").is_some(), "minted a moment ago");
        let wanted = binding(&format!("n{round}"), "m", &format!("k{round}"));
        let claimed = claim(&minted, wanted.key);
        three[1].redeem(&claimed, &origin(&minted.id), now()).await.expect("a use");
        three[1].bind(&wanted, now()).await.expect("a free name");
        let admitted = three[2].admit(&wanted.identity.name, wanted.key, later(1)).await;
        admitted.expect("its certificate is good at every replica");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_for_a_replica_that_starts() {
    let Some(world) = World::fresh().await else { return };
    let kube = world.replica().await;
    let minted = token(1, 3);
    kube.mint(minted.clone()).await.expect("a fresh id");
    let wanted = binding("n1", "m", "k");
    kube.redeem(&claim(&minted, wanted.key), &origin(&minted.id), now()).await.expect("a use");
    let used = kube.find(&minted.id).await.expect("an answer").expect("it is kept").used[0].clone();
    let wanted = berth_domain::node::Binding { join: used.join, ..wanted };
    kube.bind(&wanted, later(1)).await.expect("a free name");
    let profile = Digest::of(b"profile");
    kube.observe(&name("n1"), Observation::Configured { profile }, later(2)).await.expect("observed");
    kube.observe(&name("n1"), Observation::Registered { facts: facts() }, later(3)).await.expect("observed");
    kube.observe(&name("n1"), Observation::Ready, later(4)).await.expect("observed");
    let waiting = Diagnosis::new(Code::ApprovalPending, Phase::Authorization);
    kube.record(join("w"), None, Event::Redeemed { origin: origin(&minted.id), key: key("w") }, later(1))
        .await
        .expect("recorded");
    kube.record(join("w"), Some(&name("n2")), Event::Waiting { why: waiting }, later(2))
        .await
        .expect("recorded");
    kube.bind(&binding("n3", "m3", "k3"), later(1)).await.expect("a free name");
    let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
    kube.release(&name("n3"), ban, later(2)).await.expect("an answer");

    let all = async |kube: &Kube| {
        let mut joins = kube.joins(100).await.expect("an answer");
        joins.sort_by_key(|record| record.id);
        let mut events = Vec::new();
        for record in &joins {
            events.push(events_of(kube, record.id).await);
        }
        let nodes = kube.nodes(None).await.expect("an answer");
        let nodes: Vec<_> = nodes.into_iter().map(|view| (view.record, view.ban, view.facts)).collect();
        (kube.tokens(now()).await.expect("an answer"), joins, events, nodes)
    };
    let before = all(&kube).await;
    kube.close().await;
    assert!(matches!(kube.join(join("w")).await, Err(PortError::Unavailable { .. })), "it is closed");
    let again = world.replica().await;
    assert_eq!(all(&again).await, before);
    assert_eq!(before.2.iter().map(Vec::len).sum::<usize>(), 5 + 2 + 2, "{:?}", before.2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_person_applies_is_minted_once() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for kube in &three {
        kube.mint_applied(minting());
    }
    world
        .apply(&format!(
            "apiVersion: berth.dev/v1alpha1\nkind: JoinToken\nmetadata:\n  name: rack1\n  namespace: {NAMESPACE}\n\
             spec:\n  uses: 3\n  pool: gpu\n  names: rack1-*\n  ttl: 2h\n"
        ))
        .expect("it is legal");
    let minted = async || world.tokens().get("rack1").await.expect("it is there").record();
    soon("it is minted", async || minted().await.is_some()).await;
    let record = minted().await.expect("it is minted");
    let secrets = Api::<Secret>::namespaced(world.client.clone(), NAMESPACE);
    let all = secrets.list(&ListParams::default()).await.expect("an administrator may").items;
    assert_eq!(all.len(), 1, "one Secret");
    let data = all[0].data.clone().expect("it holds the token");
    let text = String::from_utf8(data["token"].0.clone()).expect("a token is ASCII");
    let secret: Token = text.parse().expect("a token as it is printed");
    assert_eq!((&secret.id, &berth_domain::proof::Verifier::of(&secret)), (&record.id, &record.verifier));
    assert!(data["join-command"].0.starts_with(b"join "), "the whole command is there too");
    assert_eq!((record.binding.uses, record.binding.pool.as_str()), (3, "gpu"));
    assert_eq!(record.expires, record.created.after(Duration::from_secs(7200)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(minted().await.as_ref(), Some(&record), "no replica minted it again");
    for kube in &three {
        soon("every replica knows it", async || kube.find(&record.id).await.expect("an answer").is_some())
            .await;
    }
    let shown = world.kubectl(&["get", "jointokens", "--namespace", NAMESPACE]);
    assert!(
        shown.contains("rack1") && shown.contains(record.id.as_str()) && shown.contains("True"),
        "{shown}"
    );
    world.kubectl(&["delete", "jointoken", "rack1", "--namespace", NAMESPACE]);
    for kube in &three {
        soon("it is gone", async || kube.tokens(now()).await.expect("an answer").is_empty()).await;
    }
}

pub(crate) fn minting() -> Minting {
    Minting {
        pin: berth_domain::identity::SpkiHash::of(b"ca"),
        command: Arc::new(|token: &Token| zeroize::Zeroizing::new(format!("join {}", *token.to_text()))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_approves_a_join_with_kubectl() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for (who, decision) in [("a", "Approved"), ("d", "Denied")] {
        let redeemed = Event::Redeemed { origin: origin(&token(1, 1).id), key: key(who) };
        three[0].record(join(who), None, redeemed, now()).await.expect("recorded");
        let waiting = Event::Waiting { why: Diagnosis::new(Code::ApprovalPending, Phase::Authorization) };
        three[0].record(join(who), Some(&name("n1")), waiting, later(1)).await.expect("recorded");
        let id = join(who).to_string();
        soon("people see that it waits", async || {
            let object = world.joins().get_opt(&id).await.expect("an administrator may");
            object.and_then(|object| object.status).is_some_and(|status| status.state == "Waiting")
        })
        .await;
        let shown = world.kubectl(&["get", "nodejoins"]);
        assert!(shown.contains("APPROVAL_PENDING") && shown.contains("n1"), "{shown}");
        let patch = format!(
            "{{\"spec\":{{\"approval\":{{\"decision\":\"{decision}\",\"by\":\"alice\",\"reason\":\"because\"}}}}}}"
        );
        world.kubectl(&["patch", "nodejoin", &id, "--type=merge", "--patch", &patch]);
        for kube in &three {
            soon("every replica knows the decision", async || {
                let record = kube.join(join(who)).await.expect("an answer");
                match record.and_then(|record| record.decision) {
                    Some(Decision::Approved { by }) => decision == "Approved" && by == "alice",
                    Some(Decision::Denied { by, reason }) => {
                        decision == "Denied" && by == "alice" && reason == "because"
                    }
                    None => false,
                }
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        for kube in &three {
            assert_eq!(events_of(&**kube, join(who)).await, ["Redeemed", "Waiting", decision], "said once");
        }
        let object = world.joins().get(&id).await.expect("it is there");
        assert!(!object.is_behind(), "its status tells the decision");
        let other = r#"{"spec":{"approval":{"decision":"Approved","by":"mallory"}}}"#;
        let refused = world.kubectl_tries(&["patch", "nodejoin", &id, "--type=merge", "--patch", other]);
        assert!(refused.contains("a join is decided once"), "{refused}");
    }
    three[1].bind(&binding("n1", "m", "a"), later(5)).await.expect("a free name");
    soon("the bound join absorbs what it was before", async || {
        let loose = world.joins().get_opt(&join("a").to_string()).await.expect("an administrator may");
        let named = world.joins().get("n1").await.expect("it is bound");
        let told = named.story().map_or(0, |story| story.entries.len());
        loose.is_none() && !named.is_behind() && told == 4
    })
    .await;
    let again = world.replica().await;
    assert_eq!(events_of(&*again, join("a")).await, ["Redeemed", "Waiting", "Approved", "Authorized"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_node_join_frees_its_name() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    three[0].bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let taken = refusal(three[1].bind(&binding("n1", "other", "k2"), later(1)).await);
    assert_eq!(taken.code(), Code::NodeNameTaken);
    let shown = world.kubectl(&["get", "nodejoins,jointokens,machinebans,nodeprofiles", "--all-namespaces"]);
    assert!(shown.contains("n1"), "{shown}");
    world.kubectl(&["delete", "nodejoin", "n1"]);
    for kube in &three {
        soon("its line is cut at every replica", async || {
            events_of(&**kube, join("k")).await.last() == Some(&"Forgotten")
        })
        .await;
        assert_eq!(
            refusal(kube.admit(&name("n1"), key("k"), later(2)).await).code(),
            Code::CertificateRejected
        );
    }
    three[1].bind(&binding("n1", "other", "k2"), later(3)).await.expect("the name is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_by_kubectl_or_at_one_replica_reaches_every_other() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    for (node, by_hand) in [("n1", false), ("n2", true)] {
        let bound = three[0].bind(&binding(node, node, node), now()).await.expect("a free name");
        if by_hand {
            world
                .apply(&format!(
                    "apiVersion: berth.dev/v1alpha1\nkind: MachineBan\nmetadata:\n  name: {}\nspec:\n  node: {node}\n  by: alice\n",
                    bound.machine
                ))
                .expect("it is legal");
        } else {
            let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
            assert!(three[1].release(&name(node), ban, later(2)).await.expect("an answer"));
        }
        for kube in &three {
            soon("its line is cut", async || events_of(&**kube, join(node)).await.contains(&"Banned")).await;
            let refused = refusal(kube.admit(&name(node), key(node), later(3)).await);
            assert_eq!(refused.code(), Code::MachineBanned);
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let again = world.replica().await;
        assert_eq!(events_of(&*again, join(node)).await, ["Authorized", "Banned"], "said once");
        assert!(
            three[2]
                .release(&name(node), Release::Unbanned { by: "bob".to_owned() }, later(9))
                .await
                .expect("an answer")
        );
        for kube in &three {
            soon("it may come back", async || kube.admit(&name(node), key(node), later(10)).await.is_ok())
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_object_stands_in_nobodys_way() {
    let Some(world) = World::fresh().await else { return };
    let before = world.replica().await;
    // Legal for the API server, and no network.
    world
        .apply(&format!(
            "apiVersion: berth.dev/v1alpha1\nkind: JoinToken\nmetadata:\n  name: bad\n  namespace: {NAMESPACE}\n\
             spec:\n  networks: [\"nowhere\"]\n  ttl: 1h\n"
        ))
        .expect("the schema lets it through");
    // Claims to hold a name that is none.
    let legal = "joinID: j-aaaaaaaaaaaaaaaa\n  started: \"2026-01-01T00:00:00Z\"\n";
    let bound = format!(
        "  node:\n    machine: {0}\n    key: {0}\n    certificate: {{serial: \"01\", notBefore: \"2026-01-01T00:00:00Z\", notAfter: \"2026-01-01T00:00:00Z\"}}\n",
        "ab".repeat(32)
    );
    world
        .apply(&format!(
            "apiVersion: berth.dev/v1alpha1\nkind: NodeJoin\nmetadata:\n  name: localhost\nspec:\n  {legal}{bound}"
        ))
        .expect("the schema lets it through");
    for kube in [before, world.replica().await] {
        let seed = u8::try_from(kube.tokens(now()).await.expect("an answer").len()).expect("few");
        kube.mint(token(seed + 1, 1)).await.expect("others are served");
        kube.bind(&binding(&format!("n{seed}"), "m", "k"), now()).await.expect("others are served");
        soon("each is counted", async || kube.malformed() >= 2).await;
    }
    // And what the schema can refuse, it refuses.
    for (kind, name, spec) in [
        ("JoinToken", "x", "{uses: 1001, ttl: 1h}"),
        ("JoinToken", "x", "{}"),
        ("JoinToken", "x", "{ttl: 1h, expires: \"2026-01-01T00:00:00Z\"}"),
        ("MachineBan", "x", "{node: n1, by: alice}"),
        ("NodeProfile", "a.b", "{}"),
        ("NodeJoin", "x", "{joinID: j-aaaaaaaaaaaaaaaa, started: \"2026-01-01T00:00:00Z\"}"),
    ] {
        let namespace = if kind == "JoinToken" { NAMESPACE } else { "\"\"" };
        let object = format!(
            "apiVersion: berth.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
        assert!(world.apply(&object).is_err(), "{object} was taken");
    }
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
async fn what_ended_goes_with_its_objects() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    three[0].bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    three[0].release(&name("n1"), Release::Left, later(1)).await.expect("an answer");
    three[0].bind(&binding("n1", "m", "k2"), later(2)).await.expect("a free name");
    three[0].bind(&binding("n1", "m", "k3"), later(3)).await.expect("its own name");
    let displaced = three[0].join(join("k2")).await.expect("an answer").expect("it is kept");
    assert_eq!(displaced.state, State::Ended, "its name went to a newer join of the same machine");
    let names = async || {
        let all = world.joins().list(&ListParams::default()).await.expect("an administrator may");
        all.items.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>()
    };
    let (k, k2) = (join("k").to_string(), join("k2").to_string());
    assert_eq!(names().await, BTreeSet::from([k, k2, "n1".to_owned()]));
    soon("the others know", async || three[1].joins(10).await.expect("an answer").len() == 3).await;
    three[1].clean(later(8 * 24 * 3600)).await.expect("cleaned");
    assert_eq!(names().await, BTreeSet::from(["n1".to_owned()]));
    soon("the others forget", async || three[2].joins(10).await.expect("an answer").len() == 1).await;
    assert_eq!(the_node(&*three[2], "n1").await.record.join, join("k3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_at_a_time_cleans_up() {
    let Some(world) = World::fresh().await else { return };
    let leases =
        Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(world.client.clone(), NAMESPACE);
    let _ = leases.delete("berth-cleaner", &DeleteParams::default()).await;
    let holder = async || {
        let lease = leases.get_opt("berth-cleaner").await.expect("an administrator may");
        lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity)
    };
    let settings = |replica: &str| Settings {
        replica: replica.to_owned(),
        clean_every: Duration::from_millis(50),
        ..Settings::default()
    };
    let one = world.replica_with(settings("one")).await;
    soon("it takes the Lease", async || holder().await.as_deref() == Some("one")).await;
    let _other = world.replica_with(settings("other")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(holder().await.as_deref(), Some("one"), "it keeps it");
    one.close().await;
    world.clock.advance(Duration::from_secs(10));
    soon("another takes over", async || holder().await.as_deref() == Some("other")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_uses_than_an_object_holds_are_refused() {
    let Some(world) = World::fresh().await else { return };
    let kube = world.replica().await;
    let refused = refusal(kube.mint(token(1, 1_001)).await);
    assert!(refused.cause().contains("at most 1000 uses"), "{}", refused.cause());
    kube.mint(token(1, 1_000)).await.expect("as many as it holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_goes_is_waited_for() {
    // Others need the shared one while this is away.
    let own = Options::default().flag(Component::Scheduler, "--v=1");
    let Some(cluster) = Cluster::for_tests(&own).expect("a control plane") else { return };
    install(&cluster);
    let client = client_of(cluster.kubeconfig()).await;
    let clock = Arc::new(ManualClock::at(now()));
    let kube = Kube::start(client, Settings::default(), clock);
    kube.ready(Duration::from_secs(20)).await.expect("the CRDs are there");
    let minted = token(1, 5);
    kube.mint(minted.clone()).await.expect("a fresh id");
    kube.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");

    cluster.kill(Component::ApiServer).expect("it runs");
    let asked = Instant::now();
    let away = kube.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await;
    let PortError::Unavailable { lasting: first, .. } = away.expect_err("nobody answers") else {
        panic!("an API server that is away is no refusal");
    };
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let away = kube.bind(&binding("n2", "m2", "k2"), now()).await.expect_err("nobody answers");
    let PortError::Unavailable { lasting, .. } = &away else {
        panic!("an API server that is away is no refusal");
    };
    assert!(*lasting >= first + Duration::from_secs(5), "since the first failure: {lasting:?}");
    let told = away.into_diagnosis(Phase::Authorization, later(60));
    let since = told.value("since").expect("it says since when").to_owned();
    assert!(since < later(56).to_string(), "{since}");
    assert!(kube.away().is_some());
    assert!(kube.admit(&name("n1"), key("k"), later(1)).await.is_ok(), "who has joined is served");
    assert_eq!(kube.nodes(None).await.expect("what is known is told").len(), 1);
    kube.observe(&name("n1"), Observation::Registered { facts: facts() }, later(2)).await.expect("noted");

    // One that starts now waits too, and says nothing that it does not know.
    let client = client_of(cluster.kubeconfig()).await;
    let fresh = Kube::start(client, Settings::default(), Arc::new(ManualClock::at(now())));
    fresh.ready(Duration::from_millis(500)).await.expect_err("nobody answers");
    let unread = fresh.find(&minted.id).await.expect_err("it knows nothing");
    assert!(matches!(unread, PortError::Unavailable { .. }), "{unread:?}");

    cluster.start_again(Component::ApiServer).expect("it starts");
    fresh.ready(Duration::from_secs(20)).await.expect("it reads now");
    assert!(fresh.find(&minted.id).await.expect("an answer").is_some());
    fresh.close().await;
    soon("it goes on", async || {
        kube.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.is_ok()
    })
    .await;
    let joins =
        Api::<berth_server::cluster::kube::objects::NodeJoin>::all(client_of(cluster.kubeconfig()).await);
    soon("what was noted is written", async || {
        let object = joins.get("n1").await.expect("it is there");
        object.status.and_then(|status| status.readiness).as_deref() == Some(Readiness::Registered.as_str())
    })
    .await;
    joins.delete("n1", &DeleteParams::default()).await.expect("an administrator may");
    soon("its watches follow again", async || kube.nodes(None).await.expect("an answer").is_empty()).await;
    kube.close().await;
}
