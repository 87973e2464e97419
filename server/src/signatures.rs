//! Whether a certificate was signed by a key, found out once: where the signer that
//! holds the key has just made the signature, or where one from outside is checked
//! before it is handed over. The certificate comes back a moment later as that of
//! connection 2: there, the same key, bytes and signature would give the same answer
//! for more than a tenth of a handshake. Nothing else of a chain's check is left out,
//! neither roots, dates nor purposes, and never the peer's own signature: that of TLS
//! (CertificateVerify) differs each time.
//!
//! It is one for the process: what is remembered depends on its arguments alone.

use std::collections::{HashSet, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};

use berth_domain::identity::sha256;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs::default_provider};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::x509::{AlgorithmIdentifier as Named, SubjectPublicKeyInfo};

/// The most signatures that are remembered; then the oldest go. As many machines as
/// come back at one time for their second connection; 128 bytes each.
const MOST: usize = 8_192;

/// Remembers that the holder of a key on P-256 has just signed a certificate with it:
/// to verify that would cost more than to sign did. Says nothing of one that is not
/// DER; [`holds`] is asked about it later, and says no.
pub(crate) fn made(certificate: &[u8], point: &[u8]) {
    if let Ok((_, certificate)) =
        X509CertificateParser::new().with_deep_parse_extensions(false).parse(certificate)
        && certificate.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
    {
        remember(print_of(&certificate, point));
    }
}

/// Whether the issuer's key signed the certificate. One that holds is remembered.
pub(crate) fn holds(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let key = issuer.public_key();
    if certificate.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 || !is_p256(key) {
        return certificate.verify_signature(Some(key)).is_ok();
    }
    let point = key.subject_public_key.data.as_ref();
    let print = print_of(certificate, point);
    if is_remembered(&print) {
        return true;
    }
    let (message, signature) = (certificate.tbs_certificate.as_ref(), &*certificate.signature_value.data);
    let holds =
        ecdsa().is_some_and(|algorithm| algorithm.verify_signature(point, message, signature).is_ok());
    if holds {
        remember(print);
    }
    holds
}

/// What TLS verifies chains with: as the provider does, but for signatures that are
/// remembered.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    WebPkiSupportedAlgorithms {
        all: &ALL,
        mapping: default_provider().signature_verification_algorithms.mapping,
    }
}

/// ECDSA on P-256 with SHA-256, as Berth's own CA signs; its signatures are
/// remembered, those of other CAs are not: to verify RSA costs little.
#[derive(Debug)]
struct Remembering;

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if is_remembered(&print(public_key, message, signature)) {
            return Ok(());
        }
        ecdsa().ok_or(InvalidSignature)?.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

fn is_ecdsa(algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
    algorithm.public_key_alg_id() == alg_id::ECDSA_P256
        && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
}

/// The provider's own.
fn ecdsa() -> Option<&'static dyn SignatureVerificationAlgorithm> {
    static ECDSA: LazyLock<Option<&'static dyn SignatureVerificationAlgorithm>> = LazyLock::new(|| {
        let all = default_provider().signature_verification_algorithms.all;
        all.iter().copied().find(|algorithm| is_ecdsa(*algorithm))
    });
    *ECDSA
}

/// RFC 5480: an EC key with the curve named in its parameters.
fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let Named { algorithm, parameters } = &key.algorithm;
    let curve = parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve.is_some_and(|curve| curve == OID_EC_P256)
}

fn print_of(certificate: &X509Certificate<'_>, point: &[u8]) -> [u8; 32] {
    print(point, certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
}

/// Lengths go before, so that no two triples are the same bytes.
fn print(key: &[u8], message: &[u8], signature: &[u8]) -> [u8; 32] {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
    sha256(&[&length(key)[..], key, &length(message), message, &length(signature), signature].concat())
}

/// Prints of what was found good, and in which order.
#[derive(Default)]
struct Prints {
    prints: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Prints {
    fn add(&mut self, print: [u8; 32]) {
        if !self.prints.insert(print) {
            return;
        }
        self.order.push_back(print);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.prints.remove(&oldest);
        }
    }
}

fn remember(print: [u8; 32]) {
    REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).add(print);
}

fn is_remembered(print: &[u8; 32]) -> bool {
    REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).prints.contains(print)
}

static REMEMBERED: LazyLock<Mutex<Prints>> = LazyLock::new(Mutex::default);

