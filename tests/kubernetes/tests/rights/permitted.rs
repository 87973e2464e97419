//! All that a join, an operator at the admin socket and the upkeep ask of the API
//! server.

use berth_kubernetes::Api;
use serde_json::{Value, json};

use crate::cases::Body::{Changed, Json, None};
use crate::cases::{Body, Case, Expected, of};
use crate::world::{KUBELETS, NODE_JOINS, REQUESTS, World, machine_ban, node_join, request, set};

pub(crate) fn table(world: &World) -> Vec<Case<'_>> {
    let server = &world.server;
    [tokens(server), upkeep(server), joins(server), nodes(server), certificates(server), cluster(server)]
        .into_iter()
        .flatten()
        .collect()
}

fn tokens(server: &Api) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(server, Expected::Done, name, method, path, body);
    let tokens = "/apis/berth.dev/v1alpha1/namespaces/berth-system/jointokens";
    let token = format!("{tokens}/t1");
    let secrets = "/api/v1/namespaces/berth-system/secrets";
    let secret = |name: &str, kind: &str| {
        Json(json!({"metadata": {"name": name}, "type": kind, "stringData": {"token": "x"}}))
    };
    let made = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "JoinToken", "metadata": {"name": "t1"}, "spec": {"ttl": "1h"},
    });
    vec![
        of("make a token", "POST", tokens, Json(made)),
        of("list tokens", "GET", tokens, None),
        of("watch tokens", "GET", &watch(tokens), None),
        of("read a token again", "GET", &token, None),
        of(
            "redeem a token",
            "PUT",
            &format!("{token}/status"),
            Changed(|token| {
                set(token, "", "status", json!({"conditions": []}));
            }),
        ),
        of("delete a token", "DELETE", &token, None),
        of("keep a token's text", "POST", secrets, secret("t1-join-token", "Opaque")),
        of(
            "keep a token's text under a type of its own",
            "POST",
            secrets,
            secret("t2-join-token", "berth.dev/join-token"),
        ),
        of("keep the serving CA", "POST", secrets, secret("berth-serving-ca", "Opaque")),
        of("read the serving CA", "GET", &format!("{secrets}/berth-serving-ca"), None),
    ]
}

fn upkeep(server: &Api) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(server, Expected::Done, name, method, path, body);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/berth-system/leases";
    let cleaner = format!("{leases}/berth-cleaner");
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "joined.1"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "berth.dev/server", "reportingInstance": "berth-server-1",
        "action": "Joined", "reason": "Joined", "type": "Normal",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": "joined"},
    });
    vec![
        of("take the cleaner's Lease", "POST", leases, Json(json!({"metadata": {"name": "berth-cleaner"}}))),
        of("see who cleans", "GET", &cleaner, None),
        of(
            "hold the cleaner's Lease",
            "PUT",
            &cleaner,
            Changed(|lease| {
                set(lease, "", "spec", json!({"holderIdentity": "berth-server-1"}));
            }),
        ),
        of("tell an event on a Node", "POST", events, Json(event)),
    ]
}

fn joins(server: &Api) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(server, Expected::Done, name, method, path, body);
    let bans = "/apis/berth.dev/v1alpha1/machinebans";
    let ban = format!("{bans}/{}", "a".repeat(64));
    let profiles = "/apis/berth.dev/v1alpha1/nodeprofiles";
    let join = format!("{NODE_JOINS}/j-dddddddddddddddd");
    vec![
        of("record a join", "POST", NODE_JOINS, Json(node_join("j-dddddddddddddddd"))),
        of("list joins", "GET", NODE_JOINS, None),
        of("watch joins", "GET", &watch(NODE_JOINS), None),
        of("read a join again", "GET", &join, None),
        of(
            "record an operator's word from the admin socket",
            "PUT",
            &join,
            Changed(|join| {
                set(join, "/spec", "approval", json!({"decision": "Approved", "by": "carol"}));
            }),
        ),
        of(
            "say how a join stands",
            "PUT",
            &format!("{join}/status"),
            Changed(|join| {
                set(
                    join,
                    "",
                    "status",
                    json!({
                        "joinID": "j-dddddddddddddddd", "phase": "authorization", "state": "Running",
                        "updated": "2026-01-01T00:00:01Z",
                    }),
                );
            }),
        ),
        of("free a name", "DELETE", &join, None),
        of("ban a machine", "POST", bans, Json(machine_ban('a', "carol"))),
        of("list bans", "GET", bans, None),
        of("watch bans", "GET", &watch(bans), None),
        of("lift a ban", "DELETE", &ban, None),
        of("list profiles", "GET", profiles, None),
        of("watch profiles", "GET", &watch(profiles), None),
    ]
}

