//! What certificates say, held against what may be believed: pins against the
//! server's CA, and the certificate that was issued against the one that was
//! asked for. Pure: bytes in, verdict out.

use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

/// How far the server's clock may seem off where it is only estimated: a round
/// trip and a slow disk.
const SLACK: Duration = Duration::from_secs(60);

/// What an issued certificate must be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The key it was asked for.
    pub key: SpkiHash,
    /// The node it must name.
    pub node: &'a NodeIdentity,
    /// The CAs that may have signed it, PEM.
    pub ca_bundle: &'a str,
    /// The time by the server's clock.
    pub now: Timestamp,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// In which respect an issued certificate is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuedProblem {
    /// There is none.
    #[error("the server sent an empty chain")]
    Empty,
    /// It is no DER certificate.
    #[error("the server's chain has something that is no X.509 certificate")]
    Unreadable,
    /// It is for another key.
    #[error("it is for another key than this machine's")]
    Key,
    /// It names somebody else.
    #[error("its subject is not the node that the server named")]
    Subject,
    /// It can sign certificates.
    #[error("it is a CA's certificate")]
    Authority,
    /// It is no client's certificate.
    #[error("it is not good for a client's authentication")]
    Usage,
    /// It does not chain to the proved bundle.
    #[error("it is not signed by a CA of the bundle that the server proved")]
    Signature,
    /// It is not good at the server's own time.
    #[error("it is not good at the server's own time")]
    Validity,
}

impl IssuedProblem {
    /// The same as a diagnosis.
    #[must_use]
    pub fn diagnosis(self) -> Diagnosis {
        Diagnosis::new(Code::CertificateRejected, Phase::Authorization).with("problem", self)
    }
}

/// Holds an issued chain, DER, leaf first, against what was asked for
/// (SECURITY R30: its time is judged by the server's clock).
///
/// # Errors
/// The first respect in which it is another.
pub fn check_issued(wanted: &Wanted<'_>, chain: &[Vec<u8>]) -> Result<Validity, IssuedProblem> {
    let chain =
        chain.iter().map(|der| parse(der)).collect::<Option<Vec<_>>>().ok_or(IssuedProblem::Unreadable)?;
    let leaf = chain.first().ok_or(IssuedProblem::Empty)?;
    if spki(leaf) != wanted.key {
        return Err(IssuedProblem::Key);
    }
    if !names(leaf.subject(), wanted.node) {
        return Err(IssuedProblem::Subject);
    }
    if leaf.is_ca() {
        return Err(IssuedProblem::Authority);
    }
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if usage.value.client_auth => {}
        Ok(_) | Err(_) => return Err(IssuedProblem::Usage),
    }
    if !chains_to(&chain, wanted.ca_bundle) {
        return Err(IssuedProblem::Signature);
    }
    let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let validity = Validity {
        not_before: moment(leaf.validity().not_before.timestamp()),
        not_after: moment(leaf.validity().not_after.timestamp()),
    };
    if validity.not_before > wanted.now.after(SLACK) || validity.not_after <= wanted.now {
        return Err(IssuedProblem::Validity);
    }
    Ok(validity)
}

/// Holds the chain that a server showed in TLS, leaf first, against the pins.
/// A leaf alone says nothing of its CA: then the proof and the bundle decide.
///
/// # Errors
/// `PIN_MISMATCH`: a CA was shown and it is not a pinned one.
pub fn check_shown(chain: &[Vec<u8>], pins: &[SpkiHash], phase: Phase) -> Result<(), Diagnosis> {
    let chain: Vec<_> = chain.iter().filter_map(|der| parse(der)).collect();
    let (Some((leaf, above)), false) = (chain.split_first(), pins.is_empty()) else { return Ok(()) };
    let Some(top) = above.last() else { return Ok(()) };
    let mut below = leaf;
    for certificate in above {
        if !is_signed_by(below, certificate) {
            break;
        }
        if pins.contains(&spki(certificate)) {
            return Ok(());
        }
        below = certificate;
    }
    let found = spki(top);
    let note = if pins.contains(&found) { " (it has not signed the server's certificate)" } else { "" };
    Err(mismatch(pins, format!("{}{note}", found.to_pin()), phase))
}

