//! Where the Secrets of bootstrap tokens are read: one GET by name, never a
//! list, never a watch.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::TokenId;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use zeroize::Zeroizing;

use super::secret::BootstrapSecret;
use crate::kubernetes::{Failure, within};
use crate::ports::{Answer, PortError};

/// The namespace of bootstrap tokens.
const NAMESPACE: &str = "kube-system";

/// Secrets of bootstrap tokens.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The Secret of this token, as it is now.
    async fn secret(&self, id: &TokenId) -> Answer<Option<BootstrapSecret>>;
}

/// The API server's Secrets.
pub struct ApiSecrets(Api<Secret>);

impl ApiSecrets {
    /// Secrets that this client may get.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(Api::namespaced(client, NAMESPACE))
    }
}

#[async_trait]
impl Secrets for ApiSecrets {
    async fn secret(&self, id: &TokenId) -> Answer<Option<BootstrapSecret>> {
        let operation = "read a bootstrap token's Secret";
        match within(self.0.get_opt(&format!("bootstrap-token-{id}"))).await {
            Ok(found) => Ok(found.map(taken)),
            // As one that is gone: its client reads some 404s as errors.
            Err(Failure::NotFound { .. }) => Ok(None),
            Err(Failure::Forbidden(mut permission)) => {
                // The rule names no Secret: their names are not known before.
                permission.name = None;
                Err(PortError::from(permission.diagnosis(Phase::Authentication)))
            }
            Err(failure) => Err(failure.into_port(operation, Phase::Authentication, Duration::ZERO)),
        }
    }
}

/// Takes over the bytes, so that no copy stays behind unwiped.
fn taken(secret: Secret) -> BootstrapSecret {
    let data = secret.data.unwrap_or_default();
    let data: BTreeMap<_, _> = data.into_iter().map(|(key, bytes)| (key, Zeroizing::new(bytes.0))).collect();
    let created = secret.metadata.creation_timestamp;
    BootstrapSecret {
        kind: secret.type_.unwrap_or_default(),
        deleting: secret.metadata.deletion_timestamp.is_some(),
        created: created.map_or_else(Timestamp::default, |at| Timestamp::from_millis(at.0.as_millisecond())),
        data,
        annotations: secret.metadata.annotations.unwrap_or_default(),
    }
}
