//! What the Kubernetes backend promises beyond the ports: any number of replicas write
//! the same objects, and none leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::join::{Event, State};
use berth_domain::phase::Phase;
use berth_server::cluster::kube::{Kube, Settings};
use berth_server::ports::{Joins, Nodes, Observation, PortError, Release, Tokens};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use tokio::task::JoinSet;

use crate::Backend;
use crate::fixtures::{
    binding, claim, events_of, facts, join, key, later, name, now, origin, refusal, soon, the_node, token,
};
use crate::kubernetes::{NAMESPACE, World};
use crate::tokens::race;

pub(crate) async fn replicas(world: &World) -> [Arc<Kube>; 3] {
    [world.replica().await, world.replica().await, world.replica().await]
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
