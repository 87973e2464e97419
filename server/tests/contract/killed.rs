//! A replica that dies after any number of writes, with or without the answer to
//! the last one, leaves nothing that another cannot go on from by doing the same
//! again.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Decision, Event, State};
use berth_domain::node::Binding;
use berth_domain::phase::Phase;
use berth_domain::proof::Verifier;
use berth_domain::token::JoinToken as Token;
use berth_server::cluster::kube::objects::JoinToken;
use berth_server::cluster::kube::{Kube, Settings};
use berth_server::ports::{Answer, Joins, Nodes, Observation, Release, Tokens};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use tokio::sync::watch;

use crate::fixtures::{
    binding, claim, events_of, facts, join, key, later, name, now, origin, the_node, token,
};
use crate::kubernetes::{NAMESPACE, World};
use crate::mortal::Life;
use crate::people::minting;

/// Does the same on a replica that dies after 0, 1, 2... writes, and then on one
/// that lives, until the first one lives long enough; checks how it ended.
async fn survives(
    before: impl AsyncFn(Arc<Kube>, &World),
    act: impl AsyncFn(Arc<Kube>, u64) -> Answer<()>,
    check: impl AsyncFn(Arc<Kube>, &World),
) {
    for hears in [true, false] {
        for writes in 0..MOST_WRITES {
            let Some(world) = World::fresh().await else { return };
            let first = world.replica().await;
            before(Arc::clone(&first), &world).await;
            first.close().await;

            let life = Life::of(writes, hears);
            let client = life.client(world.cluster().kubeconfig()).await;
            let settings = Settings { behind: Duration::from_millis(50), ..Settings::default() };
            let mortal = Kube::start(client, settings, world.clock.clone());
            mortal.ready(Duration::from_secs(20)).await.expect("the CRDs are there");
            let lived = tokio::select! {
                done = act(Arc::clone(&mortal), 0) => {
                    done.expect("nothing stands in its way");
                    // It may die while it writes behind, too.
                    tokio::time::timeout(Duration::from_millis(600), life.over.notified()).await.is_err()
                }
                () = life.over.notified() => false,
            };
            drop(mortal);

            let living = world.replica().await;
            act(Arc::clone(&living), AGAIN)
                .await
                .unwrap_or_else(|error| panic!("after {writes} writes ({hears}): {error:?}"));
            check(Arc::clone(&living), &world).await;
            living.close().await;
            let later = world.replica().await;
            later.clean(now()).await.expect("the API server is there");
            check(Arc::clone(&later), &world).await;
            later.close().await;
            if lived {
                assert!(writes > 0, "it wrote nothing at all");
                break;
            }
            assert!(writes + 1 < MOST_WRITES, "it never ends");
        }
    }
}

const MOST_WRITES: usize = 16;

