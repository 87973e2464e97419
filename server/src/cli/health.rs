//! `berth-server health`: asks the server of this configuration how it is, as a
//! balancer would. For service managers and images that have no other program.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use berth_domain::diagnosis::Exit;
use clap::ValueEnum;

use super::output::{Failure, Output};

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Probe {
    /// Should it get new connections?
    #[default]
    Ready,
    /// Should the process be left alone?
    Live,
    /// Has it come up?
    Startup,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz",
            Self::Live => "/livez",
            Self::Startup => "/startupz",
        }
    }
}

/// Prints the checks and how they stand.
///
/// # Errors
/// One does not hold, or nobody answers.
pub(super) fn ask(listen: SocketAddr, probe: Probe, output: &mut Output) -> Result<(), Failure> {
    let address = reachable(listen);
    let (status, body) = get(address, probe.path()).map_err(|error| {
        let mend = "start it with berth-server run, or name its configuration with --config";
        Failure::new(Exit::Unreachable, format!("no server answers at {address} ({error}): {mend}"))
    })?;
    if status != 200 {
        return Err(Failure::new(Exit::Unreachable, format!("the server is not well:\n{}", body.trim_end())));
    }
    output.text(&body)
}

/// A listener on all addresses is asked on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(all) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(all) if all.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one @ (IpAddr::V4(_) | IpAddr::V6(_)) => one,
    };
    SocketAddr::new(address, listen.port())
}

/// Status and body of one request, as the health listener answers it.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path}?verbose HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER).read_to_string(&mut answer)?;
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(foreign)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok((status.ok_or_else(foreign)?, body.to_owned()))
}

/// How long one step may take; a prober's own deadline is longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of an answer: a line for each check is far less.
const LARGEST_ANSWER: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:7480", "127.0.0.1:7480"),
            ("[::]:7480", "[::1]:7480"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().expect("an address")), asked.parse().expect("an address"));
        }
    }
}