static ALL: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = LazyLock::new(|| {
    let mut all = default_provider().signature_verification_algorithms.all.to_vec();
    for algorithm in &mut all {
        if is_ecdsa(*algorithm) {
            *algorithm = &Remembering;
        }
    }
    all
});

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose,
    };
    use rustls::server::WebPkiClientVerifier;
    use rustls::server::danger::ClientCertVerifier;
    use rustls::{CertificateError, Error, RootCertStore};
    use rustls_pki_types::{CertificateDer, UnixTime};
    use x509_parser::prelude::FromDer as _;

    use super::*;

    /// A CA of this name, and its certificate.
    fn ca(name: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        (certificate, Issuer::new(params, key))
    }

    /// A node's certificate, good from 1975 to 4096.
    fn leaf(issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, issuer).expect("a certificate").der().clone()
    }

    fn parsed<'der>(der: &'der CertificateDer<'_>) -> X509Certificate<'der> {
        X509Certificate::from_der(der).expect("a certificate").1
    }

    fn verifier(root: &CertificateDer<'static>) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a root");
        let provider = rustls::crypto::CryptoProvider {
            signature_verification_algorithms: algorithms(),
            ..default_provider()
        };
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider))
            .build()
            .expect("a verifier")
    }

    fn point<'issuer>(issuer: &'issuer X509Certificate<'_>) -> &'issuer [u8] {
        &issuer.public_key().subject_public_key.data
    }

    fn knows(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
        is_remembered(&print_of(certificate, point(issuer)))
    }

    #[test]
    fn what_holds_is_remembered_and_what_does_not_is_not() {
        let ((root, issuer), (other, _)) = (ca("one"), ca("one"));
        let leaf = leaf(&issuer);
        let (leaf, root, other) = (parsed(&leaf), parsed(&root), parsed(&other));
        assert!(!knows(&leaf, &root));
        assert!(!holds(&leaf, &other) && !knows(&leaf, &other));
        assert!(holds(&leaf, &root) && knows(&leaf, &root));
        assert!(holds(&leaf, &root), "again");
    }

    #[test]
    fn what_a_signer_says_that_it_made_is_taken_for_its_own_key_alone() {
        let ((root, issuer), (other, _)) = (ca("one"), ca("one"));
        let der = leaf(&issuer);
        let (leaf, root, other) = (parsed(&der), parsed(&root), parsed(&other));
        made(&der, point(&root));
        assert!(knows(&leaf, &root) && holds(&leaf, &root));
        assert!(!knows(&leaf, &other) && !holds(&leaf, &other));
        made(&der[1..], point(&other));
        assert!(!holds(&leaf, &other), "what cannot be read says nothing");
    }

    #[test]
    fn only_the_arithmetic_is_spared() {
        let ((root, issuer), (other, _)) = (ca("one"), ca("one"));
        let leaf = leaf(&issuer);
        assert!(holds(&parsed(&leaf), &parsed(&root)));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let now = at(1_790_000_000);
        let verify = |root, now| verifier(root).verify_client_cert(&leaf, &[], now).map(drop);
        assert_eq!(verify(&root, now), Ok(()));
        let refused = verify(&other, now).expect_err("its root was taken away");
        assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
        let refused = verify(&root, at(0)).expect_err("not yet valid");
        assert!(
            matches!(
                refused,
                Error::InvalidCertificate(
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
                )
            ),
            "{refused}"
        );
    }

    #[test]
    fn a_signature_that_is_not_remembered_is_verified() {
        let (root, issuer) = ca("one");
        let leaf = leaf(&issuer);
        let (leaf, root) = (parsed(&leaf), parsed(&root));
        let point = point(&root);
        let (message, signature) = (leaf.tbs_certificate.as_ref(), leaf.signature_value.data.as_ref());
        assert!(Remembering.verify_signature(point, message, signature).is_ok());
        assert!(!knows(&leaf, &root), "a peer fills nothing");
        assert!(holds(&leaf, &root));
        for (at, _) in message.iter().enumerate().step_by(37) {
            let mut changed = message.to_vec();
            changed[at] ^= 1;
            assert!(Remembering.verify_signature(point, &changed, signature).is_err(), "{at}");
        }
        assert!(Remembering.verify_signature(point, message, &signature[1..]).is_err());
    }

    #[test]
    fn the_oldest_go() {
        let mut prints = Prints::default();
        for number in 0..=MOST {
            prints.add(sha256(&number.to_be_bytes()));
        }
        assert_eq!((prints.prints.len(), prints.order.len()), (MOST, MOST));
        assert!(!prints.prints.contains(&sha256(&0_usize.to_be_bytes())));
        assert!(prints.prints.contains(&sha256(&MOST.to_be_bytes())));
    }
}
