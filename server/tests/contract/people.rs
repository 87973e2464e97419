//! People with kubectl beside any number of replicas.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Decision, Event};
use berth_domain::phase::Phase;
use berth_domain::token::JoinToken as Token;
use berth_server::cluster::kube::Minting;
use berth_server::ports::{Joins, Nodes, Release, Tokens};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use tokio::sync::watch;

use crate::fixtures::{binding, events_of, join, key, later, name, now, origin, refusal, soon, token};
use crate::kubernetes::{NAMESPACE, World};
use crate::replicas::replicas;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_person_applies_is_minted_once() {
    let Some(world) = World::fresh().await else { return };
    let three = replicas(&world).await;
    let pin = watch::Sender::new(SpkiHash::of(b"ca"));
    for kube in &three {
        kube.mint_applied(minting(pin.subscribe()));
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

pub(crate) fn minting(pin: watch::Receiver<SpkiHash>) -> Minting {
    Minting {
        pin,
        command: Arc::new(|token: &Token| zeroize::Zeroizing::new(format!("join {}", *token.to_text()))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_pins_the_ca_that_serves_when_it_is_minted() {
    let Some(world) = World::fresh().await else { return };
    let kube = world.replica().await;
    let pin = watch::Sender::new(SpkiHash::of(b"first"));
    kube.mint_applied(minting(pin.subscribe()));
    let secrets = Api::<Secret>::namespaced(world.client.clone(), NAMESPACE);
    let pins = async |name: &str| {
        world
            .apply(&format!(
                "apiVersion: berth.dev/v1alpha1\nkind: JoinToken\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n\
                 spec:\n  ttl: 2h\n"
            ))
            .expect("it is legal");
        let minted = async || world.tokens().get(name).await.expect("it is there").record();
        soon("it is minted", async || minted().await.is_some()).await;
        let secret = secrets.get(&format!("{name}-join-token")).await.expect("it is made");
        let text = String::from_utf8(secret.data.expect("a token")["token"].0.clone()).expect("ASCII");
        text.parse::<Token>().expect("a token as it is printed").pin
    };
    assert_eq!(pins("rack1").await, Some(SpkiHash::of(b"first")));
    pin.send_replace(SpkiHash::of(b"second"));
    assert_eq!(pins("rack2").await, Some(SpkiHash::of(b"second")), "the CA was rotated meanwhile");
    kube.close().await;
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
