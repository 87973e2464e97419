//! A cluster comes up and answers; a hollow node becomes Ready; the API server
//! goes and comes back; the audit log tells; a machine finds what kubeadm would
//! have left. The tests share a cluster, which ends with this process.

#![expect(clippy::expect_used, reason = "a test whose cluster does not stand stops there")]

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use berth_kubernetes::{Cluster, Component, Left, Options, Program, programs_for_tests};
use serde_json::{Value, json};

#[test]
fn everybody_gets_in_as_who_they_are() {
    let Some(cluster) = cluster() else { return };
    let who = |kubeconfig: &Path| {
        let said =
            cluster.kubectl_as(kubeconfig, &["auth", "whoami", "--output=json"]).expect("kubectl runs");
        let said: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
        (text(&said, "/status/userInfo/username"), said.pointer("/status/userInfo/groups").cloned())
    };
    assert_eq!(who(cluster.kubeconfig()).0, "kubernetes-admin");
    let jane = cluster.kubeconfig_for("jane", &["operators", "auditors"]).expect("a kubeconfig");
    assert_eq!(
        who(&jane),
        ("jane".to_owned(), Some(json!(["operators", "auditors", "system:authenticated"])))
    );
    let refused = cluster.kubectl_as(&jane, &["get", "nodes"]).expect("kubectl runs");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("Forbidden"), "{refused:?}");
    assert!(cluster.kubeconfig_for("jane", &["a", "b", "c"]).is_err(), "a third group was taken");
}

#[test]
fn a_hollow_node_becomes_ready() {
    let Some(cluster) = cluster() else { return };
    let kubeconfig = cluster.node_kubeconfig("n1").expect("a kubeconfig");
    let flags = ["--node-labels=berth.dev/test=yes", "--register-with-taints=berth.dev/new=yes:NoSchedule"];
    let mut node = cluster.hollow_node("n1", &kubeconfig, &flags).expect("kubemark starts");
    let took = cluster.wait_for_node("n1", PATIENCE).unwrap_or_else(|error| {
        panic!("{error:#}\n{:?}\n{}", node.ended(), std::fs::read_to_string(node.log()).unwrap_or_default())
    });
    report(&format!("a hollow node was Ready after {:.1} s", took.as_secs_f64()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).expect("it runs");
    report(status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
    let seen = cluster.api().get("/api/v1/nodes/n1").expect("the node is there");
    assert_eq!(text(&seen, "/metadata/labels/berth.dev~1test"), "yes");
    assert_eq!(text(&seen, "/spec/taints/0/key"), "berth.dev/new");
    // Another's name is out of its reach: NodeRestriction and the Node authorizer work.
    let other = cluster.kubectl_as(&kubeconfig, &["label", "node", "n2", "a=b"]).expect("kubectl runs");
    assert_eq!(other.code, Some(1), "{other:?}");
    node.stop().expect("it ends");
    let log = std::fs::read_to_string(node.log()).expect("its log");
    let (_, socket) = log.split_once("unix://").expect("its log names its socket");
    let socket = socket.split('"').next().unwrap_or_default().to_owned();
    drop(node);
    assert!(socket.ends_with(".sock") && !Path::new(&socket).exists(), "{socket} was left behind");
}

#[test]
fn the_api_server_goes_and_comes_back_with_all_it_knew() {
    // Others need the shared one while this is away.
    let Some(cluster) = start() else { return };
    // Before the API server goes: that would end it, if it were still beginning.
    cluster.stop(Component::ControllerManager).expect("it ran");
    assert!(cluster.stop(Component::ControllerManager).is_err(), "it was stopped twice");
    cluster.start_again(Component::ControllerManager).expect("it starts again");

    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).expect("a config map");
    let config_map = "/api/v1/namespaces/default/configmaps/kept";

    cluster.kill(Component::ApiServer).expect("it ran");
    assert!(cluster.api().get(config_map).is_err(), "something answers");
    cluster.kill(Component::Etcd).expect("it ran");
    cluster.start_again(Component::Etcd).expect("etcd starts");
    let began = Instant::now();
    cluster.start_again(Component::ApiServer).expect("the API server starts");
    report(&format!("the API server was back after {:.1} s", began.elapsed().as_secs_f64()));
    assert_eq!(text(&cluster.api().get(config_map).expect("it was kept"), "/data/a"), "b");
    assert!(cluster.start_again(Component::ApiServer).is_err(), "it was started twice");

    cluster.pause(Component::ApiServer).expect("it runs");
    let hung = cluster.kubectl_as(cluster.kubeconfig(), &["get", "--raw=/version", "--request-timeout=1s"]);
    assert_ne!(hung.expect("kubectl runs").code, Some(0), "it answered while it was paused");
    cluster.resume(Component::ApiServer).expect("it runs");
    cluster.api().get(config_map).expect("it answers again");

    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "{} was left behind", folder.display());
}

