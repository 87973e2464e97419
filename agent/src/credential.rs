//! The machine's keys and the node's credential. Private keys have no Debug
//! and are wiped when dropped.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use berth_domain::identity::{Digest, MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::name::NodeName;
use berth_domain::timestamp::Timestamp;
use rcgen::{CertificateParams, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// A key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness, or the library refused.
    #[error("making a key")]
    Making,
    /// The bytes are no PKCS #8 key of the kind wanted.
    #[error("reading a key: it is no PKCS #8 key for {algorithm}")]
    Reading {
        /// The kind wanted.
        algorithm: &'static str,
    },
    /// The request could not be made.
    #[error("making a certificate request")]
    Request(#[source] rcgen::Error),
}

/// The machine's own key, Ed25519: who the machine is, whatever its node is called.
pub struct MachineKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl MachineKey {
    /// A fresh key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Making)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// It is no Ed25519 key in PKCS #8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Reading { algorithm: "Ed25519" })?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// Signs a message (RFC 8032).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        let made = self.pair.sign(message);
        // Ed25519 signatures have 64 bytes; a shorter one would verify nowhere.
        for (to, from) in signature.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        signature
    }

    /// The public key: DER SubjectPublicKeyInfo, 44 bytes (RFC 8410).
    #[must_use]
    pub fn public_key_spki(&self) -> Vec<u8> {
        [ED25519_SPKI.as_slice(), self.pair.public_key().as_ref()].concat()
    }

    /// The machine's id.
    #[must_use]
    pub fn machine_id(&self) -> MachineId {
        MachineId::of(&self.public_key_spki())
    }

    /// The private key, PKCS #8.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// A node's key, ECDSA P-256: what a certificate is for.
pub struct NodeKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl NodeKey {
    /// A fresh key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Making)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// It is no ECDSA P-256 key in PKCS #8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|_| KeyError::Reading { algorithm: "ECDSA P-256" })?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// The private key, PKCS #8.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key: DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_spki(&self) -> Vec<u8> {
        Request(self).subject_public_key_info()
    }

    /// SHA-256 of the public key.
    #[must_use]
    pub fn spki_hash(&self) -> SpkiHash {
        SpkiHash::of(&self.public_key_spki())
    }

    /// A certificate request (PKCS #10, DER) that carries the key and the node's
    /// subject, where its name is known, and nothing else: the server takes name
    /// and uses from its policy. Some clusters sign only a request that names the
    /// node already. Two requests for one key differ in their signature.
    ///
    /// # Errors
    /// The library refuses.
    pub fn certificate_request(&self, node: Option<&NodeName>) -> Result<Vec<u8>, KeyError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(node) = node {
            let subject = &mut parameters.distinguished_name;
            subject.push(DnType::OrganizationName, NodeIdentity::ORGANIZATION);
            subject.push(DnType::CommonName, format!("{}{node}", NodeIdentity::COMMON_NAME_PREFIX));
        }
        let request = parameters.serialize_request(&Request(self)).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }
}

/// Lends a key to rcgen, so that no copy of it is made.
struct Request<'a>(&'a NodeKey);

impl PublicKeyData for Request<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Request<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.pair.sign(&SystemRandom::new(), message);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| rcgen::Error::RingUnspecified)
    }
}

/// What an enrolment or a renewal has brought, beside the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The CA certificates to trust, PEM.
    pub ca_bundle: String,
    /// Who the node is.
    pub node: NodeIdentity,
    /// The join.
    pub join: JoinId,
}

/// Why a key and a chain are no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACredential {
    /// No certificate at all.
    #[error("the chain is empty")]
    Empty,
    /// The first is none.
    #[error("the first of the chain is no X.509 certificate")]
    NoCertificate,
    /// It is for another key.
    #[error("the certificate is for another key than the agent's")]
    OtherKey,
}

/// A node's credential: key, certificates, what they are for, whom to trust.
#[derive(Clone)]
pub struct Credential {
    key: Zeroizing<Vec<u8>>,
    issue: Issue,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Credential {
    /// Joins a key and what was issued for it. Whether the certificate says
    /// what policy allows, and who signed it, is judged elsewhere.
    ///
    /// # Errors
    /// The leaf cannot be read or is for another key.
    pub fn new(key: &NodeKey, issue: Issue) -> Result<Self, NotACredential> {
        let leaf = issue.chain.first().ok_or(NotACredential::Empty)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| NotACredential::NoCertificate)?;
        if leaf.public_key().raw != key.public_key_spki() {
            return Err(NotACredential::OtherKey);
        }
        let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        let validity = leaf.validity();
        let (not_before, not_after) =
            (moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp()));
        Ok(Self { key: key.pkcs8.clone(), issue, not_before, not_after })
    }

    /// The private key, PKCS #8 DER.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// DER certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.issue.chain
    }

    /// The CA certificates to trust, PEM.
    #[must_use]
    pub fn ca_bundle(&self) -> &str {
        &self.issue.ca_bundle
    }

    /// Who the node is.
    #[must_use]
    pub const fn node(&self) -> &NodeIdentity {
        &self.issue.node
    }

    /// The join that it came from.
    #[must_use]
    pub const fn join(&self) -> JoinId {
        self.issue.join
    }

    /// From when the leaf is good.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when the leaf is good.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SHA-256 of the leaf: tells credentials apart.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.issue.chain.first().map(Vec::as_slice).unwrap_or_default())
    }

    /// What was issued.
    pub(crate) const fn issue(&self) -> &Issue {
        &self.issue
    }
}

