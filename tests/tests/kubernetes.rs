//! Joins on a real control plane: three replicas with the account that the
//! manifests give them, HAProxy before them, machines whose kubelets are hollow
//! nodes with the certificate that Berth issued.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::time::Duration;

use berth_kubernetes::{ACCOUNT, Cluster, Component};
use berth_tests::race::{race, racers, runtime};
use berth_tests::{Agent, KubernetesWorld, eventually, joined};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// The most calls of the API server that one join may cost with the kube signer.
const MOST_CALLS: usize = 8;

#[test]
fn a_machine_becomes_a_ready_node_of_a_real_cluster() {
    let Some(mut world) = KubernetesWorld::start(3, &json!({})) else { return };
    let token = world.token(&[
        "--name",
        "n*",
        "--uses",
        "3",
        "--label",
        "node-role.kubernetes.io/worker=",
        "--label",
        "rack=r1",
        "--taint",
        "dedicated=gpu:NoSchedule",
    ]);
    let machine = world.machine("n1");
    let joined = world.join(&machine, &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());

    let node = world.get("/api/v1/nodes/n1").expect("the Node");
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["node-role.kubernetes.io/worker"], "", "a role is the server's to give: {labels}");
    assert_eq!(labels["rack"], "r1", "{labels}");
    let annotations = &node["metadata"]["annotations"];
    let explained = world.servers[2].explain("n1");
    assert_eq!(annotations["berth.dev/join"], explained["join"]["id"], "{annotations}");
    assert_eq!(annotations["berth.dev/trace-id"], joined.result()["traceId"], "{annotations}");
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    assert!(taints.iter().any(|taint| taint["key"] == "dedicated"), "{taints:?}");
    assert!(!taints.iter().any(|taint| taint["key"] == "berth.dev/joining"), "{taints:?}");
    assert_eq!(explained["join"]["state"], "Ready", "another replica tells the same: {explained:#}");

    the_next_costs_few_calls(&mut world, &token);
    the_certificate_is_the_nodes_and_no_more(&world, &machine);
    let row = world.kubectl(&["get", "nodejoins", "--no-headers"]);
    assert!(row.contains("n1") && row.contains("Ready"), "{row}");
}