#[test]
fn the_audit_log_tells_who_asked_what() {
    let Some(cluster) = cluster() else { return };
    let mut log = cluster.audit_from_now().expect("an audit log");
    let watcher = cluster.kubeconfig_for("watcher", &[]).expect("a kubeconfig");
    let refused = cluster.kubectl_as(&watcher, &["get", "secrets"]).expect("kubectl runs");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let events = log.events().expect("events");
    let told = events.iter().find(|event| {
        text(event, "/user/username") == "watcher" && text(event, "/objectRef/resource") == "secrets"
    });
    let told = told.unwrap_or_else(|| panic!("{} events, none of it", events.len()));
    assert_eq!(text(told, "/verb"), "list");
    assert_eq!(told.pointer("/responseStatus/code"), Some(&json!(403)));
}

#[test]
fn a_machine_finds_what_kubeadm_join_reads() {
    let Some(cluster) = cluster() else { return };
    let began = Instant::now();
    let seeded = cluster.seed_kubeadm().expect("kubeadm's phases");
    report(&format!("kubeadm's phases took {:.1} s", began.elapsed().as_secs_f64()));
    assert!(seeded.ca_hash.starts_with("sha256:"), "{seeded:?}");
    for path in [
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
        "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
        "/api/v1/namespaces/kube-system/configmaps/kubelet-config",
        "/api/v1/namespaces/kube-system/configmaps/kube-proxy",
    ] {
        cluster.api().get(path).expect("kubeadm put it there");
    }
    let kubelet = cluster.api().get("/api/v1/namespaces/kube-system/configmaps/kubelet-config");
    let kubelet = text(&kubelet.expect("kubeadm put it there"), "/data/kubelet");
    assert!(kubelet.contains("clientCAFile: /etc/kubernetes/pki/ca.crt"), "{kubelet}");
    // The token is good, and the controller manager approves and signs.
    let bootstrap = cluster.kubeconfig_of_token("bootstrap", &seeded.token).expect("a kubeconfig");
    let folder = cluster.folder().join("nodes/n3");
    let kubeconfig = folder.join("kubelet.conf");
    let flags = [
        format!("--bootstrap-kubeconfig={}", bootstrap.display()),
        format!("--cert-dir={}", folder.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let _node = cluster.hollow_node("n3", &kubeconfig, &flags).expect("kubemark starts");
    let took = cluster.wait_for_node("n3", PATIENCE).expect("it joins by itself");
    report(&format!("a hollow node with a bootstrap token was Ready after {:.1} s", took.as_secs_f64()));
}

#[test]
fn a_borrowed_cluster_answers_and_keeps_its_keys() {
    let Some(cluster) = cluster() else { return };
    let borrowed = Cluster::from_kubeconfig(cluster.kubeconfig()).expect("it can be borrowed");
    borrowed.api().get("/api/v1/namespaces/default").expect("it answers");
    borrowed.kubectl(&["get", "namespaces"]).expect("kubectl runs");
    let kubeconfig = cluster.node_kubeconfig("n4").expect("a kubeconfig");
    let _node = borrowed.hollow_node("n4", &kubeconfig, &[]).expect("kubemark starts");
    borrowed.wait_for_node("n4", PATIENCE).expect("it takes nodes");
    assert!(borrowed.pki().is_err() && borrowed.kill(Component::Etcd).is_err());
    assert!(borrowed.audit_from_now().is_err() && borrowed.kubeconfig_for("jane", &[]).is_err());
}

#[test]
fn a_component_that_ends_early_says_why() {
    let Some(_) = cluster() else { return };
    let wrong = Options::default().flag(Component::ApiServer, "--authorization-mode=Nobody");
    let error = format!("{:#}", Cluster::start(&wrong).err().expect("it does not start"));
    assert!(error.starts_with("kube-apiserver ended with exit status: 1 after"), "{error}");
    assert!(error.contains("Nobody"), "its last words are not told: {error}");
}

#[test]
fn a_cluster_in_a_folder_is_seen_by_others() {
    let Some(cluster) = cluster() else { return };
    let left = Left::find(cluster.folder()).expect("its state").expect("it is there");
    let standing = left.standing().expect("its processes");
    let components = standing.iter().filter(|process| process.ready.is_some());
    for process in components {
        let memory = process.memory.unwrap_or_default() / 1024;
        report(&format!("{:<24} {memory} MiB", process.name));
        assert_eq!((process.id.is_some(), process.ready), (true, Some(true)), "{}", process.name);
    }
}

/// The cluster of all tests that leave it standing.
fn cluster() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(start).as_ref()
}

/// A cluster that is ours, even where `BERTH_TEST_KUBECONFIG` offers one.
fn start() -> Option<Cluster> {
    programs_for_tests(&Program::USUAL).expect("the programs")?;
    let began = Instant::now();
    let cluster = Cluster::start(&Options::default()).expect("a cluster");
    report(&format!("a cluster was ready after {:.1} s", began.elapsed().as_secs_f64()));
    Some(cluster)
}

/// Says what was measured, past libtest's capture.
fn report(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "  {line}").expect("standard error is open");
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

const PATIENCE: Duration = Duration::from_secs(90);