/// DER in front of an Ed25519 public key (RFC 8410, section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(any(test, feature = "doubles"))]
pub mod testing {
    //! Credentials as a signer would issue them, for tests.

    use super::{Credential, Issue, NodeKey};
    use berth_domain::identity::NodeIdentity;
    use berth_domain::timestamp::Timestamp;
    use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ED25519};
    use std::time::SystemTime;

    /// What a fresh CA issues for this key.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for tests: the parameters are fixed")]
    pub fn issue(key: &NodeKey, name: &str, begins: Timestamp, ends: Timestamp) -> Issue {
        let ca_key = rcgen::KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
        let ca = CertificateParams::default().self_signed(&ca_key).expect("fixed parameters");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, NodeIdentity::ORGANIZATION);
        let common_name = format!("{}{name}", NodeIdentity::COMMON_NAME_PREFIX);
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.not_before = SystemTime::from(begins).into();
        parameters.not_after = SystemTime::from(ends).into();
        let issuer = rcgen::Issuer::new(CertificateParams::default(), ca_key);
        let public = rcgen::SubjectPublicKeyInfo::from_der(&key.public_key_spki()).expect("its own");
        let leaf = parameters.signed_by(&public, &issuer).expect("fixed parameters");
        let token = "aaaaaaaaaa".parse().expect("a token id");
        Issue {
            chain: vec![leaf.der().to_vec()],
            ca_bundle: ca.pem(),
            node: NodeIdentity { name: name.parse().expect("a node name"), pool: Default::default() },
            join: berth_domain::join::JoinId::of(&token, key.spki_hash()),
        }
    }

    /// A credential as after an enrolment.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for tests: the parameters are fixed")]
    pub fn credential(name: &str, begins: Timestamp, ends: Timestamp) -> Credential {
        let key = NodeKey::generate().expect("randomness");
        let issue = issue(&key, name, begins, ends);
        Credential::new(&key, issue).expect("issued for it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_key_signs_as_the_machine_it_names() {
        let key = MachineKey::generate().expect("randomness");
        let spki = key.public_key_spki();
        assert_eq!(spki.len(), 44);
        assert_eq!(key.machine_id(), MachineId::of(&spki));
        let public =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, &spki[12..]);
        public.verify(b"message", &key.sign(b"message")).expect("its own signature");
        let again = MachineKey::from_pkcs8(key.pkcs8()).expect("its own bytes");
        assert_eq!(again.public_key_spki(), spki);
    }

    #[test]
    fn a_request_proves_the_key_and_asks_for_nothing() {
        use x509_parser::certification_request::X509CertificationRequest;
        let key = NodeKey::generate().expect("randomness");
        let name = "n1".parse().expect("a name");
        for (node, subject) in [(None, ""), (Some(&name), "O=system:nodes, CN=system:node:n1")] {
            let der = key.certificate_request(node).expect("a request");
            let (rest, request) = X509CertificationRequest::from_der(&der).expect("DER");
            assert!(rest.is_empty());
            request.verify_signature().expect("signed by its key");
            let info = request.certification_request_info;
            assert_eq!(info.subject_pki.raw, key.public_key_spki());
            assert_eq!(info.subject.to_string(), subject);
            assert_eq!(info.attributes().len(), 0, "no extension is asked for");
        }
    }

    #[test]
    fn a_certificate_for_another_key_is_no_credential() {
        let (begins, ends) = (Timestamp::from_millis(1_000), Timestamp::from_millis(9_000));
        let key = NodeKey::generate().expect("randomness");
        let issue = testing::issue(&key, "n1", begins, ends);
        let credential = Credential::new(&key, issue.clone()).expect("its key");
        assert_eq!((credential.not_before(), credential.not_after()), (begins, ends));
        let other = NodeKey::generate().expect("randomness");
        assert_eq!(Credential::new(&other, issue.clone()).err(), Some(NotACredential::OtherKey));
        let empty = Issue { chain: Vec::new(), ..issue };
        assert_eq!(Credential::new(&key, empty).err(), Some(NotACredential::Empty));
    }
}
