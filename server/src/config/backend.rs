//! Where the state lives, who signs, and whose certificate is served: sections that
//! depend on each other.

use std::path::PathBuf;
use std::time::Duration;

use super::file::{self, BackendKind, ClusterSigner};
use super::lay::Lay;
use super::{Given, Period};
use crate::app::{Backend, Kubernetes, ServingFiles, SignerFiles};
use crate::signer::kube::SHORTEST_LIFETIME;

/// Where the server's objects are unless it is said.
const NAMESPACE: &str = "berth-system";

/// Where the state lives.
pub(super) fn backend(
    lay: &mut Lay,
    given: &mut Given,
    kind: Option<BackendKind>,
    file: file::KubernetesFile,
) -> Backend {
    let kind = lay.shown("backend", given.backend.take(), kind, BackendKind::Embedded);
    let kubeconfig = lay.maybe_path("kubernetes.kubeconfig", given.kubeconfig.take(), file.kubeconfig);
    let namespace =
        lay.shown("kubernetes.namespace", given.namespace.take(), file.namespace, NAMESPACE.to_owned());
    lay.check("kubernetes.namespace", is_namespace(&namespace));
    let signer =
        lay.shown("kubernetes.signer", given.cluster_signer.take(), file.signer, ClusterSigner::Kube);
    let bootstrap_tokens =
        lay.shown("kubernetes.bootstrapTokens", given.bootstrap_tokens.take(), file.bootstrap_tokens, false);
    let provider_id = lay.maybe("kubernetes.providerID", given.provider_id.take(), file.provider_id);
    lay.check("kubernetes.providerID", is_provider_id(provider_id.as_deref()));
    let inventory = lay.maybe_path("kubernetes.inventory", given.inventory.take(), file.inventory);
    match kind {
        BackendKind::Kubernetes => Backend::Kubernetes(Kubernetes {
            kubeconfig,
            namespace,
            signer,
            bootstrap_tokens,
            provider_id,
            inventory,
        }),
        BackendKind::Embedded => {
            let idle = || {
                Err("it has a meaning with backend: kubernetes only; remove it, or set the backend"
                    .to_owned())
            };
            if kubeconfig.is_some() {
                lay.check("kubernetes.kubeconfig", idle());
            }
            if bootstrap_tokens {
                lay.check("kubernetes.bootstrapTokens", idle());
            }
            if provider_id.is_some() {
                lay.check("kubernetes.providerID", idle());
            }
            if inventory.is_some() {
                lay.check("kubernetes.inventory", idle());
            }
            Backend::Embedded
        }
    }
}

/// One id for all Nodes would tell the cluster that they are one machine.
fn is_provider_id(id: Option<&str>) -> Result<(), String> {
    match id {
        Some(id) if !id.contains("://") || !id.contains("{name}") => {
            Err(format!("{id:?} does not tell Nodes apart; write it as metal://{{name}}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The CA of nodes' certificates, where others keep it.
pub(super) fn signer(
    lay: &mut Lay,
    given: &mut Given,
    backend: &Backend,
    file: file::SignerFile,
) -> SignerFiles {
    let certificate = lay.maybe_path("signer.certificate", given.signer_certificate.take(), file.certificate);
    let key = lay.maybe_path("signer.key", given.signer_key.take(), file.key);
    let signs_itself = match backend {
        Backend::Embedded => None,
        Backend::Kubernetes(kubernetes) => Some(kubernetes.signer == ClusterSigner::Local),
    };
    match (signs_itself, certificate.is_some(), key.is_some()) {
        (Some(true), true, true) | (None, true, true) | (None, false, false) | (Some(false), _, false) => {}
        (Some(true), false, _) => lay.check(
            "signer.certificate",
            Err("kubernetes.signer: local needs the cluster's CA, usually /etc/kubernetes/pki/ca.crt"
                .to_owned()),
        ),
        (Some(true) | None, true, false) => lay.check(
            "signer.key",
            Err("signer.certificate needs its key, usually /etc/kubernetes/pki/ca.key".to_owned()),
        ),
        (Some(false), _, true) => lay.check(
            "signer.key",
            Err("with kubernetes.signer: kube the cluster signs; remove it, or set kubernetes.signer: local"
                .to_owned()),
        ),
        (None, false, true) => lay.check(
            "signer.certificate",
            Err("signer.key needs its certificate, usually /etc/kubernetes/pki/ca.crt".to_owned()),
        ),
    }
    SignerFiles { certificate, key }
}

/// The serving certificate, where others keep it.
pub(super) fn serving(lay: &mut Lay, given: &mut Given, file: file::ServingFile) -> Option<ServingFiles> {
    let certificate =
        lay.maybe_path("serving.certificate", given.serving_certificate.take(), file.certificate);
    let key = lay.maybe_path("serving.key", given.serving_key.take(), file.key);
    let ca = lay.maybe_path("serving.ca", given.serving_ca.take(), file.ca);
    let fields = [("serving.certificate", &certificate), ("serving.key", &key), ("serving.ca", &ca)];
    if fields.iter().any(|(_, path)| path.is_some()) {
        for (field, _) in fields.iter().filter(|(_, path)| path.is_none()) {
            let all = "certificate, key and ca belong together; give all three, or none and the server makes its own";
            lay.check(field, Err(all.to_owned()));
        }
    }
    let (certificate, key, ca): (PathBuf, PathBuf, PathBuf) = (certificate?, key?, ca?);
    Some(ServingFiles { certificate, key, ca })
}

/// The certificates API takes no short lives.
pub(super) fn lifetime(backend: &Backend, lifetime: Duration) -> Result<(), String> {
    let by_cluster = match backend {
        Backend::Embedded => false,
        Backend::Kubernetes(kubernetes) => kubernetes.signer == ClusterSigner::Kube,
    };
    match by_cluster && lifetime < SHORTEST_LIFETIME {
        false => Ok(()),
        true => Err(format!(
            "with kubernetes.signer: kube it must be {} at least: the cluster signs nothing shorter",
            Period(SHORTEST_LIFETIME)
        )),
    }
}

/// A DNS label (RFC 1123).
fn is_namespace(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=63).contains(&text.len())
        && text.chars().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
    {
        true => Ok(()),
        false => Err(format!("{text:?} is no namespace: lower-case letters, digits and hyphens, at most 63")),
    }
}
