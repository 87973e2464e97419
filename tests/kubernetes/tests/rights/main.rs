//! What Berth's account may do in a cluster, and what it may not even with a stolen
//! credential: the manifests of `deploy/kubernetes`, applied to a real control plane
//! and put to the test as the account itself. No berth-server runs.

#![expect(clippy::expect_used, clippy::panic, reason = "a test whose cluster does not stand stops there")]

mod cases;
mod forbidden;
mod manifests;
mod people;
mod permitted;
mod world;

use crate::cases::{Case, Expected};
use crate::world::{SERVER, text, world};

#[test]
fn the_account_may_do_what_a_join_needs() {
    let Some(world) = world() else { return };
    put_to_the_test(permitted::table(world));
    // What it approved is signed: the whole way of a certificate.
    let (_, request) = world.server("GET", &format!("{}/berth-own", world::REQUESTS), None);
    let request = world.until("berth-own has a certificate", request, |request| {
        !text(request, "/status/certificate").is_empty()
    });
    assert_eq!(text(&request, "/spec/username"), SERVER);
    // And its calls went through the queue that is theirs.
    let (_, metrics) = world.cluster.api().request("GET", "/metrics", None).expect("the API server answers");
    let dispatched = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"berth-server\"";
    assert!(metrics.contains(dispatched), "no call of Berth's account went by its FlowSchema");
}

#[test]
fn a_stolen_credential_is_held_by_rbac() {
    let Some(world) = world() else { return };
    put_to_the_test(forbidden::by_rbac(world));
    let impersonating = ["--as=kubernetes-admin", "--as-group=system:masters", "get", "nodes"];
    let ran = world.cluster.kubectl_as(&world.kubeconfig, &impersonating).expect("kubectl runs");
    assert!(ran.code == Some(1) && ran.stderr.contains("cannot impersonate"), "impersonating: {ran:?}");
}

#[test]
fn a_stolen_credential_is_held_by_the_admission_policies() {
    let Some(world) = world() else { return };
    put_to_the_test(forbidden::by_policy(world));
}

/// The mark by which Berth knows its Nodes is a kubelet's to set when it registers,
/// and nobody's who has come another way.
#[test]
fn a_kubelet_marks_its_node_when_it_registers_and_never_later() {
    let Some(world) = world() else { return };
    let kubeconfig = world.cluster.node_kubeconfig("hollow").expect("a kubeconfig");
    let flags = ["--register-with-taints=berth.dev/joining=:NoSchedule"];
    let _kubelet = world.cluster.hollow_node("hollow", &kubeconfig, &flags).expect("kubemark starts");
    world.cluster.wait_for_node("hollow", world::PATIENCE).expect("it registers");
    put_to_the_test(permitted::settle(world, "hollow"));

    let kubelet = world.cluster.node_kubeconfig("stranger").expect("a kubeconfig");
    let taint = r#"{"spec":{"taints":[{"key":"berth.dev/joining","effect":"NoSchedule"}]}}"#;
    let patch = ["patch", "node", "stranger", "--type=merge", "-p", taint];
    let ran = world.cluster.kubectl_as(&kubelet, &patch).expect("kubectl runs");
    assert!(ran.code == Some(1) && ran.stderr.contains("not allowed to modify taints"), "{ran:?}");
}

/// As the account, with the rights of an administrator: RBAC holds nothing.
#[test]
fn the_policies_hold_even_where_somebody_has_widened_its_role() {
    let Some(world) = world() else { return };
    let wide = format!("--as={SERVER}");
    let status = r#"{"status":{"phase":"Running"}}"#;
    let tried: [(&str, &[&str], &str); 6] = [
        ("delete a Node", &["delete", "node", "joined"], "deletes Nodes that came through it and leave"),
        (
            "write a Node's status",
            &["patch", "node", "joined", "--subresource=status", "--type=merge", "-p", status],
            "does not write a Node's status",
        ),
        (
            "delete a request",
            &["delete", "csr", "berth-foreign"],
            "submits certificate requests and approves",
        ),
        (
            "change a request",
            &["label", "csr", "berth-undecided", "a=b"],
            "submits certificate requests and approves",
        ),
        (
            "delete a Secret",
            &["--namespace=berth-system", "delete", "secret", "kept"],
            "never changes or deletes one",
        ),
        (
            "change a Secret",
            &["--namespace=berth-system", "label", "secret", "kept", "a=b"],
            "never changes or deletes one",
        ),
    ];
    for (name, arguments, words) in tried {
        let arguments = [&[wide.as_str(), "--as-group=system:masters"], arguments].concat();
        let ran = world.cluster.kubectl_as(world.cluster.kubeconfig(), &arguments).expect("kubectl runs");
        assert!(ran.code == Some(1) && ran.stderr.contains(words), "{name}: {ran:?}");
    }
}

#[test]
fn people_speak_in_their_own_name() {
    let Some(world) = world() else { return };
    put_to_the_test(people::table(world));
}

#[test]
fn the_component_for_bootstrap_tokens_opens_get_and_no_more() {
    let Some(world) = world() else { return };
    let secret = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    let get = || world.server("GET", secret, None).0;
    assert_eq!(get(), 403, "before the component is applied");
    let role = world.manifests("components/bootstrap-tokens/role.yaml");
    let role = role.to_str().expect("a path");
    world.cluster.kubectl(&["apply", "--filename", role]).expect("it is taken");
    assert_eq!(world.until_status(404, get), 404, "with the component: there is no such Secret");
    let list = world.server("GET", "/api/v1/namespaces/kube-system/secrets", None).0;
    assert_eq!(list, 403, "listing Secrets, with the component");
    world.cluster.kubectl(&["delete", "--filename", role]).expect("it goes");
    assert_eq!(world.until_status(403, get), 403, "after the component is taken away");
}

/// Runs all of a table and tells all that went otherwise, each by its name.
fn put_to_the_test(table: Vec<Case<'_>>) {
    let count = table.len();
    let wrong: Vec<String> = table.into_iter().filter_map(|case| case.wrong()).collect();
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

fn refused_by(policy: &'static str, words: &'static str) -> Expected {
    Expected::Policy { policy, words }
}
