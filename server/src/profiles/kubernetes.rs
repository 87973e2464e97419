//! Profiles of a Kubernetes cluster: what kubeadm keeps of it in ConfigMaps, over
//! that the server's own configuration, over that the pool's `NodeProfile`. The
//! cluster's part is read anew when it is half a minute old, once for all that
//! ask, so that no join makes calls of its own.

mod kubeadm;
mod kubelet;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::labels::{Labels, Taint};
use berth_domain::name::PoolName;
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::pods::PodNetwork;
use berth_domain::profile::{
    KubeletSettings, LONGEST_KUBELET_CONFIGURATION, MOST_ENDPOINTS, Profile, check_kubelet,
};
use berth_domain::version::KubernetesVersion;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::policy::Pool;
use crate::ports::{Answer, PortError, Profiles};
use crate::profiles::PoolSettings;
use kubeadm::{ClusterConfiguration, Way};

pub use source::{ApiSource, ConfigMap, Source};

/// How long the cluster's part is believed.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How long a failure speaks for the next who asks.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// How long an older copy serves while the API server cannot be reached.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
const KUBEADM_CONFIG: (&str, &str) = ("kube-system", "kubeadm-config");
const KUBELET_CONFIG: (&str, &str) = ("kube-system", "kubelet-config");
/// In every namespace (KCM's root-ca-certificate-publisher).
const ROOT_CA: &str = "kube-root-ca.crt";

/// What the server's own configuration says; it overrules the cluster's part.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name in kubeconfigs, unless it is the cluster's own.
    pub cluster_name: Option<String>,
    /// URLs of the API servers; none takes the cluster's own.
    pub api_endpoints: Vec<String>,
    /// The kubelet's settings, for every pool.
    pub kubelet: KubeletSettings,
    /// What pools set differently.
    pub pools: BTreeMap<PoolName, PoolSettings>,
}

/// A pool's `NodeProfile`, as far as profiles go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolProfile {
    /// The object's name: the pool's, or `default`.
    pub name: String,
    /// The kubelet's settings.
    pub kubelet: KubeletSettings,
    /// Labels of its Nodes, unless the token says otherwise.
    pub labels: Labels,
    /// Taints of its Nodes.
    pub taints: Vec<Taint>,
    /// Whether a person must approve each join into the pool.
    pub approval: bool,
    /// URLs of the API servers.
    pub api_endpoints: Vec<String>,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<String>,
    /// The cluster's DNS domain.
    pub cluster_domain: Option<String>,
    /// Who makes the network of its pods.
    pub network: PodNetwork,
}

/// `NodeProfile` objects, from a watch's cache: asking costs nothing.
pub trait PoolProfiles: Send + Sync {
    /// The pool's own, else the one called `default`.
    fn of(&self, pool: &PoolName) -> Option<PoolProfile>;
}

/// A cluster without `NodeProfile` objects.
impl PoolProfiles for () {
    fn of(&self, _pool: &PoolName) -> Option<PoolProfile> {
        None
    }
}

/// What stands in a profile's way, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    field: String,
    problem: String,
}

/// Profiles of a Kubernetes cluster.
pub struct KubernetesProfiles {
    source: Arc<dyn Source>,
    pools: Arc<dyn PoolProfiles>,
    configured: Configured,
    namespace: String,
    seen: Mutex<Option<Seen>>,
}

/// The cluster's part.
struct Base {
    cluster_name: String,
    api_endpoints: Vec<String>,
    ca_bundle: String,
    kubelet: KubeletSettings,
    version: Option<KubernetesVersion>,
}

struct Seen {
    /// When it was tried last.
    at: Instant,
    failed: Option<Failed>,
    /// The first failure of the row that `failed` ends.
    failing_since: Instant,
    /// The last that was good, and when.
    good: Option<(Instant, Arc<Base>)>,
}

impl Seen {
    fn failing_for(&self) -> Duration {
        self.failing_since.elapsed()
    }
}

#[derive(Clone)]
enum Failed {
    Refused(Diagnosis),
    Unavailable(Arc<PortError>),
}

