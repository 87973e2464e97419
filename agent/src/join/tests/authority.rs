//! A CA that issues nodes' certificates, for tests.

use std::time::{Duration, SystemTime};

use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::timestamp::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PublicKeyData as _, SubjectPublicKeyInfo,
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
