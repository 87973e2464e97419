//! Whom machines are told to trust: on the line, the CA of the serving
//! certificate and those that issue nodes' certificates; in the cluster, the
//! cluster's own. Without serving files all of them are one.

use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::ports::{Signer, Trust};

/// The bundles of the moment.
pub struct Bundles {
    signer: Arc<dyn Signer>,
    serving: RwLock<Option<Arc<str>>>,
    api_servers: Option<Arc<str>>,
}

impl Bundles {
    /// Everything hangs on the signer's CA.
    #[must_use]
    pub fn of(signer: Arc<dyn Signer>) -> Self {
        Self { signer, serving: RwLock::new(None), api_servers: None }
    }

    /// The API servers are verified by these CAs, PEM.
    #[must_use]
    pub fn with_api_servers(mut self, bundle: Arc<str>) -> Self {
        self.api_servers = Some(bundle);
        self
    }

    /// The serving certificate hangs on this CA from now on, PEM.
    pub fn serve_by(&self, bundle: Arc<str>) {
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Some(bundle);
    }

    fn with_signers(&self, other: Option<Arc<str>>) -> Arc<str> {
        let signers = self.signer.ca_bundle();
        match other {
            Some(other) if other != signers => union(&[&other, &signers]).into(),
            Some(_) | None => signers,
        }
    }
}

impl Trust for Bundles {
    fn line(&self) -> Arc<str> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.with_signers(serving)
    }

    fn cluster(&self) -> Arc<str> {
        self.with_signers(self.api_servers.clone())
    }
}

/// The certificates of all bundles, each once, in order.
#[must_use]
pub fn union(bundles: &[&str]) -> String {
    let mut seen: Vec<CertificateDer<'static>> = Vec::new();
    for bundle in bundles {
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten() {
            if !seen.contains(&certificate) {
                seen.push(certificate);
            }
        }
    }
    seen.iter().map(|certificate| pem(certificate)).collect()
}

/// A certificate as PEM.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    berth_program::pem::encode(berth_program::pem::CERTIFICATE, der).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_in_two_bundles_is_told_once() {
        let (a, b) = (pem(&[1; 100]), pem(&[2; 48]));
        assert_eq!(union(&[&format!("{a}{b}"), &b]), format!("{a}{b}"));
        assert_eq!(union(&["", "no PEM at all"]), "");
    }
}