/// The read that failed a moment ago.
#[derive(Debug, thiserror::Error)]
#[error("the cluster's ConfigMaps were not read a moment ago")]
struct FailedBefore(#[source] Arc<PortError>);

impl KubernetesProfiles {
    /// Profiles from this cluster and these `NodeProfile`s. `namespace` is Berth's
    /// own, where `kube-root-ca.crt` stands in for a missing `cluster-info`.
    #[must_use]
    pub fn new(
        source: Arc<dyn Source>,
        pools: Arc<dyn PoolProfiles>,
        configured: Configured,
        namespace: String,
    ) -> Self {
        Self { source, pools, configured, namespace, seen: Mutex::new(None) }
    }

    /// The cluster's part, at most [`FRESH_FOR`] old while the cluster answers.
    async fn base(&self) -> Answer<Arc<Base>> {
        let mut seen = self.seen.lock().await;
        let is_due = seen.as_ref().is_none_or(|seen| {
            let kept = if seen.failed.is_some() { FAILED_FOR } else { FRESH_FOR };
            seen.at.elapsed() >= kept
        });
        if is_due {
            let read = self.read().await;
            let at = Instant::now();
            let failing_since =
                seen.as_ref().filter(|seen| seen.failed.is_some()).map_or(at, |seen| seen.failing_since);
            let before = seen.take().and_then(|seen| seen.good);
            let (failed, good) = match read {
                Ok(base) => (None, Some((at, Arc::new(base)))),
                // A wrong object is wrong now, whatever it was before.
                Err(PortError::Refused(why)) => (Some(Failed::Refused(*why)), None),
                Err(away @ PortError::Unavailable { .. }) => {
                    (Some(Failed::Unavailable(Arc::new(away))), before)
                }
            };
            *seen = Some(Seen { at, failed, failing_since, good });
        }
        match seen.as_ref() {
            Some(Seen { good: Some((at, base)), failed, .. })
                if failed.is_none() || at.elapsed() < KEPT_FOR =>
            {
                Ok(Arc::clone(base))
            }
            Some(Seen { failed: Some(Failed::Refused(why)), .. }) => Err(why.clone().into()),
            Some(Seen { failed: Some(Failed::Unavailable(away)), .. }) => {
                let cause = Box::new(FailedBefore(Arc::clone(away)));
                Err(PortError::Unavailable {
                    operation: "read the cluster's ConfigMaps",
                    cause,
                    lasting: seen.as_ref().map_or(Duration::ZERO, Seen::failing_for),
                })
            }
            // It was just put there.
            Some(Seen { failed: None, .. }) | None => Err(none_known().into()),
        }
    }

    async fn read(&self) -> Answer<Base> {
        let root_ca = (self.namespace.as_str(), ROOT_CA);
        let [info, cluster, kubelet] = [CLUSTER_INFO, KUBEADM_CONFIG, KUBELET_CONFIG]
            .map(|(namespace, name)| self.source.config_map(namespace, name));
        let version = self.source.version();
        let (info, cluster, kubelet, version) = futures_util::try_join!(info, cluster, kubelet, version)?;
        let said = |map: &Option<ConfigMap>, key: &str| map.as_ref().and_then(|map| map.get(key).cloned());
        let way = said(&info, "kubeconfig").map(|text| kubeadm::cluster_info(&text, &named(CLUSTER_INFO)));
        let way = way.transpose()?;
        let cluster = match said(&cluster, "ClusterConfiguration") {
            Some(text) => kubeadm::cluster_configuration(&text, &named(KUBEADM_CONFIG))?,
            None => ClusterConfiguration::default(),
        };
        let kubelet = match said(&kubelet, "kubelet") {
            Some(text) => kubelet::settings(&text, &named(KUBELET_CONFIG))?,
            None => KubeletSettings::new(),
        };
        let (server, ca_bundle) = match way {
            Some(Way { server, ca_bundle }) => (Some(server), ca_bundle),
            None => (None, self.root_ca(root_ca).await?),
        };
        Ok(self.laid(server, ca_bundle, &cluster, kubelet, version))
    }

    async fn root_ca(&self, (namespace, name): (&str, &str)) -> Answer<String> {
        let map = self.source.config_map(namespace, name).await?;
        let pem = map.and_then(|map| map.get("ca.crt").cloned()).unwrap_or_default();
        kubeadm::check_bundle(&pem).map_err(|problem| {
            let field = format!("{}, ca.crt, or {}", named((namespace, name)), named(CLUSTER_INFO));
            Problem { field, problem: format!("the cluster's CA is not known: {problem}") }
        })?;
        Ok(pem)
    }

    fn laid(
        &self,
        server: Option<String>,
        ca_bundle: String,
        cluster: &ClusterConfiguration,
        mut kubelet: KubeletSettings,
        version: Option<KubernetesVersion>,
    ) -> Base {
        let own = &self.configured;
        if let Some(dns) = cluster.dns {
            kubelet.entry("clusterDNS".to_owned()).or_insert_with(|| json!([dns.to_string()]));
        }
        if let Some(domain) = &cluster.domain {
            kubelet.entry("clusterDomain".to_owned()).or_insert_with(|| json!(domain));
        }
        kubelet::lay(&mut kubelet, &own.kubelet);
        let api_endpoints = if own.api_endpoints.is_empty() {
            server.or_else(|| cluster.endpoint.clone()).into_iter().collect()
        } else {
            own.api_endpoints.clone()
        };
        let name = own.cluster_name.as_ref().or(cluster.name.as_ref());
        let cluster_name = name.cloned().unwrap_or_else(|| "kubernetes".to_owned());
        Base { cluster_name, api_endpoints, ca_bundle, kubelet, version }
    }
}

#[async_trait]
impl Profiles for KubernetesProfiles {
    async fn pool(&self, name: &PoolName) -> Answer<Pool> {
        let own = self.configured.pools.get(name).cloned().unwrap_or_default();
        let pool = self.pools.of(name).unwrap_or_default();
        let mut labels = own.labels;
        labels.extend(pool.labels);
        let taints = own.taints.into_iter().chain(pool.taints).collect();
        Ok(Pool { labels, taints, approval: pool.approval })
    }

    fn network(&self, pool: &PoolName) -> PodNetwork {
        self.pools.of(pool).unwrap_or_default().network
    }

    async fn profile(&self, node: &NodeRecord) -> Answer<Profile> {
        let base = self.base().await?;
        let pool = self.pools.of(&node.identity.pool).unwrap_or_default();
        pool.check()?;
        let mut kubelet = base.kubelet.clone();
        if let Some(settings) = self.configured.pools.get(&node.identity.pool) {
            kubelet::lay(&mut kubelet, &settings.kubelet);
        }
        kubelet::lay(&mut kubelet, &pool.kubelet);
        if !pool.cluster_dns.is_empty() {
            kubelet.insert("clusterDNS".to_owned(), json!(pool.cluster_dns));
        }
        if let Some(domain) = &pool.cluster_domain {
            kubelet.insert("clusterDomain".to_owned(), json!(domain));
        }
        let length = serde_json::to_vec(&kubelet).map_or(usize::MAX, |json| json.len());
        if length > LONGEST_KUBELET_CONFIGURATION {
            let problem =
                format!("it has {length} bytes, at most {LONGEST_KUBELET_CONFIGURATION} are allowed");
            return Err(Problem::at(&named(KUBELET_CONFIG), "kubelet", problem).into());
        }
        let api_endpoints = if pool.api_endpoints.is_empty() {
            base.api_endpoints.clone()
        } else {
            pool.api_endpoints.clone()
        };
        if api_endpoints.is_empty() {
            return Err(no_endpoint().into());
        }
        let mut taints = node.taints.clone();
        taints.push(Taint::joining());
        Ok(Profile {
            cluster_id: self.configured.cluster_id.clone(),
            cluster_name: base.cluster_name.clone(),
            node: node.identity.clone(),
            api_endpoints,
            ca_bundle: base.ca_bundle.clone(),
            kubelet,
            labels: node.labels.clone(),
            taints,
            network: pool.network,
            kubernetes_version: base.version.clone(),
            bundle: None,
        })
    }
}

impl PoolProfile {
    /// What is wrong with it, with the field, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.check().err().map(|Problem { field, problem }| format!("{problem} ({field})"))
    }

    fn check(&self) -> Result<(), Problem> {
        let object = format!("NodeProfile {}", self.name);
        check_kubelet(&self.kubelet).map_err(|found| {
            Problem::at(&object, &format!("spec.kubelet.{}", found.field), found.to_string())
        })?;
        let legal = self.api_endpoints.iter().all(|url| kubeadm::is_url(url));
        if !legal || self.api_endpoints.len() > MOST_ENDPOINTS {
            let problem = format!("it is not at most {MOST_ENDPOINTS} https:// URLs");
            return Err(Problem::at(&object, "spec.apiEndpoints", problem));
        }
        Ok(())
    }
}

