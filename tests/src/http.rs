//! The little HTTP that a test needs to ask for health and metrics.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Status and body of a GET, if something answers.
#[must_use]
pub fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if is_chunked { joined(body) } else { body.to_owned() }))
}

/// A body that came in chunks, each after a line with its size (RFC 9112 section 7.1).
fn joined(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size, 16).ok().filter(|size| *size > 0) else { break };
        let (Some(chunk), Some(next)) = (after.get(..size), after.get(size.saturating_add(2)..)) else {
            break;
        };
        whole.push_str(chunk);
        rest = next;
    }
    whole
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_body_in_chunks_is_one_again() {
        assert_eq!(super::joined("4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n"), "{\"a\":1}");
    }
}
