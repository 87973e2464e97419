//! Profiles from the server's own configuration: what the embedded backend
//! tells its nodes. A Kubernetes cluster's come from it (`kubernetes`).

pub mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::labels::{Labels, Taint};
use berth_domain::name::PoolName;
use berth_domain::node::NodeRecord;
use berth_domain::pods::PodNetwork;
use berth_domain::profile::{KubeletSettings, Profile};

use crate::policy::Pool;
use crate::ports::{Answer, Profiles, Trust};

/// What a pool sets for its nodes.
#[derive(Clone, Debug, Default)]
pub struct PoolSettings {
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Kubelet settings over the common ones.
    pub kubelet: KubeletSettings,
}

/// Profiles that do not change while the server runs.
pub struct ConfiguredProfiles {
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name in kubeconfigs.
    pub cluster_name: String,
    /// URLs of the API servers.
    pub api_endpoints: Vec<String>,
    /// Whom nodes trust.
    pub trust: Arc<dyn Trust>,
    /// The kubelet's settings, for every pool.
    pub kubelet: KubeletSettings,
    /// What pools set differently.
    pub pools: BTreeMap<PoolName, PoolSettings>,
}

#[async_trait]
impl Profiles for ConfiguredProfiles {
    async fn pool(&self, name: &PoolName) -> Answer<Pool> {
        let pool = self.pools.get(name).cloned().unwrap_or_default();
        Ok(Pool { labels: pool.labels, taints: pool.taints, approval: false })
    }

    fn network(&self, _pool: &PoolName) -> PodNetwork {
        PodNetwork::None
    }

    async fn profile(&self, node: &NodeRecord) -> Answer<Profile> {
        let mut kubelet = self.kubelet.clone();
        if let Some(pool) = self.pools.get(&node.identity.pool) {
            kubelet.extend(pool.kubelet.clone());
        }
        Ok(Profile {
            cluster_id: self.cluster_id.clone(),
            cluster_name: self.cluster_name.clone(),
            node: node.identity.clone(),
            api_endpoints: self.api_endpoints.clone(),
            ca_bundle: self.trust.cluster().to_string(),
            kubelet,
            labels: node.labels.clone(),
            taints: node.taints.clone(),
            network: self.network(&node.identity.pool),
            kubernetes_version: None,
            bundle: None,
        })
    }
}
