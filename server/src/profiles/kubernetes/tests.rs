//! Profiles from ConfigMaps in memory: which object decides what.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::node::{CertificateTerms, Readiness};
use berth_domain::pods::PodNetwork;
use berth_domain::timestamp::Timestamp;

use super::kubeadm::tests::{ca, kubeconfig};
use super::kubelet::tests::KUBEADM;
use super::*;

#[derive(Default)]
struct Maps {
    maps: StdMutex<BTreeMap<(String, String), ConfigMap>>,
    asked: AtomicUsize,
    away: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("a test said so")]
struct Away;

#[async_trait]
impl Source for Maps {
    async fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if self.away.load(Ordering::Relaxed) {
            return Err(PortError::Unavailable {
                operation: "read a ConfigMap",
                cause: Box::new(Away),
                lasting: Duration::ZERO,
            });
        }
        Ok(self.maps.lock().expect("unpoisoned").get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    async fn version(&self) -> Answer<Option<KubernetesVersion>> {
        Ok("v1.36.3".parse().ok())
    }
}

impl Maps {
    fn put(&self, (namespace, name): (&str, &str), key: &str, text: &str) {
        let map = ConfigMap::from([(key.to_owned(), text.to_owned())]);
        self.maps.lock().expect("unpoisoned").insert((namespace.to_owned(), name.to_owned()), map);
    }
}

struct Pool(PoolProfile);

impl PoolProfiles for Pool {
    fn of(&self, pool: &PoolName) -> Option<PoolProfile> {
        (pool.as_str() == "gpu").then(|| self.0.clone())
    }
}

const CLUSTER: &str = "clusterName: prod\ncontrolPlaneEndpoint: cp:6443\nnetworking:\n  dnsDomain: example.local\n  serviceSubnet: 10.96.0.0/12\n";

fn kubeadms() -> Arc<Maps> {
    let maps = Arc::<Maps>::default();
    maps.put(CLUSTER_INFO, "kubeconfig", &kubeconfig("https://10.0.0.1:6443", &ca("info"), ""));
    maps.put(KUBEADM_CONFIG, "ClusterConfiguration", CLUSTER);
    maps.put(KUBELET_CONFIG, "kubelet", KUBEADM);
    maps
}

fn profiles(maps: &Arc<Maps>, configured: Configured, pool: PoolProfile) -> KubernetesProfiles {
    let configured = Configured { cluster_id: "uid".to_owned(), ..configured };
    let maps: Arc<dyn Source> = Arc::<Maps>::clone(maps);
    KubernetesProfiles::new(maps, Arc::new(Pool(pool)), configured, "berth-system".to_owned())
}

fn node(pool: &str) -> NodeRecord {
    let (key, now) = (SpkiHash::of(b"key"), Timestamp::from_millis(1_790_000_000_000));
    NodeRecord {
        identity: NodeIdentity { name: "n1".parse().expect("a name"), pool: pool.parse().expect("a pool") },
        machine: MachineId::of(b"machine"),
        join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key),
        key,
        next_key: None,
        labels: Labels::new(),
        taints: Vec::new(),
        certificate: CertificateTerms {
            serial: None,
            not_before: now,
            not_after: now.after(Duration::from_secs(3_600)),
        },
        issued: vec![now],
        readiness: Readiness::Bound,
        last_seen: now,
    }
}

fn settings(value: Value) -> KubeletSettings {
    serde_json::from_value(value).expect("an object")
}

fn refusal(answer: Answer<Profile>) -> Diagnosis {
    let error = answer.expect_err("it cannot be");
    error.into_diagnosis(Phase::Configuration, Timestamp::default())
}

