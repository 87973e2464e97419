//! The PROXY protocol, version 2, in front of TLS: required from known balancers
//! or refused from everybody, never guessed. The first bytes tell a balancer that
//! speaks it to us uninvited, and one that does not although it should.

use std::net::SocketAddr;

use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use super::failure;
use super::observer::{ConnectionOutcome, TlsFailure};

/// Whether connections begin with a PROXY v2 header.
#[derive(Clone, Debug, Default)]
pub enum ProxyProtocol {
    /// Never; the address of the TCP connection is the client's.
    #[default]
    Refused,
    /// Always, and only from these balancers; nobody else may connect.
    Required {
        /// The balancers' own addresses.
        from: Vec<IpNet>,
    },
}

/// Waits for the first bytes, without taking them, and refuses a PROXY header of
/// either version.
pub(super) async fn refuse_header(stream: &TcpStream) -> Result<(), ConnectionOutcome> {
    // Waiting for readiness first keeps the buffer out of a silent connection's memory.
    stream.ready(Interest::READABLE).await.map_err(|error| failure::of_socket(&error))?;
    let mut first = [0; SIGNATURE_V2.len()];
    let seen = stream.peek(&mut first).await.map_err(|error| failure::of_socket(&error))?;
    let first = first.get(..seen).unwrap_or_default();
    if first.is_empty() {
        return Err(ConnectionOutcome::TlsFailed(TlsFailure::Closed));
    }
    if SIGNATURE_V2.starts_with(first) || first.starts_with(SIGNATURE_V1) {
        return Err(ConnectionOutcome::ProxyHeaderUnexpected);
    }
    Ok(())
}

/// Takes the header off the stream and tells the client's address: the one that the
/// balancer saw, or the balancer's own if it speaks for itself (LOCAL: health checks).
pub(super) async fn take_header(
    stream: &mut TcpStream,
    balancer: SocketAddr,
    from: &[IpNet],
    longest: usize,
) -> Result<SocketAddr, ConnectionOutcome> {
    let address = balancer.ip().to_canonical();
    if !from.iter().any(|net| net.contains(&address)) {
        return Err(ConnectionOutcome::ProxySourceRefused);
    }
    stream.ready(Interest::READABLE).await.map_err(|error| failure::of_socket(&error))?;
    let mut header = [0; FIXED_BYTES];
    let mut filled = 0;
    while let Some(rest) = header.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let more = stream.read(rest).await.map_err(|error| failure::of_socket(&error))?;
        if more == 0 {
            return Err(ConnectionOutcome::TlsFailed(TlsFailure::Closed));
        }
        filled = filled.saturating_add(more);
        let signature = header.get(..filled.min(SIGNATURE_V2.len()));
        if !signature.is_some_and(|seen| SIGNATURE_V2.starts_with(seen)) {
            return Err(ConnectionOutcome::ProxyHeaderMissing);
        }
    }
    let [.., high, low] = header;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let total = FIXED_BYTES.saturating_add(rest);
    if total > longest {
        return Err(ConnectionOutcome::ProxyHeaderInvalid);
    }
    let mut bytes = header.to_vec();
    bytes.resize(total, 0);
    if let Some(rest) = bytes.get_mut(FIXED_BYTES..) {
        stream.read_exact(rest).await.map_err(|error| failure::of_socket(&error))?;
    }
    client(&bytes, balancer).ok_or(ConnectionOutcome::ProxyHeaderInvalid)
}

fn client(header: &[u8], balancer: SocketAddr) -> Option<SocketAddr> {
    let only_v2 = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _) = ProxyHeader::parse(header, only_v2).ok()?;
    match header.proxied_address() {
        None => Some(balancer),
        Some(addresses) => (addresses.protocol == proxy_header::Protocol::Stream).then_some(addresses.source),
    }
}

/// PROXY protocol specification 2.2: twelve bytes that no TLS record begins with.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Specification 2.1: the readable form.
const SIGNATURE_V1: &[u8] = b"PROXY ";

/// Signature, version and command, family, length of the rest.
const FIXED_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str = "192.0.2.10:5000";

    fn at(text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap_or(u16::MAX);
        [SIGNATURE_V2.as_slice(), &[command, family], &length.to_be_bytes(), rest].concat()
    }

    fn told(bytes: &[u8]) -> Option<SocketAddr> {
        client(bytes, at(BALANCER)?)
    }

    #[test]
    fn the_client_is_the_source_that_the_header_names() {
        let rest = [198, 51, 100, 7, 192, 0, 2, 10, 0x1f, 0x90, 0x24, 0xe3];
        assert_eq!(told(&header(0x21, 0x11, &rest)), at("198.51.100.7:8080"));
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_is_the_client() {
        assert_eq!(told(&header(0x20, 0x00, &[])), at(BALANCER));
    }

    #[test]
    fn headers_of_datagrams_other_versions_and_missing_addresses_are_refused() {
        let rest = [0; 12];
        assert_eq!(told(&header(0x21, 0x12, &rest)), None);
        assert_eq!(told(&header(0x31, 0x11, &rest)), None);
        assert_eq!(told(&header(0x21, 0x11, &[0; 4])), None);
        assert_eq!(told(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), None);
    }
}
