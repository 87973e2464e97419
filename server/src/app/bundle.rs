//! Bundles where they meet the server's keys: which CAs vouch for them, who signs
//! them, and the watch over what lies on the shelf.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::{ApiMeter, Limiter, Metrics, Queue};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::backend::CA_NAME;
use super::serving_ca;
use super::settings::{Backend, Settings};
use crate::bundle::shelf::Shelf;
use crate::kubernetes::{connect, within};
use crate::ports::Trust;
use crate::signer::local::LocalSigner;
use crate::watched::{look_until, read};

/// The shelf of these settings. What is on it must be endorsed by a CA that machines
/// trust on the line at that moment.
pub(super) fn shelf(
    settings: &Settings,
    trust: &Arc<crate::trust::Bundles>,
    metrics: &Metrics,
) -> Arc<Shelf> {
    let trust = Arc::clone(trust);
    let shelf = Shelf::of(settings.bundle.clone(), Arc::new(move || authorities(&trust.line())));
    let waiting = metrics.queue(Queue::Transfers, Some(settings.bundle.limits.waiting));
    Arc::new(shelf.metered(waiting, metrics.limiter(Limiter::Transfers)))
}

/// Looks at the shelf until the end.
pub(super) async fn keep_fresh(shelf: Arc<Shelf>, end: CancellationToken) {
    look_until(end, move || shelf.look()).await;
}

/// The keys of a bundle of CA certificates, DER SubjectPublicKeyInfo.
#[must_use]
pub(super) fn authorities(ca_bundle: &str) -> Vec<Vec<u8>> {
    let key = |der: CertificateDer<'static>| {
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        parsed.is_ca().then(|| parsed.public_key().raw.to_vec())
    };
    CertificateDer::pem_slice_iter(ca_bundle.as_bytes()).flatten().filter_map(key).collect()
}

/// The CA of the line, where its key is the server's own: in the data directory, or
/// in its Secret in the cluster. `None` where others keep it.
///
/// # Errors
/// It cannot be read.
pub async fn own_authority(settings: &Settings, now: Timestamp) -> anyhow::Result<Option<LocalSigner>> {
    if settings.serving.is_some() {
        return Ok(None);
    }
    match &settings.backend {
        Backend::Embedded => {
            let own = LocalSigner::open_or_create(&settings.data_dir.join("pki"), CA_NAME, now);
            own.map(Some).context("opening the cluster's CA")
        }
        Backend::Kubernetes(kubernetes) => {
            let api = connect(kubernetes.kubeconfig.as_deref(), ApiMeter::default()).await?;
            let namespaces: Api<Namespace> = Api::all(api.client.clone());
            let system =
                within(namespaces.get("kube-system")).await.context("asking for the cluster's id")?;
            let id = system.metadata.uid.context("the namespace kube-system has no uid")?;
            let opened = serving_ca::open(api.client, &kubernetes.namespace, &id, now).await;
            opened.context("opening the CA of the serving certificate")?.map(Some)
        }
    }
}

/// The keys that vouch for bundles, as an operator's command sees them: of `ca`, or of
/// the serving certificate's CA.
///
/// # Errors
/// They cannot be read.
pub async fn trusted(settings: &Settings, ca: Option<&Path>, now: Timestamp) -> anyhow::Result<Vec<Vec<u8>>> {
    let files = ca.or(settings.serving.as_ref().map(|files| files.ca.as_path()));
    if let Some(path) = files {
        return Ok(authorities(&read(path)?));
    }
    let own = own_authority(settings, now).await?;
    Ok(own.map(|own| authorities(&crate::trust::pem(own.ca_der()))).unwrap_or_default())
}
