//! From a name to a TCP connection: every address in turn, each with a deadline.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Endpoint;

/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(10);

/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// The most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// The most of `/etc/resolv.conf` that is shown, in name servers (resolv.conf(5)).
const MOST_NAME_SERVERS: usize = 3;

/// Connects to the first address of the endpoint that answers.
///
/// # Errors
/// The name does not resolve, or no address answers: then of the last one.
pub(super) async fn dial(
    endpoint: &Endpoint,
    resolv_conf: &Path,
    phase: Phase,
) -> Result<(TcpStream, SocketAddr), Diagnosis> {
    let unresolved = |error: String| {
        let servers = name_servers(resolv_conf);
        let why =
            Diagnosis::new(Code::NameNotResolved, phase).with("host", endpoint.host()).with("error", error);
        if servers.is_empty() { why } else { why.with("servers", servers) }
    };
    let addresses = match timeout(RESOLVE, tokio::net::lookup_host((endpoint.host(), endpoint.port()))).await
    {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(unresolved(resolver_words(&error))),
        Err(_elapsed) => return Err(unresolved(format!("no answer within {} s", RESOLVE.as_secs()))),
    };
    let mut last = unresolved("it has no address".to_owned());
    for address in addresses.take(MOST_ADDRESSES) {
        let began = Instant::now();
        let error = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small messages in turn: waiting to fill packets only costs time.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Ok(Err(error)) => socket_words(&error),
            Err(_elapsed) => "no answer (ETIMEDOUT)".to_owned(),
        };
        last = Diagnosis::new(Code::ConnectionFailed, phase)
            .with("address", address)
            .with("error", error)
            .with("elapsed", elapsed(began));
    }
    Err(last)
}

/// Milliseconds since, as people read them.
pub(super) fn elapsed(began: Instant) -> String {
    format!("{} ms", began.elapsed().as_millis())
}

/// A socket's error with the name that people search for.
pub(super) fn socket_words(error: &io::Error) -> String {
    const NAMED: [(io::ErrorKind, &str); 7] = [
        (io::ErrorKind::ConnectionRefused, "connection refused (ECONNREFUSED)"),
        (io::ErrorKind::ConnectionReset, "connection reset by peer (ECONNRESET)"),
        (io::ErrorKind::TimedOut, "no answer (ETIMEDOUT)"),
        (io::ErrorKind::HostUnreachable, "no route to host (EHOSTUNREACH)"),
        (io::ErrorKind::NetworkUnreachable, "network is unreachable (ENETUNREACH)"),
        (io::ErrorKind::PermissionDenied, "not permitted by this machine's firewall (EPERM)"),
        (io::ErrorKind::BrokenPipe, "the peer has closed (EPIPE)"),
    ];
    let named = NAMED.into_iter().find_map(|(kind, words)| (kind == error.kind()).then_some(words));
    named.map_or_else(|| error.to_string(), str::to_owned)
}

/// What getaddrinfo(3) said, without std's words around it.
fn resolver_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

/// The name servers that were asked, with commas between; empty if unknown.
fn name_servers(resolv_conf: &Path) -> String {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .take(MOST_NAME_SERVERS)
        .collect();
    servers.join(", ")
}
