//! The server's side of TLS: 1.3 only, HTTP/2 only, post-quantum key exchange
//! first, no resumption, no early data; a client certificate is optional here and
//! required per RPC by the layers above. Certificates and roots can be exchanged
//! while the server runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::limits::{ALPN, TLS_EARLY_DATA_BYTES, TLS_TICKETS};
use crate::signatures;

/// What the listener shows and whom it believes. Each new connection takes the
/// state of the moment; connections that stand are not touched by a reload.
#[derive(Debug)]
pub struct ServerTls {
    current: RwLock<Arc<ServerConfig>>,
}

/// The certificates of one state of the listener.
#[derive(Debug)]
pub struct Credentials {
    /// The serving certificate, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The certificates that may vouch for a client's; at least one.
    pub client_roots: Vec<CertificateDer<'static>>,
}

/// Why credentials cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root is no certificate.
    #[error("reading client root {index} (counted from 0)")]
    ClientRoot {
        /// Its place in `Credentials::client_roots`.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// The roots do not make a verifier: there is none, most likely.
    #[error("building the verifier of client certificates")]
    Verifier(#[source] VerifierBuilderError),
    /// The chain and the key do not make a server: of different pairs, or malformed.
    #[error("taking the serving certificate and its key")]
    Serving(#[source] rustls::Error),
    /// The crypto library cannot do what we ask of it.
    #[error("setting TLS 1.3 up")]
    Provider(#[source] rustls::Error),
}

impl ServerTls {
    /// Checks the credentials and makes them the current ones.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(credentials: Credentials) -> Result<Self, TlsError> {
        Ok(Self { current: RwLock::new(Arc::new(configuration(credentials)?)) })
    }

    /// Serves new connections with these credentials from now on.
    ///
    /// # Errors
    /// See [`TlsError`]; the old credentials then stay in force.
    pub fn reload(&self, credentials: Credentials) -> Result<(), TlsError> {
        let next = Arc::new(configuration(credentials)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

fn configuration(credentials: Credentials) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, root) in credentials.client_roots.into_iter().enumerate() {
        roots.add(root).map_err(|source| TlsError::ClientRoot { index, source })?;
    }
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain, credentials.key)
        .map_err(TlsError::Serving)?;
    configuration.alpn_protocols = vec![ALPN.to_vec()];
    configuration.ignore_client_order = true;
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = TLS_TICKETS;
    configuration.max_tls13_tickets = TLS_TICKETS;
    configuration.max_early_data_size = TLS_EARLY_DATA_BYTES;
    Ok(configuration)
}

/// That of both programs, with signatures that were checked remembered.
fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: signatures::algorithms(),
        ..berth_program::tls::provider()
    }
}