/// Seconds until the same is done again.
const AGAIN: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_redeems_and_binds() {
    let minted = || token(1, 1);
    let wanted = || {
        let wanted = binding("n1", "m", "k");
        Binding { join: berth_domain::join::JoinId::of(&minted().id, wanted.key), ..wanted }
    };
    survives(
        async |kube, _| kube.mint(minted()).await.expect("a fresh id"),
        async |kube, at| {
            let wanted = wanted();
            kube.redeem(&claim(&minted(), wanted.key), &origin(&minted().id), later(at)).await?;
            kube.bind(&wanted, later(at + 1)).await?;
            kube.observe(&name("n1"), Observation::Registered { facts: facts() }, later(at + 2)).await?;
            kube.observe(&name("n1"), Observation::Ready, later(at + 3)).await
        },
        async |kube, _| {
            let used = kube.find(&minted().id).await.expect("an answer").expect("it is kept").used.clone();
            assert_eq!(used.len(), 1);
            let record = kube.join(wanted().join).await.expect("an answer").expect("it is known");
            assert_eq!((record.state, record.origin), (State::Ready, Some(origin(&minted().id))));
            let node = the_node(&*kube, "n1").await;
            assert_eq!((node.record.key, node.facts), (key("k"), Some(facts())));
            let events = events_of(&*kube, wanted().join).await;
            let times = |event| events.iter().filter(|said| **said == event).count();
            assert_eq!(times("Redeemed"), 1, "{events:?}");
            // Two where both replicas came so far.
            for event in ["Authorized", "Registered", "Ready"] {
                assert!((1..=2).contains(&times(event)), "{events:?}");
            }
            assert_eq!(kube.joins(10).await.expect("an answer").len(), 1);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_waits_for_approval_and_is_approved() {
    survives(
        async |_, _| {},
        async |kube, at| {
            let redeemed = Event::Redeemed { origin: origin(&token(1, 1).id), key: key("k") };
            kube.record(join("k"), None, redeemed, later(at)).await?;
            let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization);
            kube.record(join("k"), Some(&name("n1")), Event::Waiting { why }, later(at + 1)).await?;
            kube.record(
                join("k"),
                Some(&name("n1")),
                Event::Approved { by: "alice".to_owned() },
                later(at + 2),
            )
            .await?;
            kube.bind(&binding("n1", "m", "k"), later(at + 3)).await.map(drop)
        },
        async |kube, _| {
            let record = kube.join(join("k")).await.expect("an answer").expect("it is known");
            assert_eq!(record.decision, Some(Decision::Approved { by: "alice".to_owned() }));
            assert_eq!(record.origin, Some(origin(&token(1, 1).id)));
            assert_eq!(kube.joins(10).await.expect("an answer").len(), 1);
            assert_eq!(the_node(&*kube, "n1").await.record.join, join("k"));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_machine_comes_back_for_its_name() {
    survives(
        async |kube, _| {
            kube.bind(&binding("n1", "m", "old"), now()).await.expect("a free name");
            kube.observe(&name("n1"), Observation::Ready, later(1)).await.expect("observed");
        },
        async |kube, at| kube.bind(&binding("n1", "m", "new"), later(at + 60)).await.map(drop),
        async |kube, _| {
            let node = the_node(&*kube, "n1").await.record;
            assert_eq!((node.join, node.key), (join("new"), key("new")));
            let old = kube.join(join("old")).await.expect("an answer").expect("its record is kept");
            assert_eq!(old.state, State::Ended);
            assert_eq!(events_of(&*kube, join("old")).await, ["Authorized", "Ready"]);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_name_is_freed() {
    survives(
        async |kube, _| {
            kube.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
        },
        async |kube, at| {
            kube.release(&name("n1"), Release::Forgotten { by: "alice".to_owned() }, later(at + 1))
                .await
                .map(drop)
        },
        async |kube, _| {
            assert!(kube.nodes(None).await.expect("an answer").is_empty());
            let record = kube.join(join("k")).await.expect("an answer").expect("its record is kept");
            assert_eq!(record.state, State::Ended);
            let mut events = events_of(&*kube, join("k")).await;
            // Said again by whoever heard no answer.
            events.dedup();
            assert_eq!(events, ["Authorized", "Forgotten"]);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_mints_what_a_person_applied() {
    survives(
        async |_, world| {
            let spec = serde_json::from_value(serde_json::json!({ "ttl": "1h" })).expect("a legal spec");
            world
                .tokens()
                .create(&PostParams::default(), &JoinToken::new("applied", spec))
                .await
                .expect("it is legal");
        },
        async |kube, _| {
            let pin = watch::Sender::new(SpkiHash::of(b"ca"));
            kube.mint_applied(minting(pin.subscribe()));
            while kube.tokens(now()).await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        },
        async |kube, world| {
            let tokens = kube.tokens(now()).await.expect("an answer");
            let secrets = Api::<Secret>::namespaced(world.client.clone(), NAMESPACE);
            let secrets = secrets.list(&ListParams::default()).await.expect("an administrator may").items;
            let held: Vec<Verifier> = secrets
                .iter()
                .filter_map(|secret| String::from_utf8(secret.data.as_ref()?.get("token")?.0.clone()).ok())
                .filter_map(|text| text.parse::<Token>().ok())
                .map(|token| Verifier::of(&token))
                .collect();
            assert_eq!(held, tokens.into_iter().map(|token| token.verifier).collect::<Vec<_>>());
            assert_eq!(held.len(), 1);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_machine_is_banned() {
    survives(
        async |kube, _| {
            kube.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
        },
        async |kube, at| {
            let ban = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
            kube.release(&name("n1"), ban, later(at + 1)).await.map(drop)
        },
        async |kube, _| {
            assert!(the_node(&*kube, "n1").await.ban.is_some());
            assert_eq!(events_of(&*kube, join("k")).await, ["Authorized", "Banned"]);
        },
    )
    .await;
}
