//! The CA whose certificates kube-controller-manager issues: what the API servers
//! take for clients (`extension-apiserver-authentication`), or a file.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::kubernetes::{Failure, within};
use crate::trust::{pem, union};

/// Where API servers publish whom they take (kubernetes/kubernetes, clusterauthenticationtrust).
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";

/// Between two looks: a CA is changed over days.
const LOOK: Duration = Duration::from_secs(300);

/// The CA of the cluster's nodes.
pub struct Authority {
    source: Source,
    bundle: RwLock<Arc<str>>,
}

enum Source {
    File(PathBuf),
    Published { published: Box<Api<ConfigMap>>, otherwise: Arc<str> },
}

/// Why the CA is not known.
#[derive(Debug, thiserror::Error)]
pub enum NoAuthority {
    /// The file cannot be read.
    #[error("reading the CA of the cluster's signer {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// What was read has no certificate.
    #[error("{place} has no certificate: put the cluster's CA there, PEM")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// The API server does not tell.
    #[error("asking the API server for the CA of its clients (ConfigMap {NAME} in {NAMESPACE})")]
    Asking(#[source] Failure),
}

impl Authority {
    /// The CA from a file.
    ///
    /// # Errors
    /// It cannot be read, or has no certificate.
    pub async fn from_file(path: PathBuf) -> Result<Self, NoAuthority> {
        Self::first(Source::File(path)).await
    }

    /// The CA that API servers publish; where that may not be read or is not there,
    /// the one by which they are verified themselves, DER.
    ///
    /// # Errors
    /// Neither is known.
    pub async fn published(client: Client, otherwise: &[Vec<u8>]) -> Result<Self, NoAuthority> {
        let otherwise: String = otherwise.iter().map(|der| pem(der)).collect();
        let published = Box::new(Api::namespaced(client, NAMESPACE));
        Self::first(Source::Published { published, otherwise: otherwise.into() }).await
    }

    /// The certificates, PEM.
    #[must_use]
    pub fn bundle(&self) -> Arc<str> {
        Arc::clone(&self.bundle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again, now and then, for ever; what cannot be read changes nothing.
    pub(super) async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(super::jittered(LOOK)).await;
            match self.source.read().await {
                Ok(bundle) => *self.bundle.write().unwrap_or_else(PoisonError::into_inner) = bundle,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the CA of the cluster's signer stays as it was"
                    );
                }
            }
        }
    }

    async fn first(source: Source) -> Result<Self, NoAuthority> {
        let bundle = source.read().await?;
        Ok(Self { source, bundle: RwLock::new(bundle) })
    }
}

impl Source {
    async fn read(&self) -> Result<Arc<str>, NoAuthority> {
        match self {
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|cause| NoAuthority::File { path: path.clone(), cause })?;
                certificates(&text).ok_or_else(|| NoAuthority::Empty { place: path.display().to_string() })
            }
            Self::Published { published, otherwise } => {
                let told = match within(published.get(NAME)).await {
                    Ok(map) => map.data.and_then(|data| data.get(KEY).and_then(|text| certificates(text))),
                    Err(Failure::NotFound { .. } | Failure::Forbidden(_)) => None,
                    Err(failure) => return Err(NoAuthority::Asking(failure)),
                };
                told.or_else(|| certificates(otherwise)).ok_or_else(|| NoAuthority::Empty {
                    place: format!("the ConfigMap {NAME} in {NAMESPACE}"),
                })
            }
        }
    }
}

/// The certificates of a text, if there is one at least.
fn certificates(text: &str) -> Option<Arc<str>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).flatten().next()?;
    Some(union(&[text]).into())
}
