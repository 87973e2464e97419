//! What every signer does, held to the one with its own CA and to the cluster's
//! behind a real API server; and what only the cluster's can meet.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::NodeIdentity;
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_kubernetes::{Cluster, Component, Options};
use berth_program::clock::SystemClock;
use berth_server::join::authorization::Authorized;
use berth_server::join::authorization::issued::check_issued;
use berth_server::kubernetes::connect;
use berth_server::ports::{Answer, Clock as _, Hold, SignedCertificate, Signer, Takes};
use berth_server::signer::kube::{Authority, KubeSigner};
use berth_server::signer::local::LocalSigner;
use berth_telemetry::metrics::ApiMeter;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_signer_with_its_own_ca_keeps_the_contract() {
    let directory = tempfile::tempdir().expect("a directory");
    let signer = LocalSigner::open_or_create(&directory.path().join("ca"), "c", now()).expect("a CA");
    contract(&signer).await;
}

#[tokio::test]
async fn the_signer_with_kubeadms_ca_keeps_the_contract() {
    let Some(cluster) = cluster() else { return };
    let pki = cluster.pki().expect("it is ours");
    let signer =
        LocalSigner::from_files(&pki.ca_certificate(), &pki.ca_key(), now()).expect("kubeadm's pair");
    contract(&signer).await;
}

#[tokio::test]
async fn the_clusters_signer_keeps_the_contract() {
    let Some(cluster) = cluster() else { return };
    let signer = Running::start(cluster.kubeconfig()).await;
    contract(signer.signer.as_ref()).await;
}

/// What a phase relies on.
async fn contract(signer: &dyn Signer) {
    let authorized = authorized(signer, "contract-1");
    let first = sign(signer, &authorized).await.expect("signed");
    assert_eq!(check_issued(&authorized, &first.chain, &signer.ca_bundle()), Ok(()));
    let again = sign(signer, &authorized).await.expect("as often as it is asked for");
    assert_eq!(check_issued(&authorized, &again.chain, &signer.ca_bundle()), Ok(()));
    if signer.takes() == Takes::Request {
        assert_eq!(first.chain, again.chain, "one request, one certificate");
    }

    let many: Vec<_> = (0..8).map(|n| self::authorized(signer, &format!("contract-many-{n}"))).collect();
    let signed = futures_util::future::join_all(many.iter().map(|one| sign(signer, one))).await;
    for (authorized, signed) in many.iter().zip(signed) {
        let chain = signed.expect("signed beside others").chain;
        assert_eq!(check_issued(authorized, &chain, &signer.ca_bundle()), Ok(()));
    }
}

#[tokio::test]
async fn a_request_that_was_made_again_for_the_same_key_finds_its_first() {
    let Some(cluster) = cluster() else { return };
    let signer = Running::start(cluster.kubeconfig()).await;
    let key = KeyPair::generate().expect("a key");
    let first =
        sign(&*signer.signer, &for_key(&key, "again-1", &request(&key, "again-1"))).await.expect("signed");
    // Another replica, after the first one's answer was lost.
    let other = Running::start(cluster.kubeconfig()).await;
    let again = for_key(&key, "again-1", &request(&key, "again-1"));
    let signed = sign(&*other.signer, &again).await.expect("found");
    assert_eq!(signed.chain, first.chain);
    assert_eq!(check_issued(&again, &signed.chain, &other.signer.ca_bundle()), Ok(()));
}

