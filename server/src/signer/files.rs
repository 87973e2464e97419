//! A CA from files that others keep, such as kubeadm's: read again when they
//! change. Files that make no CA leave the last one in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use berth_domain::identity::SpkiHash;
use berth_domain::timestamp::Timestamp;

use super::local::{LocalSigner, LocalSignerError};
use crate::join::authorization::Authorized;
use crate::ports::{Answer, Hold, SignedCertificate, Signer};
use crate::watched::Stamps;

/// The signer.
pub struct FileSigner {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<LocalSigner>>,
    /// What was read last, and whether it was told that it is no good.
    seen: Mutex<(Stamps, bool)>,
}

impl FileSigner {
    /// Reads the pair.
    ///
    /// # Errors
    /// It cannot be read, makes no CA, or the CA has ended.
    pub fn open(certificate: PathBuf, key: PathBuf, now: Timestamp) -> Result<Self, LocalSignerError> {
        let stamps = Stamps::of(&[&certificate, &key]);
        let current = LocalSigner::from_files(&certificate, &key, now)?;
        Ok(Self {
            certificate,
            key,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new((stamps, false)),
        })
    }

    /// Reads the pair again if it was changed; a pair that was half written is tried
    /// again at the next look.
    pub fn look(&self, now: Timestamp) {
        let stamps = Stamps::of(&[&self.certificate, &self.key]);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = seen.0 == stamps;
        if is_known && !seen.1 {
            return;
        }
        match LocalSigner::from_files(&self.certificate, &self.key, now) {
            Ok(next) => {
                tracing::info!(pin = %next.ca_pin().to_pin(), "the signer's CA was read again");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                *seen = (stamps, false);
            }
            Err(error) => {
                if !is_known {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(error = format!("{error:#}"), "the signer keeps its last CA");
                }
                *seen = (stamps, true);
            }
        }
    }

    /// The hash of the CA's public key.
    #[must_use]
    pub fn ca_pin(&self) -> SpkiHash {
        self.current().ca_pin()
    }

    /// Where it reads from.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    fn current(&self) -> Arc<LocalSigner> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Signer for FileSigner {
    async fn sign(&self, authorized: &Authorized, hold: &Hold) -> Answer<SignedCertificate> {
        self.current().sign(authorized, hold).await
    }

    fn ca_bundle(&self) -> Arc<str> {
        self.current().ca_bundle()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (crt, key) = (directory.path().join("ca.crt"), directory.path().join("ca.key"));
        let write = |certificate: &str, secret: &str| {
            std::fs::write(&crt, certificate).expect("writable");
            std::fs::write(&key, secret).expect("writable");
        };
        let (first, second) = (pair("first"), pair("second"));
        write(&first.0, &first.1);
        let signer = FileSigner::open(crt.clone(), key.clone(), now()).expect("a CA");
        let before = signer.ca_pin();
        write(&second.0, &first.1);
        signer.look(now());
        assert_eq!(signer.ca_pin(), before, "two halves are no pair");
        // The other half comes with the same moment of change, or later.
        std::fs::write(&key, &second.1).expect("writable");
        signer.look(now());
        assert_ne!(signer.ca_pin(), before);
        // The old CA may stay behind the new one, for certificates that live on.
        write(&format!("{}{}", first.0, second.0), &first.1);
        signer.look(now());
        assert_eq!(signer.ca_pin(), before);
        assert_eq!(signer.ca_bundle().matches("BEGIN CERTIFICATE").count(), 2);
        std::fs::remove_file(&crt).expect("gone");
        signer.look(now());
        assert_eq!(signer.ca_pin(), before);
    }
}
