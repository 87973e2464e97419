//! A CA that issues nodes' certificates, for tests.

use std::time::{Duration, SystemTime};

use berth_domain::bundle::{ENDORSED, Entry, FORMAT, Manifest, Place, SIGNED, Signature, Signed};
use berth_domain::facts::Arch;
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash};
use berth_domain::timestamp::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PublicKeyData as _, SigningKey as _, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// A CA with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
    pub(crate) pin: SpkiHash,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().expect("a key"))
    }

    pub(crate) fn with_key(name: &str, key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("a certificate");
        let pin = SpkiHash::of(&key.subject_public_key_info());
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { issuer: Issuer::new(params, key), pem, der, pin }
    }

    /// A bundle of one program, signed by a key that this CA has endorsed.
    pub(crate) fn bundle(&self, program: &[u8]) -> Signed {
        let entry = Entry {
            place: Place::Program,
            name: "kubelet".parse().expect("a name"),
            architecture: Some(Arch::Amd64),
            version: None,
            license: None,
            references: Vec::new(),
            size: program.len() as u64,
            sha256: Digest::of(program),
        };
        let manifest = Manifest { format: FORMAT, entries: vec![entry] }.to_bytes().expect("within bounds");
        let own = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let key = own.der_bytes().to_vec();
        let endorsement = self.issuer.key().sign(&[ENDORSED, &key].concat()).expect("signed");
        let signature = own.sign(&[SIGNED, &manifest].concat()).expect("signed");
        Signed { manifest, signature: Signature { key, authority: self.pin, endorsement, signature } }
    }

    /// A server's certificate and its key, PKCS #8, both DER.
    pub(crate) fn server(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        (leaf.der().to_vec(), key.serialize_der())
    }

    /// A node's certificate for the key of a request.
    pub(crate) fn sign(&self, request: &[u8], name: &str, now: Timestamp, life: Duration) -> Vec<u8> {
        let (_, request) = X509CertificationRequest::from_der(request).expect("a request");
        self.sign_key(request.certification_request_info.subject_pki.raw, name, now, life)
    }

    /// A node's certificate for a key, DER SubjectPublicKeyInfo.
    pub(crate) fn sign_key(&self, spki: &[u8], name: &str, now: Timestamp, life: Duration) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, NodeIdentity::ORGANIZATION);
        let common_name = format!("{}{name}", NodeIdentity::COMMON_NAME_PREFIX);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = SystemTime::from(now.before(Duration::from_secs(300))).into();
        params.not_after = SystemTime::from(now.after(life)).into();
        let public = SubjectPublicKeyInfo::from_der(spki).expect("a key");
        params.signed_by(&public, &self.issuer).expect("a certificate").der().to_vec()
    }
}