#[tokio::test]
async fn what_somebody_else_has_put_under_the_name_is_not_approved() {
    let Some(cluster) = cluster() else { return };
    let mallory = cluster.kubeconfig_for("mallory", &["system:masters"]).expect("a kubeconfig");
    let (theirs, ours) = (Running::start(&mallory).await, Running::start(cluster.kubeconfig()).await);
    let authorized = authorized(&*ours.signer, "foreign-1");
    sign(&*theirs.signer, &authorized).await.expect("it is a master");
    let why = refused(sign(&*ours.signer, &authorized).await);
    assert_eq!(why.code(), Code::SignerUnavailable);
    assert!(why.cause().contains("mallory"), "{why}");
    assert!(why.mend().contains("kubectl delete certificatesigningrequest berth-"), "{}", why.mend());
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_with_its_rule() {
    let Some(cluster) = cluster() else { return };
    let nobody = cluster.kubeconfig_for("nobody", &[]).expect("a kubeconfig");
    let signer = Running::start(&nobody).await;
    let why = refused(sign(&*signer.signer, &authorized(&*signer.signer, "n1")).await);
    assert_eq!(why.code(), Code::ClusterPermissionMissing);
    assert_eq!((why.value("verb"), why.value("account")), (Some("create"), Some("nobody")));
    let rule = "- {apiGroups: [\"certificates.k8s.io\"], resources: [\"certificatesigningrequests\"], verbs: [\"create\"]}";
    assert!(why.mend().ends_with(rule), "{}", why.mend());
}

#[tokio::test]
async fn a_request_that_may_not_be_approved_stays_and_a_person_who_denies_it_is_told() {
    let Some(cluster) = cluster() else { return };
    may(
        cluster,
        "creator",
        &json!([{
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests"],
            "verbs": ["create", "get", "list", "watch"],
        }]),
    );
    let creator = cluster.kubeconfig_for("creator", &[]).expect("a kubeconfig");
    let signer = Running::start(&creator).await;
    let authorized = authorized(&*signer.signer, "denied-1");
    let why = refused(sign(&*signer.signer, &authorized).await);
    assert_eq!(why.code(), Code::ClusterPermissionMissing);
    assert!(why.mend().contains("certificatesigningrequests/approval"), "{}", why.mend());

    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let listed = cluster.api().get(requests).expect("a list");
    let items = listed["items"].as_array().expect("a list");
    let mine = items.iter().find(|item| item["spec"]["username"] == "creator").expect("it was made");
    let path = format!("{requests}/{}/approval", mine["metadata"]["name"].as_str().expect("a name"));
    let mut denied = mine.clone();
    denied["status"]["conditions"] =
        json!([{"type": "Denied", "status": "True", "reason": "No", "message": "not this one"}]);
    let (status, body) = cluster.api().request("PUT", &path, Some(&denied)).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let why = refused(sign(&*signer.signer, &authorized).await);
    assert_eq!(why.code(), Code::ApprovalDenied);
    assert!(why.value("reason").is_some_and(|reason| reason.contains("not this one")), "{why}");
}

#[tokio::test]
async fn the_rules_that_are_told_are_all_that_it_takes() {
    let Some(cluster) = cluster() else { return };
    let signer = Running::start(&least(cluster)).await;
    contract(signer.signer.as_ref()).await;
}

/// An account with the rights that the signer needs, and no more.
fn least(cluster: &Cluster) -> PathBuf {
    may(
        cluster,
        LEAST,
        &json!([
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests"],
                "verbs": ["create", "get", "list", "watch"],
            },
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests/approval"],
                "verbs": ["update"],
            },
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["signers"],
                "verbs": ["approve"],
                "resourceNames": ["kubernetes.io/kube-apiserver-client-kubelet"],
            },
        ]),
    );
    cluster.kubeconfig_for(LEAST, &[]).expect("a kubeconfig")
}

/// Who has the rights of [`least`].
const LEAST: &str = "berth";

fn may(cluster: &Cluster, user: &str, rules: &serde_json::Value) {
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules});
    let (status, body) = cluster.api().request("POST", roles, Some(&role)).expect("an answer");
    assert_eq!(status, 201, "{body}");
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let (status, body) = cluster.api().request("POST", bindings, Some(&binding)).expect("an answer");
    assert_eq!(status, 201, "{body}");
}