fn nodes(server: &Api) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(server, Expected::Done, name, method, path, body);
    let asked = json!({"metadata": {"name": "would-it-be-admitted"}});
    let leaving = json!({
        "metadata": {"annotations": {"berth.dev/leaving": "true"}}, "spec": {"unschedulable": true},
    });
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "leaves", "namespace": "default"},
    });
    vec![
        of("list Nodes", "GET", "/api/v1/nodes", None),
        of("watch Nodes", "GET", &watch("/api/v1/nodes"), None),
        of("ask whether a Node would be admitted", "POST", "/api/v1/nodes?dryRun=All", Json(asked)),
        settled(server, "settle a Node that has the joining taint", "joining"),
        settled(server, "settle the same Node again", "joining"),
        settled(server, "settle a Node of an earlier join", "joined"),
        of(
            "list the pods of a node that leaves",
            "GET",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dleaves",
            None,
        ),
        of("make a Node that leaves unschedulable", "PATCH", "/api/v1/nodes/leaves", Json(leaving)),
        of("evict a pod of it", "POST", "/api/v1/namespaces/default/pods/leaves/eviction", Json(eviction)),
        of("delete the Node of a node that has left", "DELETE", "/api/v1/nodes/leaves", None),
    ]
}

/// What a join puts on its Node. A hollow kubelet has said this providerID already.
pub(crate) fn settle<'world>(world: &'world World, name: &str) -> Vec<Case<'world>> {
    vec![settled(&world.server, "settle a Node that its kubelet has made", name)]
}

fn settled<'world>(server: &'world Api, case: &'static str, name: &str) -> Case<'world> {
    let applied = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"node-role.kubernetes.io/worker": "", "zone": "a"},
            "annotations": {"berth.dev/join": "j-eeeeeeeeeeeeeeee", "berth.dev/trace-id": "0af7"},
        },
        "spec": {
            "providerID": format!("kubemark://{name}"),
            "taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}],
        },
    });
    let path = format!("/api/v1/nodes/{name}?fieldManager=berth-server&force=true");
    of(server, Expected::Done, case, "APPLY", path, Json(applied))
}

fn certificates(server: &Api) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(server, Expected::Done, name, method, path, body);
    let approval = format!("{REQUESTS}/berth-own/approval");
    let serving = format!("{REQUESTS}?fieldSelector=spec.signerName%3Dkubernetes.io/kubelet-serving");
    vec![
        of("submit a machine's request", "POST", REQUESTS, Json(request("berth-own", KUBELETS))),
        of("list serving requests", "GET", &serving, None),
        of("watch its requests", "GET", &watch(REQUESTS), None),
        of("read its request again", "GET", &format!("{REQUESTS}/berth-own"), None),
        of("approve its request", "PUT", &approval, approved()),
        of("approve it again", "PUT", &approval, Changed(|_| {})),
        of("approve what a kubelet asks for", "PUT", &format!("{REQUESTS}/csr-joined/approval"), approved()),
    ]
}

fn cluster(server: &Api) -> Vec<Case<'_>> {
    let of = |name, path: &str| of(server, Expected::Done, name, "GET", path, None);
    let settings = |name: &str| format!("/api/v1/namespaces/kube-system/configmaps/{name}");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    vec![
        of("know which cluster it is", "/api/v1/namespaces/kube-system"),
        of("know the API server's own CA", "/api/v1/namespaces/berth-system/configmaps/kube-root-ca.crt"),
        of("know the CAs of clients", &settings("extension-apiserver-authentication")),
        of("know kubeadm's settings", &settings("kubeadm-config")),
        of("know kubeadm's kubelet settings", &settings("kubelet-config")),
        of("know the way to the API server", "/api/v1/namespaces/kube-public/configmaps/cluster-info"),
        of("see whether a signer is there", lease),
    ]
}

/// An update that approves.
pub(crate) fn approved() -> Body {
    Changed(|request| {
        let condition: Value =
            json!({"type": "Approved", "status": "True", "reason": "Joined", "message": "by Berth"});
        set(request, "/status", "conditions", json!([condition]));
    })
}

fn watch(path: &str) -> String {
    format!("{path}?watch=true&timeoutSeconds=1")
}
