//! The console's TLS: 1.3 only, by certificates from files, read again when they
//! change; a client certificate is asked for where a CA for them is named.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::TlsFiles;
use crate::watched::{Stamps, Unreadable, read};

/// Why a certificate cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// A file is no PEM of its kind.
    #[error("reading {what}, PEM")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// What is wrong.
        #[source]
        cause: rustls_pki_types::pem::Error,
    },
    /// They do not make a server.
    #[error("taking the certificate and its key")]
    Serving(#[from] rustls::Error),
    /// The CA does not make a verifier.
    #[error("taking console.clientCA")]
    ClientCa(#[from] VerifierBuilderError),
}

/// The certificate in force.
pub(super) struct Tls {
    files: TlsFiles,
    current: Mutex<(Stamps, Arc<ServerConfig>)>,
}

impl Tls {
    pub(super) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let config = Arc::new(load(&files)?);
        Ok(Self { files, current: Mutex::new((stamps, config)) })
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if current.0 != stamps {
            match load(&self.files) {
                Ok(config) => *current = (stamps, Arc::new(config)),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(error = format!("{error:#}"), "the console keeps its last certificate");
                    current.0 = stamps;
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&current.1))
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let ca = files.client_ca.as_deref().unwrap_or(&files.certificate);
    Stamps::of(&[&files.certificate, &files.key, ca])
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let certificates = |text: &str, what| {
        let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        all.map_err(|cause| TlsError::Pem { what, cause })
    };
    let chain = certificates(&read(&files.certificate)?, "console.certificate")?;
    let key = PrivateKeyDer::from_pem_slice(read(&files.key)?.as_bytes())
        .map_err(|cause| TlsError::Pem { what: "console.key", cause })?;
    let provider = Arc::new(default_provider());
    let verifier = match &files.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(&read(ca)?, "console.clientCA")? {
                roots.add(root)?;
            }
            // Who has none may still show a token.
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
