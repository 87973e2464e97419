//! The CA of the serving certificate of servers in the cluster: a Secret that
//! whichever replica comes first makes, once for all of them, so that one pin holds
//! for every replica and nothing has to be configured.

use std::path::Path;

use anyhow::Context as _;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::kubernetes::{Failure, within};
use crate::signer::local::LocalSigner;

/// The Secret's name, in the server's own namespace.
const NAME: &str = "berth-serving-ca";

/// The one type of Secret that tools know to show as a certificate.
const KIND: &str = "kubernetes.io/tls";

/// Reads the CA, or makes it.
pub(super) async fn open(
    client: Client,
    namespace: &str,
    cluster_id: &str,
    now: Timestamp,
) -> Result<anyhow::Result<LocalSigner>, Failure> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let found = match within(secrets.get(NAME)).await {
        Ok(found) => found,
        Err(Failure::NotFound { .. }) => {
            let made = match LocalSigner::make(cluster_id, now) {
                Ok((certificate, key)) => secret(&certificate, &key),
                Err(error) => return Ok(Err(error.into())),
            };
            match within(secrets.create(&PostParams::default(), &made)).await {
                Ok(made) => made,
                // Another replica was first.
                Err(Failure::AlreadyExists) => within(secrets.get(NAME)).await?,
                Err(failure) => return Err(failure),
            }
        }
        Err(failure) => return Err(failure),
    };
    let place = format!("the Secret {NAME} in {namespace}");
    let part = |name: &str| {
        let data = found.data.as_ref().and_then(|data| data.get(name));
        let text = data.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        text.with_context(|| format!("{place} has no {name}: delete it, and machines must get new tokens"))
    };
    let read = || {
        let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
        LocalSigner::from_pem(certificate, key, Path::new(&place), now).context("reading the serving CA")
    };
    Ok(read())
}

fn secret(certificate: &str, key: &str) -> Secret {
    let data = [("tls.crt", certificate), ("tls.key", key)];
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "berth".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(KIND.to_owned()),
        // Nobody changes it: a new CA is a new Secret.
        immutable: Some(true),
        data: Some(data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec()))).into()),
        ..Secret::default()
    }
}
