//! The agent's side of TLS: 1.3 only, HTTP/2 only, post-quantum key exchange
//! first, no resumption, no early data (SECURITY R33, R34). Connection 1 trusts
//! nobody and checks that the peer holds the key it shows; connection 2 trusts
//! the cluster's bundle and nothing else (R19).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, EXPORTER_LABEL};
use berth_program::tls::{provider, unproved as any_holder};
use rustls::client::{Resumption, WantsClientCert};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::{elapsed, socket_words};
use super::witness::{Seen, Witness, tls_error};
use crate::ports::Credential;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The only protocol spoken (RFC 7301, RFC 9113).
const ALPN: &[u8] = b"h2";

/// A TLS connection, and what is known of its other end.
pub(super) struct Secured {
    pub(super) stream: Witness<TlsStream<Witness<TcpStream>>>,
    pub(super) channel: ChannelBinding,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) seen: Arc<Seen>,
}

/// Why a credential cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the CA bundle has no certificate")]
    NoRoot,
    #[error("reading the CA bundle")]
    Root(#[source] rustls::Error),
    #[error("taking certificate and key")]
    Pair(#[source] rustls::Error),
    #[error("setting TLS 1.3 up")]
    Provider(#[source] rustls::Error),
}

/// TLS of connection 1: whom the certificate names is proved later, by the token.
pub(super) fn unproved() -> Result<ClientConfig, Unusable> {
    let builder = any_holder(provider()).map_err(Unusable::Provider)?;
    Ok(hardened(builder.with_no_client_auth()))
}

/// TLS of connection 2.
pub(super) fn mutual(credential: &Credential) -> Result<ClientConfig, Unusable> {
    let chain = credential.chain().iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credential.key().to_vec()));
    let builder = trusting(credential.ca_bundle())?;
    builder.with_client_auth_cert(chain, key).map(hardened).map_err(Unusable::Pair)
}

fn trusting(ca_bundle: &str) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_bundle.as_bytes()) {
        let certificate = certificate.map_err(|_| Unusable::NoRoot)?;
        roots.add(certificate).map_err(Unusable::Root)?;
    }
    if roots.is_empty() {
        return Err(Unusable::NoRoot);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(Unusable::Provider)?;
    Ok(builder.with_root_certificates(roots))
}

fn hardened(mut configuration: ClientConfig) -> ClientConfig {
    configuration.alpn_protocols = vec![ALPN.to_vec()];
    configuration.resumption = Resumption::disabled();
    configuration.enable_early_data = false;
    configuration
}

/// Shakes hands over a TCP connection that was just made.
///
/// # Errors
/// The peer closed before it spoke TLS, or speaks something else.
pub(super) async fn secure(
    tcp: TcpStream,
    address: SocketAddr,
    name: ServerName<'static>,
    configuration: ClientConfig,
    phase: Phase,
) -> Result<Secured, Diagnosis> {
    let began = Instant::now();
    let seen = Arc::new(Seen::default());
    let failed =
        |error: String| Diagnosis::new(Code::TlsFailed, phase).with("address", address).with("error", error);
    let tcp = Witness::new(tcp, Arc::clone(&seen));
    let shaken = timeout(HANDSHAKE, TlsConnector::from(Arc::new(configuration)).connect(name, tcp)).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if tls_error(&error).is_none() && !seen.spoke() => {
            return Err(Diagnosis::new(Code::ConnectionClosed, phase)
                .with("address", address)
                .with("when", format!("before it spoke TLS, after {}", elapsed(began))));
        }
        Ok(Err(error)) => return Err(failed(handshake_words(&error))),
        Err(_elapsed) => return Err(failed(format!("no answer within {} s", HANDSHAKE.as_secs()))),
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(failed("it does not speak HTTP/2 (ALPN h2)".to_owned()));
    }
    let exported = session
        .export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))
        .map_err(|error| failed(error.to_string()))?;
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    Ok(Secured {
        channel: ChannelBinding::new(exported),
        chain,
        stream: Witness::new(stream, Arc::clone(&seen)),
        seen,
    })
}

fn handshake_words(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidMessage(_)) => "what answers does not speak TLS".to_owned(),
        Some(tls) => tls.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closed within the handshake".to_owned(),
        None => socket_words(error),
    }
}
