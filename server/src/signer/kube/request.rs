//! CertificateSigningRequests as values: what is asked for, whether what is found
//! is that, and how it stands. Pure.

use std::time::Duration;

use berth_domain::identity::{NodeIdentity, sha256};
use berth_domain::timestamp::Timestamp;
use data_encoding::HEXLOWER;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::join::authorization::Authorized;

/// The signer of kubelets' client certificates.
pub(super) const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// What it signs for a key that cannot encipher (ECDSA).
const USAGES: [&str; 2] = ["digital signature", "client auth"];

/// By how much less than authorized is asked for: the time until it is signed, and
/// kube-controller-manager's clock, which may be ahead.
pub const LONGEST_SKEW: Duration = Duration::from_secs(300);

/// The shortest life that may be authorized: the API takes no less than ten minutes
/// (`expirationSeconds`).
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(600 + 300);

/// By how many seconds more an earlier request may ask for: its own waiting. With the
/// longest wait for a signer it stays below [`LONGEST_SKEW`].
const LENIENCE: i32 = 60;

/// The least that the API takes.
const LEAST_SECONDS: u64 = 600;

/// A request as it has to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    node: NodeIdentity,
    join: String,
    pem: String,
    public_key: Vec<u8>,
    seconds: i32,
}

/// What is found under the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// What we made, for the same key and node.
    Ours,
    /// The same, and its certificate is over, or will be soon.
    Over,
    /// Something else.
    Foreign {
        /// In which respect.
        how: String,
    },
}

/// How a request stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody has decided.
    Submitted,
    /// It waits for its signer.
    Approved { since: Option<Timestamp> },
    /// Somebody said no.
    Denied { by: String, message: String },
    /// The signer said no.
    Failed { message: String },
    /// The certificate is there; DER, leaf first.
    Issued { chain: Vec<Vec<u8>> },
}

impl Wanted {
    pub(super) fn new(authorized: &Authorized, attempt: u32, now: Timestamp) -> Self {
        let node = authorized.node();
        let seed = [node.name.as_str().as_bytes(), b"\0", authorized.public_key()].concat();
        let digest = sha256(&seed);
        let short = HEXLOWER.encode(digest.get(..16).unwrap_or(&digest));
        let name = match attempt {
            1 => format!("berth-{short}"),
            more => format!("berth-{short}-{more}"),
        };
        let life = authorized.terms().not_after.since(now).saturating_sub(LONGEST_SKEW);
        let seconds = life.as_secs().max(LEAST_SECONDS);
        Self {
            name,
            node: node.clone(),
            join: authorized.join().to_string(),
            pem: pem(authorized.request()),
            public_key: authorized.public_key().to_vec(),
            seconds: i32::try_from(seconds).unwrap_or(i32::MAX),
        }
    }

