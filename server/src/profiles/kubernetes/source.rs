//! What a cluster says of itself: ConfigMaps, by name, and its version.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::phase::Phase;
use berth_domain::version::KubernetesVersion;
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

use crate::kubernetes::{Failure, within};
use crate::ports::{Answer, PortError};

/// The texts of a ConfigMap, by key.
pub type ConfigMap = BTreeMap<String, String>;

/// What profiles are made of.
#[async_trait]
pub trait Source: Send + Sync {
    /// A ConfigMap as it is now, if it is there.
    async fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>>;

    /// The API server's version, if it tells one that can be understood.
    async fn version(&self) -> Answer<Option<KubernetesVersion>>;
}

/// The API server.
pub struct ApiSource(Client);

impl ApiSource {
    /// What this client may get.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Source for ApiSource {
    async fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>> {
        let maps: Api<v1::ConfigMap> = Api::namespaced(self.0.clone(), namespace);
        match within(maps.get_opt(name)).await {
            Ok(found) => Ok(found.map(|map| map.data.unwrap_or_default())),
            Err(Failure::NotFound { .. }) => Ok(None),
            Err(Failure::Forbidden(mut permission)) => {
                permission.name = Some(name.to_owned());
                Err(PortError::from(permission.diagnosis(Phase::Configuration)))
            }
            Err(failure) => Err(failure.into_port("read a ConfigMap", Phase::Configuration, Duration::ZERO)),
        }
    }

    /// Anybody who is known may ask for it, unless an operator took that right away
    /// (`system:public-info-viewer`): then kubelets are not compared with it.
    async fn version(&self) -> Answer<Option<KubernetesVersion>> {
        match within(self.0.apiserver_version()).await {
            Ok(info) => Ok(info.git_version.parse().ok()),
            Err(Failure::Forbidden(_)) => Ok(None),
            Err(failure) => {
                Err(failure.into_port("read the API server's version", Phase::Configuration, Duration::ZERO))
            }
        }
    }
}
