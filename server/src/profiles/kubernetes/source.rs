//! Where ConfigMaps are read: a GET by name.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::phase::Phase;
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

use crate::kubernetes::{Failure, within};
use crate::ports::{Answer, PortError};

/// The texts of a ConfigMap, by key.
pub type ConfigMap = BTreeMap<String, String>;

/// ConfigMaps of a cluster.
#[async_trait]
pub trait ConfigMaps: Send + Sync {
    /// One, as it is now, if it is there.
    async fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>>;
}

/// The API server's.
pub struct ApiConfigMaps(Client);

impl ApiConfigMaps {
    /// ConfigMaps that this client may get.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl ConfigMaps for ApiConfigMaps {
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
}