#[tokio::test]
async fn a_cluster_of_kubeadm_needs_no_configuration() {
    let maps = kubeadms();
    let profile = profiles(&maps, Configured::default(), PoolProfile::default());
    let profile = profile.profile(&node("default")).await.expect("a profile");
    assert_eq!((profile.cluster_id.as_str(), profile.cluster_name.as_str()), ("uid", "prod"));
    assert_eq!(profile.api_endpoints, ["https://10.0.0.1:6443"]);
    assert_eq!(profile.kubernetes_version, "v1.36.3".parse().ok());
    assert!(profile.ca_bundle.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(profile.kubelet["clusterDNS"], json!(["10.96.0.10"]));
    assert_eq!(profile.kubelet["clusterDomain"], json!("cluster.local"), "the kubelet's own word stands");
    assert_eq!(profile.kubelet.get("rotateCertificates"), None, "the agent decides");
    assert_eq!(profile.check(), Ok(()));
}

#[tokio::test]
async fn the_server_s_configuration_overrules_the_cluster_and_a_pool_overrules_both() {
    let configured = Configured {
        cluster_name: Some("ours".to_owned()),
        api_endpoints: vec!["https://vip:443".to_owned()],
        kubelet: settings(json!({"maxPods": 50, "logging": {"verbosity": 2}, "healthzPort": null})),
        pools: BTreeMap::from([(
            "gpu".parse().expect("a pool"),
            PoolSettings {
                labels: Labels::from([("b".parse().expect("a key"), "own".parse().expect("a value"))]),
                kubelet: settings(json!({"maxPods": 60, "podPidsLimit": 9})),
                ..PoolSettings::default()
            },
        )]),
        ..Configured::default()
    };
    let pool = PoolProfile {
        name: "gpu".to_owned(),
        kubelet: settings(json!({"maxPods": 70})),
        labels: Labels::from([("a".parse().expect("a key"), "pool".parse().expect("a value"))]),
        taints: vec!["gpu=yes:NoSchedule".parse().expect("a taint"), "x:NoExecute".parse().expect("a taint")],
        api_endpoints: vec!["https://gpu:443".to_owned()],
        cluster_dns: vec!["169.254.20.10".to_owned()],
        cluster_domain: Some("gpu.local".to_owned()),
        network: PodNetwork::Bridge,
        approval: true,
    };
    let profiles = profiles(&kubeadms(), configured, pool);
    let plain = profiles.profile(&node("default")).await.expect("a profile");
    assert_eq!(
        (plain.cluster_name.as_str(), plain.api_endpoints),
        ("ours", vec!["https://vip:443".to_owned()])
    );
    assert_eq!((&plain.kubelet["maxPods"], plain.kubelet.get("healthzPort")), (&json!(50), None));
    assert_eq!(plain.kubelet["logging"]["verbosity"], json!(2));
    assert_eq!(plain.kubelet["logging"]["flushFrequency"], json!(0), "maps are merged");

    let mut of_gpu = node("gpu");
    of_gpu.labels = Labels::from([("a".parse().expect("a key"), "token".parse().expect("a value"))]);
    of_gpu.taints = vec!["gpu=no:NoSchedule".parse().expect("a taint")];
    let gpu = profiles.profile(&of_gpu).await.expect("a profile");
    assert_eq!((&gpu.kubelet["maxPods"], &gpu.kubelet["podPidsLimit"]), (&json!(70), &json!(9)));
    assert_eq!(gpu.api_endpoints, ["https://gpu:443"]);
    assert_eq!(gpu.kubelet["clusterDNS"], json!(["169.254.20.10"]));
    assert_eq!(gpu.kubelet["clusterDomain"], json!("gpu.local"));
    assert_eq!(gpu.labels, of_gpu.labels, "what was granted stands");
    let words = |taints: &[Taint]| taints.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words(&gpu.taints), ["gpu=no:NoSchedule", "berth.dev/joining:NoSchedule"]);

    for (pool, network) in [("default", plain.network), ("gpu", gpu.network)] {
        assert_eq!(profiles.network(&pool.parse().expect("a pool")), network, "{pool}");
    }
    assert_eq!((plain.network, gpu.network), (PodNetwork::None, PodNetwork::Bridge));

    let pool = profiles.pool(&of_gpu.identity.pool).await.expect("a pool");
    let labels: Vec<String> = pool.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["a=pool", "b=own"]);
    assert_eq!(words(&pool.taints), ["gpu=yes:NoSchedule", "x:NoExecute"]);
    assert!(pool.approval);
}

#[tokio::test]
async fn a_cluster_without_kubeadm_takes_the_root_ca_and_the_configured_endpoints() {
    let maps = Arc::<Maps>::default();
    let why = refusal(
        profiles(&maps, Configured::default(), PoolProfile::default()).profile(&node("default")).await,
    );
    assert_eq!(why.code(), Code::ProfileInvalid);
    assert!(why.mend().contains("ConfigMap berth-system/kube-root-ca.crt"), "{}", why.mend());
    maps.put(("berth-system", ROOT_CA), "ca.crt", &ca("root"));
    let why = refusal(
        profiles(&maps, Configured::default(), PoolProfile::default()).profile(&node("default")).await,
    );
    assert!(why.cause().contains("where the API server is"), "{}", why.cause());
    assert!(why.mend().contains("cluster.apiEndpoints"), "{}", why.mend());
    let configured =
        Configured { api_endpoints: vec!["https://api:6443".to_owned()], ..Configured::default() };
    let profile = profiles(&maps, configured, PoolProfile::default()).profile(&node("default")).await;
    let profile = profile.expect("enough is known");
    assert_eq!((profile.cluster_name.as_str(), profile.kubelet), ("kubernetes", KubeletSettings::new()));
    maps.put(KUBEADM_CONFIG, "ClusterConfiguration", CLUSTER);
    let profile =
        profiles(&maps, Configured::default(), PoolProfile::default()).profile(&node("default")).await;
    let profile = profile.expect("kubeadm says where it is");
    assert_eq!(profile.api_endpoints, ["https://cp:6443"]);
    assert_eq!(
        profile.kubelet,
        settings(json!({"clusterDNS": ["10.96.0.10"], "clusterDomain": "example.local"}))
    );
}

