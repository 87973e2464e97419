//! The PROXY protocol in front of TLS: required from known balancers or refused from
//! everybody, never guessed. Where it is required, either version may come, as its
//! first bytes tell them apart (specification, section 2): nginx can only send
//! version 1. They also tell a balancer that speaks it to us uninvited, and one that
//! does not although it should.

use std::net::SocketAddr;

use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use super::failure;
use super::observer::{ConnectionOutcome, TlsFailure};

/// Whether connections begin with a PROXY header.
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
    let mut first = [0; SIGNATURE_V1.len()];
    read_while(stream, &mut first, |seen| SIGNATURE_V1.starts_with(seen) || SIGNATURE_V2.starts_with(seen))
        .await?;
    let header = if first == *SIGNATURE_V1 {
        rest_of_line(stream, &first).await?
    } else {
        rest_of_v2(stream, &first, longest).await?
    };
    client(&header, balancer).ok_or(ConnectionOutcome::ProxyHeaderInvalid)
}

/// A header of version 1: up to the end of its line, and not a byte of TLS.
async fn rest_of_line(stream: &mut TcpStream, first: &[u8]) -> Result<Vec<u8>, ConnectionOutcome> {
    let mut header = first.to_vec();
    while !header.ends_with(b"\r\n") {
        if header.len() >= LONGEST_V1 {
            return Err(ConnectionOutcome::ProxyHeaderInvalid);
        }
        let mut next = [0];
        read_while(stream, &mut next, |_| true).await?;
        header.extend(next);
    }
    Ok(header)
}

/// A header of version 2: its fixed part says how long it is.
async fn rest_of_v2(
    stream: &mut TcpStream,
    first: &[u8],
    longest: usize,
) -> Result<Vec<u8>, ConnectionOutcome> {
    let mut header = first.to_vec();
    header.resize(FIXED_BYTES, 0);
    if let Some(rest) = header.get_mut(first.len()..) {
        let signed = SIGNATURE_V2.get(first.len()..).unwrap_or_default();
        read_while(stream, rest, |seen| {
            let seen = seen.get(..seen.len().min(signed.len())).unwrap_or_default();
            signed.starts_with(seen)
        })
        .await?;
    }
    let (high, low) = (header.get(14).copied().unwrap_or(0), header.get(15).copied().unwrap_or(0));
    let total = FIXED_BYTES.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    if total > longest {
        return Err(ConnectionOutcome::ProxyHeaderInvalid);
    }
    header.resize(total, 0);
    if let Some(rest) = header.get_mut(FIXED_BYTES..) {
        stream.read_exact(rest).await.map_err(|error| failure::of_socket(&error))?;
    }
    Ok(header)
}

/// Fills `into`, and gives up with the first bytes that cannot be a header's.
async fn read_while(
    stream: &mut TcpStream,
    into: &mut [u8],
    may_be: impl Fn(&[u8]) -> bool,
) -> Result<(), ConnectionOutcome> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let more = stream.read(rest).await.map_err(|error| failure::of_socket(&error))?;
        if more == 0 {
            return Err(ConnectionOutcome::TlsFailed(TlsFailure::Closed));
        }
        filled = filled.saturating_add(more);
        if !into.get(..filled).is_some_and(&may_be) {
            return Err(ConnectionOutcome::ProxyHeaderMissing);
        }
    }
    Ok(())
}

fn client(header: &[u8], balancer: SocketAddr) -> Option<SocketAddr> {
    let either = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let (header, _) = ProxyHeader::parse(header, either).ok()?;
    match header.proxied_address() {
        None => Some(balancer),
        Some(addresses) => (addresses.protocol == proxy_header::Protocol::Stream).then_some(addresses.source),
    }
}

/// PROXY protocol specification 2.2: twelve bytes that no TLS record begins with.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Specification 2.1: the readable form.
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";

/// Specification 2.1: the longest line, its end included.
const LONGEST_V1: usize = 107;

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
    }

    #[test]
    fn a_line_of_version_1_names_the_client_or_the_balancer_itself() {
        assert_eq!(told(b"PROXY TCP4 198.51.100.7 192.0.2.10 8080 9443\r\n"), at("198.51.100.7:8080"));
        assert_eq!(told(b"PROXY TCP6 2001:db8::7 2001:db8::1 8080 9443\r\n"), at("[2001:db8::7]:8080"));
        assert_eq!(told(b"PROXY UNKNOWN\r\n"), at(BALANCER));
        for bad in
            ["PROXY TCP4 nobody 192.0.2.10 1 2\r\n", "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY \r\n"]
        {
            assert_eq!(told(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
