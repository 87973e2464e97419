//! What both programs hold of TLS: which suites and groups are offered, and how a peer
//! is spoken to whose certificate proves nothing yet.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The suites and groups of the join line, post-quantum key exchange first (SECURITY
/// R33). AES-128 comes before the others: its SHA-256 key schedule spares a fifth of a
/// handshake against SHA-384, and every TLS 1.3 peer has it (RFC 8446 section 9.1). The
/// others are for peers whose own policy leaves it out.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..default_provider()
    }
}

/// TLS 1.3 to a server whose certificate may be anybody's. That it holds the
/// certificate's key is checked: without that, nothing that is exported from the
/// connection would say who is at its other end. Who that is, the caller learns
/// otherwise.
///
/// # Errors
/// The provider has no suite of TLS 1.3.
pub fn unproved(
    provider: CryptoProvider,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let verifier = Holder(provider.signature_verification_algorithms);
    let builder =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

/// Takes any certificate from whoever holds its key.
#[derive(Debug)]
struct Holder(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Holder {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
