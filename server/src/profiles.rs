//! Profiles from the server's own configuration: what the embedded backend
//! tells its nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::name::PoolName;
use berth_domain::node::NodeRecord;
use berth_domain::profile::{KubeletSettings, Profile};

use crate::ports::{Answer, Profiles};

/// Profiles that do not change while the server runs.
pub struct ConfiguredProfiles {
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name in kubeconfigs.
    pub cluster_name: String,
    /// URLs of the API servers.
    pub api_endpoints: Vec<String>,
    /// The cluster's CA certificates, PEM.
    pub ca_bundle: Arc<str>,
    /// The kubelet's settings, for every pool.
    pub kubelet: KubeletSettings,
    /// What pools set differently.
    pub pools: BTreeMap<PoolName, KubeletSettings>,
}

#[async_trait]
impl Profiles for ConfiguredProfiles {
    async fn profile(&self, node: &NodeRecord) -> Answer<Profile> {
        let mut kubelet = self.kubelet.clone();
        if let Some(pool) = self.pools.get(&node.identity.pool) {
            kubelet.extend(pool.clone());
        }
        Ok(Profile {
            cluster_id: self.cluster_id.clone(),
            cluster_name: self.cluster_name.clone(),
            node: node.identity.clone(),
            api_endpoints: self.api_endpoints.clone(),
            ca_bundle: self.ca_bundle.to_string(),
            kubelet,
            labels: node.labels.clone(),
            taints: node.taints.clone(),
        })
    }
}