    /// The object to create. Its approval names the join: a label and an annotation would
    /// cost the API server half as much again for the request, its approval and signing.
    pub(super) fn object(&self) -> CertificateSigningRequest {
        CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.pem.clone().into_bytes()),
                signer_name: SIGNER.to_owned(),
                usages: Some(USAGES.map(str::to_owned).to_vec()),
                expiration_seconds: Some(self.seconds),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }

    /// What approves the request that was found. Its spec, and who owns which field, the
    /// API server keeps whatever is sent, and reads again if it is sent.
    pub(super) fn approval(&self, mut request: CertificateSigningRequest) -> CertificateSigningRequest {
        request.metadata.managed_fields = None;
        request.spec = CertificateSigningRequestSpec::default();
        let conditions = &mut request.status.get_or_insert_default().conditions;
        conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: APPROVED.to_owned(),
            status: "True".to_owned(),
            reason: Some("BerthAuthorized".to_owned()),
            message: Some(format!(
                "Berth has authorized the join {} of the node {}.",
                self.join, self.node.name
            )),
            ..CertificateSigningRequestCondition::default()
        });
        request
    }

    /// Whether what is found is what would be created now. A machine makes a new
    /// request each time; one for the same key and subject says the same.
    pub(super) fn judge(&self, found: &CertificateSigningRequest, account: &str, now: Timestamp) -> Found {
        let spec = &found.spec;
        let foreign = |how: String| Found::Foreign { how };
        let creator = spec.username.as_deref().unwrap_or_default();
        if creator != account {
            return foreign(format!("{creator:?} created it, and the server is {account:?}"));
        }
        if spec.signer_name != SIGNER {
            return foreign(format!("it is for the signer {}", spec.signer_name));
        }
        let usages = spec.usages.clone().unwrap_or_default();
        if usages.len() != USAGES.len() || !USAGES.iter().all(|usage| usages.iter().any(|u| u == usage)) {
            return foreign(format!("it asks for {}", usages.join(", ")));
        }
        if !self.is_same_request(&spec.request.0) {
            return foreign("it is for another key, another subject, or asks for more".to_owned());
        }
        if spec.expiration_seconds.is_none_or(|seconds| seconds > self.seconds.saturating_add(LENIENCE)) {
            return foreign("it asks for a longer life".to_owned());
        }
        match verdict(found) {
            Verdict::Issued { chain } if !self.lasts(&chain, now) => Found::Over,
            Verdict::Issued { .. }
            | Verdict::Submitted
            | Verdict::Approved { .. }
            | Verdict::Denied { .. }
            | Verdict::Failed { .. } => Found::Ours,
        }
    }

    fn is_same_request(&self, pem: &[u8]) -> bool {
        if pem == self.pem.as_bytes() {
            return true;
        }
        let Ok(der) = CertificateSigningRequestDer::from_pem_slice(pem) else { return false };
        let Ok(([], found)) = X509CertificationRequest::from_der(&der) else { return false };
        let info = &found.certification_request_info;
        let subject: Vec<_> = info
            .subject
            .iter_attributes()
            .map(|part| (part.attr_type().to_id_string(), part.as_str().unwrap_or_default().to_owned()))
            .collect();
        let name = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, self.node.name);
        let wanted =
            [("2.5.4.10".to_owned(), NodeIdentity::ORGANIZATION.to_owned()), ("2.5.4.3".to_owned(), name)];
        info.subject_pki.raw == self.public_key && subject == wanted && info.attributes().is_empty()
    }

    /// Half of what would be asked for is left.
    fn lasts(&self, chain: &[Vec<u8>], now: Timestamp) -> bool {
        let half = Duration::from_secs(u64::try_from(self.seconds / 2).unwrap_or(0));
        chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()).is_some_and(|(_, leaf)| {
            let ends = leaf.validity().not_after.timestamp().saturating_mul(1000);
            Timestamp::from_millis(ends) >= now.after(half)
        })
    }
}

/// How a request stands.
pub(super) fn verdict(request: &CertificateSigningRequest) -> Verdict {
    let Some(status) = &request.status else { return Verdict::Submitted };
    let condition = |kind: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind && condition.status == "True")
    };
    let words = |condition: &CertificateSigningRequestCondition| {
        [&condition.reason, &condition.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ")
    };
    if let Some(denied) = condition(DENIED) {
        return Verdict::Denied { by: denier(request), message: words(denied) };
    }
    if let Some(failed) = condition(FAILED) {
        return Verdict::Failed { message: words(failed) };
    }
    let Some(approved) = condition(APPROVED) else { return Verdict::Submitted };
    let pem = status.certificate.as_ref().map(|pem| pem.0.as_slice()).unwrap_or_default();
    let chain: Vec<Vec<u8>> =
        CertificateDer::pem_slice_iter(pem).flatten().map(|certificate| certificate.to_vec()).collect();
    if !chain.is_empty() {
        return Verdict::Issued { chain };
    }
    let since = approved.last_update_time.as_ref().map(|at| Timestamp::from_millis(at.0.as_millisecond()));
    Verdict::Approved { since }
}

/// Who created it, as the API server has stamped it.
pub(super) fn account(request: &CertificateSigningRequest) -> Option<String> {
    request.spec.username.clone()
}

/// Conditions do not say who set them; the field's owner does, as far as it goes.
fn denier(request: &CertificateSigningRequest) -> String {
    let fields = request.metadata.managed_fields.iter().flatten();
    let mut approvals = fields.filter(|fields| fields.subresource.as_deref() == Some("approval"));
    approvals.next_back().and_then(|fields| fields.manager.clone()).unwrap_or_else(|| "somebody".to_owned())
}

/// As the API wants it.
fn pem(der: &[u8]) -> String {
    berth_program::pem::encode(berth_program::pem::CERTIFICATE_REQUEST, der).to_string()
}

/// A request that somebody has denied.
#[cfg(test)]
pub(super) fn tests_denied(name: &str) -> CertificateSigningRequest {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    let mut request = CertificateSigningRequest::default();
    request.metadata.name = Some(name.to_owned());
    request.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some("kubectl-certificate".to_owned()),
        subresource: Some("approval".to_owned()),
        ..ManagedFieldsEntry::default()
    }]);
    request.status.get_or_insert_default().conditions = Some(vec![CertificateSigningRequestCondition {
        type_: DENIED.to_owned(),
        status: "True".to_owned(),
        reason: Some("NotOurs".to_owned()),
        message: Some("no".to_owned()),
        ..CertificateSigningRequestCondition::default()
    }]);
    request
}

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

#[cfg(test)]
mod tests;