/// Counted from the API server's own audit log, once the cluster's configuration
/// has been read: that is done every half minute, whatever joins there are.
fn the_next_costs_few_calls(world: &mut KubernetesWorld, token: &str) {
    let machine = world.machine("n2");
    let mut audit = world.cluster.audit_from_now().expect("the cluster is our own");
    let joined = world.join(&machine, token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let events = audit.events().expect("the audit log");
    let own: Vec<&Value> = events.iter().filter(|event| event["user"]["username"] == ACCOUNT).collect();
    for event in &own {
        assert!(event["impersonatedUser"].is_null(), "no impersonation: {event:#}");
        let name = event["userAgent"].as_str().unwrap_or_default();
        assert!(name.starts_with("berth-server/"), "it says who it is: {event:#}");
    }
    let calls: Vec<String> = own
        .iter()
        .filter(|event| event["stage"] == "ResponseComplete" && event["verb"] != "watch")
        .filter(|event| {
            let of_all = ["leases", "configmaps"].iter().any(|kind| event["objectRef"]["resource"] == *kind);
            !of_all && event["requestURI"] != "/version"
        })
        .map(|event| {
            let object = &event["objectRef"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!(
                "{} {}/{} {}",
                text(&event["verb"]),
                text(&object["resource"]),
                text(&object["subresource"]),
                event["responseStatus"]["code"]
            )
        })
        .collect();
    assert!(!calls.is_empty() && calls.len() <= MOST_CALLS, "{} calls for one join: {calls:#?}", calls.len());
}

fn the_certificate_is_the_nodes_and_no_more(world: &KubernetesWorld, machine: &Agent) {
    let kubeconfig = machine.root().with_extension("kubeconfig");
    let ran = |arguments: &[&str]| world.cluster.kubectl_as(&kubeconfig, arguments).expect("kubectl runs");
    let whoami = ran(&["auth", "whoami", "-o", "json"]);
    let whoami: Value = serde_json::from_str(&whoami.stdout).expect("JSON");
    let user = &whoami["status"]["userInfo"];
    assert_eq!(user["username"], "system:node:n1", "{user}");
    let groups = user["groups"].as_array().cloned().unwrap_or_default();
    assert!(groups.contains(&json!("system:nodes")), "{user}");
    let restricted = ran(&["label", "node", "n1", "node-restriction.kubernetes.io/x=y"]);
    assert_ne!(restricted.code, Some(0), "NodeRestriction holds: {restricted:?}");
    let other = ran(&["get", "secrets", "--all-namespaces"]);
    assert_ne!(other.code, Some(0), "a node reads no secrets: {other:?}");
}

#[test]
fn one_key_of_three_hundred_wins_a_token_over_three_replicas() {
    let roomy = json!({
        "limits": { "connectionsPerSource": 2000, "joinsInFlight": 2000, "queue": 4096 },
        "telemetry": { "logLevel": "warn" },
    });
    let racers = racers(300);
    let Some(world) = KubernetesWorld::start(3, &roomy) else { return };
    let runtime = runtime();
    for round in 1..=20 {
        let token = world.token(&[]);
        let ended = race(&runtime, &token, &[world.balancer.endpoint()], &racers);
        let winners: Vec<_> = ended.iter().filter_map(|ended| ended.issued.as_ref()).collect();
        let [winner] = winners.as_slice() else {
            panic!(
                "round {round}: {} keys of {} have a certificate: {winners:#?}",
                winners.len(),
                racers.len()
            );
        };
        let id = token.split('.').nth(1).unwrap_or_default();
        for server in &world.servers {
            // Each replica hears of it by its own watch.
            eventually("every replica knows the one use", PATIENCE, || {
                let listed = server.admin_json(&["token", "list"]);
                let tokens = listed["tokens"].as_array().cloned().unwrap_or_default();
                let token = tokens.into_iter().find(|token| token["id"] == id)?;
                (token["usedBy"] == json!([winner.join.to_string()])).then_some(())
            });
        }
    }
}

#[test]
fn a_person_lets_a_join_go_on_with_kubectl() {
    let Some(mut world) = KubernetesWorld::start(2, &json!({})) else { return };
    let token = world.token(&["--name", "n1", "--approval"]);
    let machine = world.machine("n1");
    let mut running = machine.start_join(world.balancer.endpoint(), &token, &[]);
    let waiting = eventually("a join that waits for approval", PATIENCE, || {
        let joins = world.get("/apis/berth.dev/v1alpha1/nodejoins")?;
        let items = joins["items"].as_array()?.clone();
        items.into_iter().find(|join| join["status"]["code"] == "APPROVAL_PENDING")
    });
    let name = waiting["metadata"]["name"].as_str().expect("a name").to_owned();
    let word = |by: &str| {
        let patch = json!({ "spec": { "approval": { "decision": "Approved", "by": by } } }).to_string();
        let alice = world.cluster.kubeconfig_for("alice", &["system:masters"]).expect("a kubeconfig");
        let arguments = ["patch", "nodejoin", name.as_str(), "--type=merge", "-p", patch.as_str()];
        world.cluster.kubectl_as(&alice, &arguments).expect("kubectl runs")
    };
    let forged = word("bob");
    assert_ne!(forged.code, Some(0), "nobody approves in another's name: {forged:?}");
    let honest = word("alice");
    assert_eq!(honest.code, Some(0), "{honest:?}");
    world.start_kubelet(&machine, &mut running);
    let joined = joined(running.wait(PATIENCE));
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let explained = world.servers[1].explain("n1");
    let events = explained["events"].as_array().cloned().unwrap_or_default();
    let approved = events.iter().find(|event| event["kind"] == "approved").expect("it is in the record");
    assert_eq!(approved["values"]["by"], "alice", "{approved:#}");
}

#[test]
fn an_applied_token_is_minted_once_and_joins() {
    let Some(mut world) = KubernetesWorld::start(3, &json!({})) else { return };
    let manifest = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "JoinToken",
        "metadata": { "name": "rack1", "namespace": "berth-system" },
        "spec": { "names": "rack1-*", "uses": 2, "ttl": "1h" },
    });
    world.cluster.apply(&manifest.to_string()).expect("it is taken");
    let secret = eventually("the token's Secret", PATIENCE, || {
        world.get("/api/v1/namespaces/berth-system/secrets/rack1-join-token")
    });
    let token = secret["data"]["token"].as_str().and_then(base64).expect("its token");
    let machine = world.machine("rack1-n1");
    let joined = world.join(&machine, &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
}

/// Just enough of RFC 4648 for what an API server writes.
fn base64(text: &str) -> Option<String> {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut held = 0;
    let mut bytes = Vec::new();
    for symbol in text.bytes().filter(|byte| *byte != b'=') {
        let value = SYMBOLS.iter().position(|known| *known == symbol)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[test]
fn joins_wait_while_the_api_server_is_away_and_go_on() {
    let Some(mut world) = KubernetesWorld::start(2, &json!({})) else { return };
    let token = world.token(&["--uses", "5"]);
    world.cluster.kill(Component::ApiServer).expect("it runs");
    let machine = world.machine("n1");
    let mut running = machine.start_join(world.balancer.endpoint(), &token, &["--timeout", "80s"]);
    eventually("the agent's word on what it waits for", PATIENCE, || {
        running.stdout().contains("STORE_UNAVAILABLE").then_some(())
    });
    let ids: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    world.cluster.start_again(Component::ApiServer).expect("it starts again");
    world.start_kubelet(&machine, &mut running);
    let joined = joined(running.wait(PATIENCE));
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let after: Vec<u32> = world.servers.iter().map(|server| server.process().id()).collect();
    assert_eq!(ids, after, "no replica restarted");
}

#[test]
fn a_cluster_that_kubeadm_prepared_takes_a_machine_by_its_own_token() {
    let Some(cluster) = Cluster::for_tests(&berth_kubernetes::Options::default()).expect("a cluster") else {
        return;
    };
    let seeded = cluster.seed_kubeadm().expect("kubeadm's phases");
    let token = seeded.token;
    let mut world = KubernetesWorld::on(cluster, 2, &json!({ "kubernetes": { "bootstrapTokens": true } }));
    let machine = world.machine("n1");
    let joined = world.join(&machine, &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let configuration =
        std::fs::read_to_string(machine.path("/var/lib/kubelet/config.yaml")).expect("a file");
    assert!(
        configuration.contains("clusterDomain: cluster.local"),
        "kubelet-config is the profile:\n{configuration}"
    );
}
