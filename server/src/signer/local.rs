//! The signer that holds its own CA key: ECDSA P-256, on this machine's disk.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{NodeIdentity, SpkiHash};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use data_encoding::HEXLOWER_PERMISSIVE;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

use super::directory::{Directory, Readers};
use crate::join::authorization::Authorized;
use crate::ports::{Answer, Hold, SignedCertificate, Signer};
use crate::signatures;
use crate::watched;

/// How long a CA that Berth makes is good: ten years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3652 * 24 * 3600);

/// The CA's key, in its directory; PKCS#8 PEM, readable by its owner alone.
pub const KEY_FILE: &str = "ca.key";

/// The CA's certificate, in its directory; PEM.
pub const CERTIFICATE_FILE: &str = "ca.crt";

/// Why the CA could not be opened, or a certificate not be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalSignerError {
    /// The directory cannot be used, or another process does not leave it.
    #[error("entering the CA's directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file cannot be read or written.
    #[error("reading or writing the CA's {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file of others cannot be read.
    #[error("reading the CA's pair")]
    Pair(#[from] watched::Unreadable),
    /// There is a certificate and no key for it.
    #[error(
        "{path} has a CA certificate and no key: put ca.key back, or remove ca.crt to begin a new CA, which every node must join anew"
    )]
    KeyMissing {
        /// The CA's directory.
        path: PathBuf,
    },
    /// Key and certificate do not belong together, or it is no CA's.
    #[error(
        "{path} has a key and a certificate that make no CA together: put back the pair that belongs together"
    )]
    NotAPair {
        /// The CA's directory.
        path: PathBuf,
    },
    /// Its time is over.
    #[error("the CA certificate ended at {ended}: put a new pair in its place")]
    Ended {
        /// When.
        ended: Timestamp,
    },
    /// A name for the server's certificate is no name.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    ServerName {
        /// What was given.
        name: String,
    },
    /// No name for the server's certificate was given.
    #[error("a server's certificate needs one name at least")]
    NoServerName,
    /// A serial number is not hexadecimal of 1 to 20 bytes.
    #[error("the serial number is not 1 to 20 bytes in hexadecimal")]
    Serial,
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// A key or certificate could not be made or read.
    #[error("making a key or certificate")]
    Certificate(#[source] rcgen::Error),
}

/// A serving certificate with its key. It has no Debug: the key is a secret.
pub struct ServerCertificate {
    /// Leaf first; DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER, wiped when dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A CA of this server.
pub struct LocalSigner {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    bundle: Arc<str>,
    pin: SpkiHash,
    ends: Timestamp,
}

impl LocalSigner {
    /// Loads the CA in `directory`, or makes one there for the cluster. Any
    /// number of processes may do this at once and get the same CA; a crash on
    /// the way is mended by the next start. Blocks, for ten seconds at most.
    ///
    /// # Errors
    /// The directory or files cannot be used, are links, or may be read by
    /// others; key and certificate do not belong together; the CA has ended.
    pub fn open_or_create(
        directory: &Path,
        cluster_id: &str,
        now: Timestamp,
    ) -> Result<Self, LocalSignerError> {
        let entered = Directory::enter(directory)
            .map_err(|cause| LocalSignerError::Directory { path: directory.to_owned(), cause })?;
        let file =
            |name: &'static str| move |cause| LocalSignerError::File { path: directory.join(name), cause };
        let key = entered.read(KEY_FILE, Readers::Owner).map_err(file(KEY_FILE))?;
        let certificate = entered.read(CERTIFICATE_FILE, Readers::Anyone).map_err(file(CERTIFICATE_FILE))?;
        let key = match key {
            Some(pem) => KeyPair::from_pem(&pem).map_err(LocalSignerError::Certificate)?,
            None if certificate.is_some() => {
                return Err(LocalSignerError::KeyMissing { path: directory.to_owned() });
            }
            None => {
                let key = KeyPair::generate().map_err(LocalSignerError::Certificate)?;
                let pem = Zeroizing::new(key.serialize_pem());
                entered.write(KEY_FILE, pem.as_bytes(), Readers::Owner).map_err(file(KEY_FILE))?;
                key
            }
        };
        // A key alone is what a crash leaves: its certificate is made now.
        let bundle = match certificate {
            Some(pem) => String::clone(&pem),
            None => {
                let pem = ca_certificate(&key, cluster_id, now)?;
                entered
                    .write(CERTIFICATE_FILE, pem.as_bytes(), Readers::Anyone)
                    .map_err(file(CERTIFICATE_FILE))?;
                pem
            }
        };
        Self::load(key, bundle, now)?.ok_or_else(|| LocalSignerError::NotAPair { path: directory.to_owned() })
    }

    /// A CA from files that others keep: its certificate first in the one, perhaps
    /// with older ones behind it, and its key in the other, PEM. ECDSA and RSA.
    ///
    /// # Errors
    /// They cannot be read, make no CA together, or the CA has ended.
    pub fn from_files(certificate: &Path, key: &Path, now: Timestamp) -> Result<Self, LocalSignerError> {
        let (chain, secret) = (watched::read(certificate)?, watched::read(key)?);
        Self::from_pem(&chain, &secret, certificate, now)
    }

    /// The same from texts; `place` is for the error only.
    ///
    /// # Errors
    /// As for files.
    pub fn from_pem(
        certificate: &str,
        key: &str,
        place: &Path,
        now: Timestamp,
    ) -> Result<Self, LocalSignerError> {
        let key = KeyPair::from_pem(key).map_err(LocalSignerError::Certificate)?;
        Self::load(key, certificate.to_owned(), now)?
            .ok_or_else(|| LocalSignerError::NotAPair { path: place.to_owned() })
    }

