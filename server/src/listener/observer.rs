//! What becomes of connections, for the metrics and for the operator's diagnosis:
//! a closed list of outcomes, and the observer that is told of each.

use berth_telemetry::metrics::{LimiterMeter, QueueMeter};

/// Is told what became of each connection. Called on the connection's own task:
/// it must not block.
pub trait Observer: Send + Sync {
    /// One connection reached this outcome. A connection is `Accepted` at most once,
    /// and a deadline may strike it after that.
    fn connection(&self, outcome: ConnectionOutcome);

    /// What counts those who wait for their turn at the TLS handshake. Asked once.
    fn handshakes(&self) -> QueueMeter {
        QueueMeter::default()
    }

    /// What counts who may come in, by the number of all connections. Asked once.
    fn total(&self) -> LimiterMeter {
        LimiterMeter::default()
    }

    /// What counts who may come in, by the share of its source. Asked once.
    fn source(&self) -> LimiterMeter {
        LimiterMeter::default()
    }

    /// A connection that was `Accepted` in this lane has ended.
    fn closed(&self, lane: Lane) {
        let _ = lane;
    }
}

/// The observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn connection(&self, _: ConnectionOutcome) {}
}

/// Where a connection is served, decided by its client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// No client certificate: joining machines, and strangers.
    Anonymous,
    /// A client certificate that our roots vouch for.
    Authenticated,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionOutcome {
    /// TLS stands and the connection went to its lane.
    Accepted(Lane),
    /// The TLS handshake failed.
    TlsFailed(TlsFailure),
    /// The peer offered a certificate that does not verify. It hears a TLS alert
    /// only, so it is this count that tells the operator.
    ClientCertificateRefused(CertificateFailure),
    /// A PROXY header came although none is expected: the balancer speaks it, we do not.
    ProxyHeaderUnexpected,
    /// Something else came although a PROXY header is required: we expect it, the
    /// balancer does not speak it.
    ProxyHeaderMissing,
    /// The PROXY header is too long or malformed.
    ProxyHeaderInvalid,
    /// A PROXY header is required, and this address is not one of the balancers.
    ProxySourceRefused,
    /// The peer did not negotiate HTTP/2 by ALPN.
    NoAlpn,
    /// The PROXY header or the TLS handshake took too long.
    DeadlineHandshake,
    /// TLS stood, but no HTTP/2 preface came in time.
    DeadlineFirstByte,
    /// The anonymous peer proved nothing in time.
    DeadlineProof,
    /// The source holds its share of connections without proof already.
    SourceLimit,
    /// The server holds all the connections that it may.
    TotalLimit,
    /// The kernel would not give us a connection: descriptors or memory are short.
    AcceptError,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFailure {
    /// The peer closed the connection first: a port scan, a balancer's TCP check.
    Closed,
    /// What came is not TLS.
    NotTls,
    /// No protocol version, cipher suite or key exchange in common; TLS 1.2 ends here.
    Incompatible,
    /// The peer sent an alert: it did not like our certificate, most often.
    PeerAlert,
    /// The peer broke the protocol.
    Protocol,
    /// The socket failed.
    Io,
}

/// Why a client certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFailure {
    /// Its life is over, by our clock.
    Expired,
    /// Its life has not begun, by our clock.
    NotYetValid,
    /// None of our roots vouches for it.
    UnknownIssuer,
    /// Anything else: a wrong purpose, a bad signature, bad encoding.
    Invalid,
}

impl ConnectionOutcome {
    /// The outcome as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted(Lane::Anonymous) => "accepted_anonymous",
            Self::Accepted(Lane::Authenticated) => "accepted_authenticated",
            Self::TlsFailed(TlsFailure::Closed) => "tls_closed",
            Self::TlsFailed(TlsFailure::NotTls) => "tls_not_tls",
            Self::TlsFailed(TlsFailure::Incompatible) => "tls_incompatible",
            Self::TlsFailed(TlsFailure::PeerAlert) => "tls_peer_alert",
            Self::TlsFailed(TlsFailure::Protocol) => "tls_protocol",
            Self::TlsFailed(TlsFailure::Io) => "tls_io",
            Self::ClientCertificateRefused(CertificateFailure::Expired) => "certificate_expired",
            Self::ClientCertificateRefused(CertificateFailure::NotYetValid) => "certificate_not_yet_valid",
            Self::ClientCertificateRefused(CertificateFailure::UnknownIssuer) => "certificate_unknown_issuer",
            Self::ClientCertificateRefused(CertificateFailure::Invalid) => "certificate_invalid",
            Self::ProxyHeaderUnexpected => "proxy_header_unexpected",
            Self::ProxyHeaderMissing => "proxy_header_missing",
            Self::ProxyHeaderInvalid => "proxy_header_invalid",
            Self::ProxySourceRefused => "proxy_source_refused",
            Self::NoAlpn => "no_alpn",
            Self::DeadlineHandshake => "deadline_handshake",
            Self::DeadlineFirstByte => "deadline_first_byte",
            Self::DeadlineProof => "deadline_proof",
            Self::SourceLimit => "source_limit",
            Self::TotalLimit => "total_limit",
            Self::AcceptError => "accept_error",
        }
    }
}
