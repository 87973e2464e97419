//! A cluster as kubeadm leaves it, and nothing prepared for Berth: its tokens
//! prove machines, its ConfigMaps make their profiles, by the rights of a role
//! that names each object.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::{JoinId, Origin};
use berth_domain::node::{CertificateTerms, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, ProofInvalid, TokenKeys};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, JoinToken, TokenRecord, Use};
use berth_kubernetes::{Cluster, Options};
use berth_program::clock::SystemClock;
use berth_server::cluster::bootstrap::{ApiSecrets, BootstrapTokens, MAKER, MOST_USES};
use berth_server::cluster::memory::Memory;
use berth_server::kubernetes::connect;
use berth_server::ports::{Answer, Clock as _, Profiles as _, Tokens as _};
use berth_server::profiles::kubernetes::{ApiSource, Configured, KubernetesProfiles};
use berth_telemetry::metrics::ApiMeter;
use kube::Client;
use serde_json::{Value, json};
use zeroize::Zeroizing;

#[tokio::test]
async fn a_cluster_of_kubeadm_serves_as_it_is() {
    let Some(cluster) = Cluster::for_tests(&Options::default()).expect("a cluster") else { return };
    let seeded = cluster.seed_kubeadm().expect("kubeadm's phases");
    let server = cluster.kubeconfig_for("berth-server", &[]).expect("an account");
    let token: JoinToken = seeded.token.parse().expect("a bootstrap token");

    without_its_rights_the_rule_is_named(&server, &token).await;
    cluster.apply(ROLES).expect("roles");
    its_token_proves_a_machine(&cluster, &server, &token).await;
    people_bind_and_withdraw_tokens(&cluster, &server).await;
    its_config_maps_make_profiles(&cluster, &server, &seeded.ca_hash).await;
}