#[tokio::test]
async fn a_cluster_that_does_not_sign_is_told_and_waited_for() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    let signer = Running::start(cluster.kubeconfig()).await;
    // Its lease has a holder by then.
    sign(&*signer.signer, &authorized(&*signer.signer, "before")).await.expect("signed");
    cluster.kill(Component::ControllerManager).expect("killed");
    let authorized = authorized(&*signer.signer, "stuck-1");
    let (hold, mut held) = watch::channel(None);
    let told = async {
        let began = tokio::time::Instant::now();
        let why = held.wait_for(Option::is_some).await.expect("it signs still").clone().expect("a reason");
        let took = began.elapsed();
        cluster.start_again(Component::ControllerManager).expect("started");
        (why, took)
    };
    let (signed, (why, took)) = tokio::join!(signer.signer.sign(&authorized, &hold), told);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(why.code(), Code::SignerUnavailable);
    assert!(why.value("csr").is_some_and(|csr| csr.starts_with("berth-")), "{why}");
    assert!(why.value("since").is_some() && why.cause().contains("lease"), "{why}");
    assert!(why.mend().contains("kube-controller-manager"), "{}", why.mend());
    let chain = signed.expect("it goes on by itself").chain;
    assert_eq!(check_issued(&authorized, &chain, &signer.signer.ca_bundle()), Ok(()));
}

#[tokio::test]
async fn a_certificate_costs_two_calls() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    // kube-controller-manager approves what a master asks for by itself, at times first.
    let signer = Running::start(&least(&cluster)).await;
    sign(&*signer.signer, &authorized(&*signer.signer, "warm")).await.expect("signed");
    let mut audit = cluster.audit_from_now().expect("an audit log");
    sign(&*signer.signer, &authorized(&*signer.signer, "counted")).await.expect("signed");
    let calls = calls_of(&mut audit);
    assert_eq!(calls, ["create certificatesigningrequests", "update certificatesigningrequests/approval"]);
}

/// What the signer has asked for, as the API server saw it; not who else did.
fn calls_of(audit: &mut berth_kubernetes::AuditLog) -> Vec<String> {
    let text = |event: &serde_json::Value, at: &str| {
        event.pointer(at).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let events = audit.events().expect("the log is readable");
    let ours = events.iter().filter(|event| text(event, "/user/username") == LEAST);
    ours.map(|event| {
        let subresource = text(event, "/objectRef/subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{subresource}", text(event, "/verb"), text(event, "/objectRef/resource"))
    })
    .collect()
}

/// A signer with its watch.
struct Running {
    signer: Arc<KubeSigner>,
    end: CancellationToken,
}

impl Running {
    async fn start(kubeconfig: &Path) -> Self {
        let api = connect(Some(kubeconfig), ApiMeter::default()).await.expect("a way to the API server");
        let authority = Authority::published(api.client.clone(), &api.roots).await.expect("a CA");
        let signer = Arc::new(KubeSigner::new(api.client, authority, Arc::new(SystemClock)));
        let end = CancellationToken::new();
        let (running, until) = (Arc::clone(&signer), end.clone());
        tokio::spawn(async move { running.run(until).await });
        Self { signer, end }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn sign(signer: &dyn Signer, authorized: &Authorized) -> Answer<SignedCertificate> {
    signer.sign(authorized, &Hold::new(None)).await
}

fn refused<T>(answer: Answer<T>) -> Diagnosis {
    match answer {
        Ok(_) => panic!("it was signed"),
        Err(error) => error.into_diagnosis(Phase::Authorization, now()),
    }
}

fn authorized(signer: &dyn Signer, name: &str) -> Authorized {
    let key = KeyPair::generate().expect("a key");
    let authorized = for_key(&key, name, &request(&key, name));
    match signer.takes() {
        Takes::Request => authorized,
        Takes::Key => {
            let terms = CertificateTerms {
                serial: Some("4a00ff".to_owned()),
                not_before: now().before(Duration::from_secs(300)),
                ..authorized.terms().clone()
            };
            Authorized::for_tests(authorized.node().clone(), authorized.public_key().to_vec(), terms)
        }
    }
}

fn for_key(key: &KeyPair, name: &str, request: &[u8]) -> Authorized {
    let node = NodeIdentity { name: name.parse().expect("a name"), pool: Default::default() };
    let terms = CertificateTerms {
        serial: None,
        not_before: now().before(Duration::from_secs(7200)),
        not_after: now().after(Duration::from_secs(3600)),
    };
    Authorized::for_tests_by_request(node, request.to_vec(), key.subject_public_key_info(), terms)
}

fn request(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    params.serialize_request(key).expect("a request").der().to_vec()
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// The cluster that the tests share which do it no harm.
fn cluster() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::for_tests(&Options::default()).expect("a cluster")).as_ref()
}