    /// A new CA as texts, for whoever keeps it elsewhere: certificate and key, PEM.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn make(cluster_id: &str, now: Timestamp) -> Result<(String, Zeroizing<String>), LocalSignerError> {
        let key = KeyPair::generate().map_err(LocalSignerError::Certificate)?;
        Ok((ca_certificate(&key, cluster_id, now)?, Zeroizing::new(key.serialize_pem())))
    }

    /// What a token pins: the hash of the CA's public key.
    #[must_use]
    pub const fn ca_pin(&self) -> SpkiHash {
        self.pin
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn ca_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs what is no certificate, as certificates are signed. What is signed begins
    /// with a word of its own that no certificate begins with.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn endorse(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        rcgen::SigningKey::sign(self.issuer.key(), message)
    }

    /// A certificate for this server's own listener, with a key of its own. The
    /// names come from configuration only (R16).
    ///
    /// # Errors
    /// A name is neither a DNS name nor an IP address, or there is none.
    pub fn issue_server(
        &self,
        names: &[String],
        validity: Duration,
        now: Timestamp,
    ) -> Result<ServerCertificate, LocalSignerError> {
        if names.is_empty() {
            return Err(LocalSignerError::NoServerName);
        }
        let legal = |name: &&String| {
            *name == "localhost" || name.parse::<IpAddr>().is_ok() || name.parse::<NodeName>().is_ok()
        };
        if let Some(name) = names.iter().find(|name| !legal(name)) {
            return Err(LocalSignerError::ServerName { name: name.clone() });
        }
        let mut serial = [0; SERVER_SERIAL_BYTES];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| LocalSignerError::Randomness)?;
        // RFC 5280 4.1.2.2: positive.
        let [first, ..] = &mut serial;
        *first = (*first & 0x3f) | 0x40;
        let not_after = now.after(validity).min(self.ends);
        let mut params = CertificateParams::new(names).map_err(LocalSignerError::Certificate)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "berth-server");
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        end_entity(&mut params, now.before(BACKDATED), not_after);
        let mut key = KeyPair::generate().map_err(LocalSignerError::Certificate)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(LocalSignerError::Certificate)?;
        let secret = Zeroizing::new(key.serialize_der());
        key.zeroize();
        Ok(ServerCertificate { chain: vec![signed.into()], key: secret, not_after })
    }

    /// `None` if key and certificate make no CA.
    fn load(key: KeyPair, bundle: String, now: Timestamp) -> Result<Option<Self>, LocalSignerError> {
        let Ok(certificate) = CertificateDer::from_pem_slice(bundle.as_bytes()) else {
            return Ok(None);
        };
        let Ok(([], parsed)) = X509Certificate::from_der(&certificate) else {
            return Ok(None);
        };
        let may_sign =
            parsed.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        let spki = key.subject_public_key_info();
        if !parsed.is_ca() || !may_sign || parsed.public_key().raw != spki {
            return Ok(None);
        }
        let ends = Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1000));
        if now >= ends {
            return Err(LocalSignerError::Ended { ended: ends });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(LocalSignerError::Certificate)?;
        Ok(Some(Self { issuer, pin: SpkiHash::of(&spki), certificate, bundle: bundle.into(), ends }))
    }

    /// Everything but the public key comes from policy (R10).
    fn node_certificate(&self, authorized: &Authorized) -> Result<CertificateDer<'static>, LocalSignerError> {
        let terms = authorized.terms();
        let serial = terms.serial.as_deref().unwrap_or_default();
        let serial = HEXLOWER_PERMISSIVE.decode(serial.as_bytes()).map_err(|_| LocalSignerError::Serial)?;
        if serial.is_empty() || serial.len() > MOST_SERIAL_BYTES {
            return Err(LocalSignerError::Serial);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, NodeIdentity::ORGANIZATION);
        let name = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, authorized.node().name);
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        end_entity(&mut params, terms.not_before, terms.not_after.min(self.ends));
        let key =
            SubjectPublicKeyInfo::from_der(authorized.public_key()).map_err(LocalSignerError::Certificate)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(LocalSignerError::Certificate)?;
        signatures::made(signed.der(), self.issuer.key().der_bytes());
        Ok(signed.into())
    }
}

#[async_trait]
impl Signer for LocalSigner {
    async fn sign(&self, authorized: &Authorized, _hold: &Hold) -> Answer<SignedCertificate> {
        let signed = self.node_certificate(authorized).map_err(|error| {
            Diagnosis::new(Code::SignerUnavailable, Phase::Authorization).with_private(
                "error",
                anyhow::Chain::new(&error).map(ToString::to_string).collect::<Vec<_>>().join(": "),
            )
        })?;
        Ok(SignedCertificate { chain: vec![signed.to_vec()] })
    }

    fn ca_bundle(&self) -> Arc<str> {
        Arc::clone(&self.bundle)
    }
}

fn ca_certificate(key: &KeyPair, cluster_id: &str, now: Timestamp) -> Result<String, LocalSignerError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // RFC 5280 ends common names at 64 characters.
    let name: String = format!("berth CA {cluster_id}").chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment(now.before(BACKDATED));
    params.not_after = moment(now.after(CA_LIFETIME));
    Ok(params.self_signed(key).map_err(LocalSignerError::Certificate)?.pem())
}

/// What every certificate below the CA has in common.
fn end_entity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = moment(not_before);
    params.not_after = moment(not_after);
}

fn moment(at: Timestamp) -> OffsetDateTime {
    SystemTime::from(at).into()
}

/// For machines whose clock is a little behind.
const BACKDATED: Duration = Duration::from_secs(300);
const SERVER_SERIAL_BYTES: usize = 16;
/// RFC 5280 4.1.2.2.
const MOST_SERIAL_BYTES: usize = 20;

#[cfg(test)]
mod tests;
