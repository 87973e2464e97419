//! A control plane of which a part is gone.

use std::time::{Duration, Instant};

use berth_domain::timestamp::Timestamp;
use berth_kubernetes::{Cluster, Component, Options};
use berth_tests::{KubernetesWorld, eventually};
use serde_json::{Value, json};

use crate::join::{Join, text};
use crate::{PATIENCE, PROMISE};

#[test]
fn causes_in_a_control_plane_that_is_cut() {
    // As a real one: with a lease that says who leads.
    let leads =
        ["--leader-elect=true", "--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s"];
    let options = leads
        .iter()
        .fold(Options::default(), |options, flag| options.flag(Component::ControllerManager, flag));
    let options = options.flag(Component::ControllerManager, "--leader-elect-retry-period=1s");
    let Some(cluster) = Cluster::for_tests(&options).expect("a cluster") else { return };
    let mut world = KubernetesWorld::on(cluster, 2, &json!({}));
    row_38_nothing_signs(&mut world);
    row_34_the_store_is_away(&mut world, "n34a", Component::ApiServer);
    row_34_the_store_is_away(&mut world, "n34e", Component::Etcd);
}

fn row_38_nothing_signs(world: &mut KubernetesWorld) {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    let holder = eventually("a leader", PATIENCE, || {
        let lease = world.get(lease)?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    });
    world.cluster.kill(Component::ControllerManager).expect("it runs");
    let mut join = Join::start(world, "n38", &[]);
    let told = join.waits("SIGNER_UNAVAILABLE", Instant::now());
    let csr = text(&told["values"]["csr"]);
    let approved = world.kubectl(&["get", "csr", csr, "--no-headers"]);
    assert!(approved.contains("Approved") && !approved.contains("Issued"), "{approved}");
    assert!(text(&told["values"]["holder"]).contains(&holder), "who held the lease, {holder}: {told:#}");
    assert!(text(&told["mend"]).contains("start kube-controller-manager"), "{told:#}");
    join.operators_see(world, &told, Instant::now());
    world.cluster.start_again(Component::ControllerManager).expect("the mend");
    join.goes_on(world);
}

fn row_34_the_store_is_away(world: &mut KubernetesWorld, node: &str, component: Component) {
    let ids: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    let token = world.token(&[]);
    world.cluster.kill(component).expect("it runs");
    let away = Instant::now();
    let mut join = Join::with(world, node, &token);
    let told = join.waits("STORE_UNAVAILABLE", away);
    let since = text(&told["values"]["since"]).to_owned();
    assert!(!since.is_empty(), "{told:#}");
    assert_eq!(told["values"]["error"], Value::Null, "what it said is for operators: {told:#}");
    assert!(text(&told["mend"]).contains("store"), "{told:#}");
    // No replica can write it down now: the one that has the line tells.
    eventually("the operator's word", PROMISE, || {
        let all = world.servers.iter().flat_map(|server| {
            let listed = server.admin_json(&["joins", "list"]);
            listed["joins"].as_array().cloned().unwrap_or_default()
        });
        let mut waiting = all.filter(|join| join["diagnosis"]["code"] == "STORE_UNAVAILABLE");
        waiting.find(|join| {
            let values = &join["diagnosis"]["values"];
            values["since"] != Value::Null && !text(&values["error"]).is_empty()
        })
    });
    // The moment of the first failure, however often it is met again: one at each replica.
    let met = attempts(world) + 3.0;
    eventually("three more attempts", PATIENCE, || (attempts(world) >= met).then_some(()));
    // They are told to the second, and one that is told again may be rounded otherwise.
    let told = join.told("STORE_UNAVAILABLE");
    let mut moments: Vec<Timestamp> = told.iter().map(|told| moment(&told["values"]["since"])).collect();
    moments.sort();
    moments.dedup_by(|later, earlier| later.since(*earlier) <= Duration::from_secs(1));
    assert!(moments.len() <= world.servers.len(), "{told:#?}");
    world.cluster.start_again(component).expect("the mend");
    // It ends when it cannot renew its lease, and counts on being started again.
    world.cluster.kill(Component::ControllerManager).expect("it was started");
    world.cluster.start_again(Component::ControllerManager).expect("it starts");
    join.goes_on(world);
    let after: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    assert_eq!(ids, after, "no replica restarted");
}

fn moment(value: &Value) -> Timestamp {
    text(value).parse().expect("a moment")
}

/// How often machines have called.
fn attempts(world: &KubernetesWorld) -> f64 {
    let accepted = "berth_connections_total{outcome=\"accepted\"}";
    world.servers.iter().filter_map(|server| server.metric(accepted)).sum()
}