/// Holds the CA bundle that a server proved, and the chain it has shown, against
/// the pins. Whoever else holds the token can prove a bundle of its own making, with
/// the pinned CA in it: so the server's own certificate must be signed by a pinned
/// CA, which the chain or the bundle has. Without any pin the proof alone speaks
/// for the bundle, which must still have a CA.
///
/// # Errors
/// `PIN_MISMATCH`.
pub fn check_bundle(
    ca_bundle: &str,
    shown: &[Vec<u8>],
    pins: &[SpkiHash],
    phase: Phase,
) -> Result<(), Diagnosis> {
    let authorities = authorities(ca_bundle);
    let bundle: Vec<X509Certificate<'_>> = authorities.iter().filter_map(|der| parse(der)).collect();
    let found: Vec<SpkiHash> = bundle.iter().map(spki).collect();
    if !found.iter().any(|ca| pins.is_empty() || pins.contains(ca)) {
        let shown: Vec<String> = found.iter().map(SpkiHash::to_pin).collect();
        let shown = if shown.is_empty() { "none at all".to_owned() } else { shown.join(", ") };
        return Err(mismatch(pins, shown, phase));
    }
    if pins.is_empty() || is_vouched_for(shown, &bundle, pins) {
        return Ok(());
    }
    let found = "a CA that is in the bundle and has not signed the server's certificate".to_owned();
    Err(mismatch(pins, found, phase))
}

/// Whether a pinned CA has signed the first certificate, or one that leads to it.
fn is_vouched_for(shown: &[Vec<u8>], bundle: &[X509Certificate<'_>], pins: &[SpkiHash]) -> bool {
    let mut chain = shown.iter().map_while(|der| parse(der));
    let Some(mut below) = chain.next() else { return false };
    let is_pinned = |ca: &X509Certificate<'_>| pins.contains(&spki(ca));
    loop {
        if bundle.iter().any(|ca| is_pinned(ca) && is_signed_by(&below, ca)) {
            return true;
        }
        match chain.next().filter(|above| is_signed_by(&below, above)) {
            Some(above) if is_pinned(&above) => return true,
            Some(above) => below = above,
            None => return false,
        }
    }
}

fn mismatch(pins: &[SpkiHash], found: String, phase: Phase) -> Diagnosis {
    let wanted: Vec<String> = pins.iter().map(SpkiHash::to_pin).collect();
    let wanted = if wanted.is_empty() { "any CA at all".to_owned() } else { wanted.join(", ") };
    Diagnosis::new(Code::PinMismatch, phase).with("found", found).with("wanted", wanted)
}

fn authorities(ca_bundle: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(ca_bundle.as_bytes()).flatten().collect()
}

/// The keys of a bundle of CA certificates, DER SubjectPublicKeyInfo: who may vouch for
/// what is no certificate.
#[must_use]
pub fn authority_keys(ca_bundle: &str) -> Vec<Vec<u8>> {
    let authorities = authorities(ca_bundle);
    let cas = authorities.iter().filter_map(|der| parse(der)).filter(|ca| ca.is_ca());
    cas.map(|ca| ca.public_key().raw.to_vec()).collect()
}

/// Each is signed by the next, and the last by a CA of the bundle.
fn chains_to(chain: &[X509Certificate<'_>], ca_bundle: &str) -> bool {
    let linked = chain.iter().zip(chain.iter().skip(1)).all(|(below, above)| is_signed_by(below, above));
    let rooted = chain.last().is_some_and(|last| {
        authorities(ca_bundle).iter().filter_map(|der| parse(der)).any(|ca| is_signed_by(last, &ca))
    });
    linked && rooted
}

fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    issuer.is_ca()
        && certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// `O=system:nodes, CN=system:node:NAME` and nothing else (Kubernetes node
/// authorizer).
fn names(subject: &X509Name<'_>, node: &NodeIdentity) -> bool {
    let name = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, node.name);
    let wanted =
        [(OID_X509_ORGANIZATION_NAME, NodeIdentity::ORGANIZATION), (OID_X509_COMMON_NAME, name.as_str())];
    let found: Vec<_> = subject.iter_attributes().collect();
    found.len() == wanted.len()
        && wanted.iter().all(|(oid, text)| {
            found.iter().any(|part| part.attr_type() == oid && part.as_str().ok() == Some(text))
        })
}

fn spki(certificate: &X509Certificate<'_>) -> SpkiHash {
    SpkiHash::of(certificate.public_key().raw)
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