async fn without_its_rights_the_rule_is_named(server: &Path, token: &JoinToken) {
    let why = refusal(tokens(server).await.find(&token.id).await);
    assert_eq!(why.code(), Code::TokenRejected, "{}", why.cause());
    assert!(why.cause().contains(r#"resources: ["secrets"], verbs: ["get"]"#), "{}", why.cause());
    assert!(!why.told().cause().contains("secrets"), "{}", why.told().cause());
    let why = refusal(profiles(server).await.profile(&node()).await);
    assert_eq!(why.code(), Code::ClusterPermissionMissing, "{}", why.cause());
}

async fn its_token_proves_a_machine(cluster: &Cluster, server: &Path, token: &JoinToken) {
    let mut audit = cluster.audit_from_now().expect("an audit log");
    let tokens = tokens(server).await;
    let known = tokens.find(&token.id).await.expect("reachable").expect("kubeadm made it");
    let (channel, said) = (ChannelBinding::new([7; 32]), Digest::of(b"Hello and Challenge"));
    let proof = TokenKeys::of(token).prove_client(&channel, &said);
    assert_eq!(known.verifier.check_client(&channel, &said, &proof), Ok(()));
    let other = format!("{}.x91mqz40bhc8ydre", token.id);
    let other: JoinToken = other.parse().expect("of the form");
    let proof = TokenKeys::of(&other).prove_client(&channel, &said);
    assert_eq!(known.verifier.check_client(&channel, &said, &proof), Err(ProofInvalid));
    assert_eq!((known.created_by.as_str(), known.binding.uses), (MAKER, MOST_USES));
    assert!(known.expires > now() && known.expires <= now().after(Duration::from_secs(24 * 3_600)));

    for key in 0_u8..20 {
        redeem(&tokens, token, &[key]).await.expect("a use");
    }
    let unknown = "zzzzz0".parse().expect("an id");
    assert_eq!(tokens.find(&unknown).await.expect("reachable"), None);
    let [shadow]: [TokenRecord; 1] =
        tokens.tokens(now()).await.expect("memory").try_into().expect("one shadow");
    assert_eq!((shadow.id.clone(), shadow.used.len()), (token.id.clone(), 20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = audit.events().expect("JSON");
    let asked = |event: &&Value| event["user"]["username"] == "berth-server" && event["verb"] == "get";
    assert_eq!(events.iter().filter(asked).count(), 2, "one read of each id, however many machines come");
}

async fn people_bind_and_withdraw_tokens(cluster: &Cluster, server: &Path) {
    let made: JoinToken = "u7k2pw.x91mqz40bhc8ydre".parse().expect("of the form");
    cluster.apply(&secret(&json!({}), "2100-01-01T00:00:00Z")).expect("a Secret");
    cluster
        .kubectl(&[
            "-n",
            "kube-system",
            "annotate",
            "secret/bootstrap-token-u7k2pw",
            "berth.dev/names=rack1-*",
            "berth.dev/pool=gpu",
            "berth.dev/uses=1",
        ])
        .expect("annotations");
    let tokens = tokens(server).await;
    let known = tokens.find(&made.id).await.expect("reachable").expect("it is there");
    assert_eq!((known.binding.names.as_str(), known.binding.pool.as_str()), ("rack1-*", "gpu"));
    redeem(&tokens, &made, b"a").await.expect("its one use");
    assert_eq!(redeem(&tokens, &made, b"b").await.map_err(|why| why.code()), Err(Code::TokenSpent));

    let closed = json!({"usage-bootstrap-authentication": "false"});
    cluster.apply(&secret(&closed, "2100-01-01T00:00:00Z")).expect("a Secret");
    tokio::time::sleep(STALE).await;
    assert_eq!(redeem(&tokens, &made, b"a").await.map_err(|why| why.code()), Err(Code::TokenRejected));
    cluster.apply(&secret(&json!({}), "2020-01-01T00:00:00Z")).expect("a Secret");
    tokio::time::sleep(STALE).await;
    // The cluster's token cleaner deletes it, sooner or later.
    let refused = redeem(&tokens, &made, b"a").await.map_err(|why| why.code());
    assert!(matches!(refused, Err(Code::TokenExpired | Code::TokenRejected)), "{refused:?}");

    cluster.apply(&secret(&json!({}), "2100-01-01T00:00:00Z")).expect("a Secret");
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    redeem(&tokens, &made, b"a").await.expect("the same key, the same use");
    cluster.kubectl(&["-n", "kube-system", "delete", "secret/bootstrap-token-u7k2pw"]).expect("deleted");
    tokio::time::sleep(STALE).await;
    assert_eq!(tokens.find(&made.id).await.expect("reachable"), None, "gone for Berth, too");
}

async fn its_config_maps_make_profiles(cluster: &Cluster, server: &Path, ca_hash: &str) {
    let profile = profiles(server).await.profile(&node()).await.expect("a profile");
    assert_eq!(profile.api_endpoints, [format!("https://{}", cluster.api().address())]);
    assert_eq!(pin(&profile.ca_bundle), ca_hash);
    assert_eq!(profile.kubelet["clusterDomain"], json!("cluster.local"));
    assert!(profile.kubelet["clusterDNS"].is_array());
    for owned in ["apiVersion", "kind", "rotateCertificates", "staticPodPath", "containerRuntimeEndpoint"] {
        assert_eq!(profile.kubelet.get(owned), None, "{owned} is the agent's");
    }
    assert_eq!(profile.check(), Ok(()));

    cluster.kubectl(&["-n", "kube-public", "delete", "configmap/cluster-info"]).expect("deleted");
    let otherwise = profiles(server).await.profile(&node()).await.expect("enough is known");
    assert_eq!(pin(&otherwise.ca_bundle), ca_hash, "from kube-root-ca.crt");
    assert_eq!(otherwise.api_endpoints, profile.api_endpoints, "from kubeadm-config");
}

async fn client(kubeconfig: &Path) -> Client {
    connect(Some(kubeconfig), ApiMeter::default()).await.expect("a client").client
}

async fn tokens(kubeconfig: &Path) -> BootstrapTokens<Memory> {
    let secrets = Arc::new(ApiSecrets::new(client(kubeconfig).await));
    BootstrapTokens::over(Arc::<Memory>::default(), secrets, Zeroizing::new([5; 32]))
}

async fn profiles(kubeconfig: &Path) -> KubernetesProfiles {
    let maps = Arc::new(ApiSource::new(client(kubeconfig).await));
    let configured = Configured { cluster_id: "uid".to_owned(), ..Configured::default() };
    KubernetesProfiles::new(maps, Arc::new(()), configured, "default".to_owned())
}

async fn redeem(tokens: &BootstrapTokens<Memory>, token: &JoinToken, key: &[u8]) -> Result<Use, Diagnosis> {
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let claim = Claim { token: token.id.clone(), key: SpkiHash::of(key), source };
    let origin = Origin {
        token: token.id.clone(),
        source: "127.0.0.1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        trace_id: None,
    };
    let answer = tokens.redeem(&claim, &origin, now()).await;
    answer.map_err(|error| error.into_diagnosis(Phase::Authentication, now()))
}

fn refusal<T>(answer: Answer<T>) -> Diagnosis {
    let error = answer.err().expect("it cannot be");
    error.into_diagnosis(Phase::Authentication, now())
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn node() -> NodeRecord {
    let key = SpkiHash::of(b"key");
    NodeRecord {
        identity: NodeIdentity {
            name: "n1".parse().expect("a name"),
            pool: "default".parse().expect("a pool"),
        },
        machine: MachineId::of(b"machine"),
        join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key),
        key,
        next_key: None,
        labels: [].into(),
        taints: Vec::new(),
        certificate: CertificateTerms { serial: None, not_before: now(), not_after: now() },
        issued: Vec::new(),
        readiness: Readiness::Bound,
        last_seen: now(),
    }
}

/// The pin of the first CA in a bundle.
fn pin(bundle: &str) -> String {
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::prelude::FromDer as _;
    let der = rustls_pki_types::CertificateDer::from_pem_slice(bundle.as_bytes()).expect("a certificate");
    let (_, ca) = x509_parser::certificate::X509Certificate::from_der(&der).expect("X.509");
    SpkiHash::of(ca.public_key().raw).to_pin()
}

fn secret(changes: &Value, expires: &str) -> String {
    let mut keys = json!({
        "token-id": "u7k2pw",
        "token-secret": "x91mqz40bhc8ydre",
        "usage-bootstrap-authentication": "true",
        "expiration": expires,
    });
    let changes = changes.as_object().expect("an object").clone();
    keys.as_object_mut().expect("an object").extend(changes);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bootstrap-token-u7k2pw", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": keys,
    })
    .to_string()
}

/// A little longer than a Secret is believed.
const STALE: Duration = Duration::from_millis(2_100);

/// What this part of the server may do, and nothing else.
const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: berth-server, namespace: kube-system}
rules:
- {apiGroups: [""], resources: ["secrets"], verbs: ["get"]}
- {apiGroups: [""], resources: ["configmaps"], verbs: ["get"], resourceNames: ["kubeadm-config", "kubelet-config"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: berth-server, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: berth-server}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: berth-server}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: berth-server, namespace: kube-public}
rules:
- {apiGroups: [""], resources: ["configmaps"], verbs: ["get"], resourceNames: ["cluster-info"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: berth-server, namespace: kube-public}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: berth-server}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: berth-server}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: berth-server, namespace: default}
rules:
- {apiGroups: [""], resources: ["configmaps"], verbs: ["get"], resourceNames: ["kube-root-ca.crt"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: berth-server, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: berth-server}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: berth-server}]
"#;
