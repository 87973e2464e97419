//! What a failed handshake is counted as.

use std::io;

use rustls::{CertificateError, Error};

use super::observer::{CertificateFailure, ConnectionOutcome, TlsFailure};

/// The class of a handshake that failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is rustls' and grows")]
pub(super) fn of_handshake(error: &io::Error) -> ConnectionOutcome {
    let Some(error) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return of_socket(error);
    };
    ConnectionOutcome::TlsFailed(match error {
        Error::InvalidCertificate(cause) => {
            return ConnectionOutcome::ClientCertificateRefused(of_certificate(cause));
        }
        Error::NoApplicationProtocol => return ConnectionOutcome::NoAlpn,
        Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::AlertReceived(_) => TlsFailure::PeerAlert,
        Error::InvalidMessage(_) => TlsFailure::NotTls,
        _ => TlsFailure::Protocol,
    })
}

/// The class of a socket that failed before or during the handshake.
pub(super) fn of_socket(error: &io::Error) -> ConnectionOutcome {
    let gone = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    ConnectionOutcome::TlsFailed(if gone { TlsFailure::Closed } else { TlsFailure::Io })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is rustls' and grows")]
fn of_certificate(cause: &CertificateError) -> CertificateFailure {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFailure::NotYetValid
        }
        // The signature does not hold if a root of ours has the issuer's name but another
        // key: a cluster rebuilt under its old name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateFailure::UnknownIssuer,
        _ => CertificateFailure::Invalid,
    }
}
