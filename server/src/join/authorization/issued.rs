//! Issued certificates are read again and held against what was authorized: a
//! signer that is wrong, or somebody else's, must not pass unseen.

use berth_domain::identity::NodeIdentity;
use berth_domain::timestamp::Timestamp;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{X509Name, X509Version};

use super::Authorized;
use crate::signatures;

/// What is wrong with an issued certificate. Each names one respect in which
/// it is not what was authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuedProblem {
    /// There is none.
    #[error("the signer's chain is empty")]
    Empty,
    /// A certificate of the chain is not DER, or not X.509 version 3.
    #[error("the signer's chain has something that is no X.509 v3 certificate")]
    Unreadable,
    /// It does not chain to the CA.
    #[error("it is not signed by the CA of the bundle")]
    Signature,
    /// It names somebody else.
    #[error("its subject is not exactly the node's")]
    Subject,
    /// It has alternative names.
    #[error("it has subject alternative names")]
    AlternativeNames,
    /// It can sign certificates.
    #[error("it is a CA, or does not say that it is none")]
    Authority,
    /// Its key may be used for something else than signing.
    #[error("its key usage is not digitalSignature alone")]
    KeyUsage,
    /// It is good for something else than a client's authentication.
    #[error("its extended key usage is not clientAuth alone")]
    ExtendedKeyUsage,
    /// It has an extension that nobody authorized, or one twice.
    #[error("it has an extension that was not asked for")]
    Extension,
    /// It begins before what was authorized, or ends after it.
    #[error("it is good for longer than was authorized")]
    Validity,
    /// It is for another key.
    #[error("it is for another key")]
    Key,
    /// It has another serial number than the one recorded.
    #[error("its serial number is not the one recorded")]
    Serial,
}

/// Holds an issued chain against what was authorized: leaf first, DER;
/// `ca_bundle` is PEM.
///
/// # Errors
/// The first respect in which the leaf is not exactly what was authorized.
pub fn check_issued(
    authorized: &Authorized,
    chain: &[Vec<u8>],
    ca_bundle: &str,
) -> Result<(), IssuedProblem> {
    let chain = chain.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    let leaf = chain.first().ok_or(IssuedProblem::Empty)?;
    check_signatures(&chain, ca_bundle)?;
    check_extensions(leaf)?;
    let terms = authorized.terms();
    let validity = leaf.validity();
    // X.509 counts whole seconds.
    if validity.not_before.timestamp() < terms.not_before.seconds()
        || validity.not_after.timestamp() > terms.not_after.seconds()
    {
        return Err(IssuedProblem::Validity);
    }
    if !is_exactly(leaf.subject(), authorized.node()) {
        return Err(IssuedProblem::Subject);
    }
    if leaf.public_key().raw != authorized.public_key() {
        return Err(IssuedProblem::Key);
    }
    // Without one, the signer chooses it.
    let Some(serial) = &terms.serial else { return Ok(()) };
    let serial = HEXLOWER_PERMISSIVE.decode(serial.as_bytes()).map_err(|_| IssuedProblem::Serial)?;
    if positive(leaf.raw_serial()) == positive(&serial) { Ok(()) } else { Err(IssuedProblem::Serial) }
}

/// What a signer has chosen: serial number and dates of its leaf.
pub(super) fn chosen(chain: &[Vec<u8>]) -> Option<(String, Timestamp, Timestamp)> {
    let leaf = parse(chain.first()?).ok()?;
    let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let validity = leaf.validity();
    Some((
        HEXLOWER.encode(positive(leaf.raw_serial())),
        moment(validity.not_before.timestamp()),
        moment(validity.not_after.timestamp()),
    ))
}

/// Each is signed by the next, and the last by a CA of the bundle.
fn check_signatures(chain: &[X509Certificate<'_>], ca_bundle: &str) -> Result<(), IssuedProblem> {
    for pair in chain.windows(2) {
        let [below, above] = pair else {
            return Err(IssuedProblem::Signature);
        };
        if !is_signed_by(below, above) {
            return Err(IssuedProblem::Signature);
        }
    }
    let last = chain.last().ok_or(IssuedProblem::Empty)?;
    let cas = CertificateDer::pem_slice_iter(ca_bundle.as_bytes());
    let signed = cas.flatten().any(|ca| parse(&ca).is_ok_and(|ca| is_signed_by(last, &ca)));
    if signed { Ok(()) } else { Err(IssuedProblem::Signature) }
}

fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    issuer.is_ca()
        && certificate.issuer().as_raw() == issuer.subject().as_raw()
        && signatures::holds(certificate, issuer)
}

fn check_extensions(leaf: &X509Certificate<'_>) -> Result<(), IssuedProblem> {
    if leaf.extensions().iter().any(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
        return Err(IssuedProblem::AlternativeNames);
    }
    // A repeated extension is an error to each of these.
    match leaf.basic_constraints() {
        Ok(Some(constraints)) if !constraints.value.ca => {}
        Ok(_) | Err(_) => return Err(IssuedProblem::Authority),
    }
    match leaf.key_usage() {
        Ok(Some(usage)) if usage.value.flags == DIGITAL_SIGNATURE => {}
        Ok(_) | Err(_) => return Err(IssuedProblem::KeyUsage),
    }
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if is_client_alone(usage.value) => {}
        Ok(_) | Err(_) => return Err(IssuedProblem::ExtendedKeyUsage),
    }
    let expected = [
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
        OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
    ];
    let all_known = leaf.extensions().iter().all(|extension| expected.contains(&extension.oid));
    if all_known && leaf.extensions_map().is_ok() { Ok(()) } else { Err(IssuedProblem::Extension) }
}

fn is_client_alone(usage: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool {
    let others = usage.any
        || usage.server_auth
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing;
    usage.client_auth && !others && usage.other.is_empty()
}

/// `O=system:nodes, CN=system:node:NAME`, one attribute in each part, nothing
/// else (Kubernetes node authorizer; kubernetes.io/kube-apiserver-client-kubelet).
pub(crate) fn is_exactly(subject: &X509Name<'_>, node: &NodeIdentity) -> bool {
    let name = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, node.name);
    let expected =
        [(OID_X509_ORGANIZATION_NAME, NodeIdentity::ORGANIZATION), (OID_X509_COMMON_NAME, name.as_str())];
    let found: Vec<_> = subject.iter_attributes().collect();
    subject.iter_rdn().count() == expected.len()
        && found.len() == expected.len()
        && expected.iter().all(|(oid, text)| {
            found
                .iter()
                .any(|attribute| attribute.attr_type() == oid && attribute.as_str().ok() == Some(text))
        })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IssuedProblem> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.version() == X509Version::V3 => Ok(certificate),
        Ok(_) | Err(_) => Err(IssuedProblem::Unreadable),
    }
}

/// Without the zero octets in front, which DER adds and hexadecimal may not.
fn positive(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// Bit 0 of RFC 5280 4.2.1.3, as x509-parser counts.
const DIGITAL_SIGNATURE: u16 = 1;

#[cfg(test)]
mod tests;
