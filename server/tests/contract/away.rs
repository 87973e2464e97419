//! An API server that goes and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::node::Readiness;
use berth_domain::phase::Phase;
use berth_kubernetes::{Cluster, Component, Options};
use berth_program::clock::ManualClock;
use berth_server::cluster::kube::{Kube, Settings};
use berth_server::ports::{Nodes, Observation, PortError, Tokens};
use kube::api::{Api, DeleteParams};

use crate::fixtures::{binding, claim, facts, key, later, name, now, origin, soon, token};
use crate::kubernetes::{client_of, install};

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