#[tokio::test]
async fn an_object_that_opens_the_kubelet_is_named_with_its_field() {
    let maps = kubeadms();
    let open = KUBEADM.replace("mode: Webhook", "mode: AlwaysAllow");
    maps.put(KUBELET_CONFIG, "kubelet", &open);
    let why = refusal(
        profiles(&maps, Configured::default(), PoolProfile::default()).profile(&node("default")).await,
    );
    assert_eq!(why.code(), Code::ProfileInvalid);
    assert_eq!(why.value("field"), Some("ConfigMap kube-system/kubelet-config, kubelet: authorization.mode"));
    let pool = PoolProfile {
        name: "gpu".to_owned(),
        kubelet: settings(json!({"readOnlyPort": 10255})),
        ..PoolProfile::default()
    };
    let profiles = profiles(&kubeadms(), Configured::default(), pool);
    let why = refusal(profiles.profile(&node("gpu")).await);
    assert_eq!(why.value("field"), Some("NodeProfile gpu, spec.kubelet.readOnlyPort"));
    assert!(profiles.profile(&node("default")).await.is_ok(), "other pools are not held up");
}

#[tokio::test(start_paused = true)]
async fn a_storm_reads_each_object_once_and_a_change_is_seen_within_half_a_minute() {
    let maps = kubeadms();
    let profiles = profiles(&maps, Configured::default(), PoolProfile::default());
    let node = node("default");
    let storm = futures_util::future::join_all((0..500).map(|_| profiles.profile(&node))).await;
    assert!(storm.iter().all(Result::is_ok));
    assert_eq!(maps.asked.load(Ordering::Relaxed), 3);
    maps.put(KUBEADM_CONFIG, "ClusterConfiguration", "clusterName: renamed");
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(profiles.profile(&node).await.expect("a profile").cluster_name, "renamed");
}

#[tokio::test]
async fn who_makes_the_network_is_known_without_a_profile() {
    let maps = kubeadms();
    maps.away.store(true, Ordering::Relaxed);
    let pool = PoolProfile {
        name: "gpu".to_owned(),
        kubelet: settings(json!({"readOnlyPort": 10255})),
        network: PodNetwork::Bridge,
        ..PoolProfile::default()
    };
    let profiles = profiles(&maps, Configured::default(), pool);
    assert_eq!(profiles.network(&"gpu".parse().expect("a pool")), PodNetwork::Bridge);
    assert_eq!(profiles.network(&"default".parse().expect("a pool")), PodNetwork::None);
    assert_eq!(maps.asked.load(Ordering::Relaxed), 0, "a cluster that is away is not asked");
    assert!(profiles.profile(&node("gpu")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_an_older_copy_serves_for_a_while() {
    let maps = kubeadms();
    let profiles = profiles(&maps, Configured::default(), PoolProfile::default());
    let node = node("default");
    maps.away.store(true, Ordering::Relaxed);
    let why = refusal(profiles.profile(&node).await);
    assert_eq!(why.code(), Code::StoreUnavailable);
    maps.away.store(false, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(3)).await;
    profiles.profile(&node).await.expect("it is back");
    maps.away.store(true, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(60)).await;
    let asked = maps.asked.load(Ordering::Relaxed);
    for _ in 0..100 {
        profiles.profile(&node).await.expect("an older copy");
    }
    assert!(maps.asked.load(Ordering::Relaxed) <= asked + 3, "a failure speaks for the next");
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    assert_eq!(refusal(profiles.profile(&node).await).code(), Code::StoreUnavailable);
    // A wrong object is not served from memory.
    maps.away.store(false, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(3)).await;
    profiles.profile(&node).await.expect("it is back");
    maps.put(KUBELET_CONFIG, "kubelet", "apiVersion: v1");
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(refusal(profiles.profile(&node).await).code(), Code::ProfileInvalid);
}