impl Problem {
    fn at(object: &str, field: &str, problem: impl Into<String>) -> Self {
        Self { field: format!("{object}, {field}"), problem: problem.into() }
    }
}

impl From<Problem> for PortError {
    fn from(Problem { field, problem }: Problem) -> Self {
        let said = format!("{problem} ({field})");
        Diagnosis::new(Code::ProfileInvalid, Phase::Configuration)
            .with("field", field)
            .with("problem", said)
            .into()
    }
}

fn no_endpoint() -> Problem {
    let (info, cluster) = (named(CLUSTER_INFO), named(KUBEADM_CONFIG));
    Problem {
        field: format!("cluster.apiEndpoints (--api-endpoint), or {info}, or {cluster} controlPlaneEndpoint"),
        problem: "nothing says where the API server is".to_owned(),
    }
}

fn none_known() -> Diagnosis {
    Diagnosis::new(Code::StoreUnavailable, Phase::Configuration).retry(Retry::After(FAILED_FOR))
}

fn named((namespace, name): (&str, &str)) -> String {
    format!("ConfigMap {namespace}/{name}")
}

/// A document of YAML 1.2. What is wrong is told without repeating it.
fn yaml(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|cause| format!("it is no YAML: {cause}"))
}

#[cfg(test)]
mod tests;
