//! Where the server is, as people write it: `HOST:PORT`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest host that is looked at, in bytes (RFC 1035: 253).
const LONGEST_HOST: usize = 253;

/// A server's host, name or address, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host's name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEndpoint {
    /// A scheme other than https.
    #[error("the server speaks TLS only: write HOST:PORT, without http://")]
    Scheme,
    /// Something after the port.
    #[error("a path has no meaning here: write HOST:PORT")]
    Path,
    /// No port.
    #[error("the port is missing: write HOST:PORT, such as berth.example.com:7443")]
    PortMissing,
    /// A port that is no number from 1 to 65535.
    #[error("the port is no number from 1 to 65535: write HOST:PORT")]
    Port,
    /// A host that is neither a name nor an address.
    #[error(
        "the host is neither a DNS name nor an address; an IPv6 address stands in brackets: [2001:db8::1]:7443"
    )]
    Host,
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let text = text.trim();
        let text = text.strip_prefix("https://").unwrap_or(text);
        if text.contains("://") {
            return Err(NotAnEndpoint::Scheme);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.contains('/') {
            return Err(NotAnEndpoint::Path);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or(NotAnEndpoint::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| NotAnEndpoint::Host)?;
                (host, port.strip_prefix(':').ok_or(NotAnEndpoint::PortMissing)?)
            }
            None => text.rsplit_once(':').ok_or(NotAnEndpoint::PortMissing)?,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let legal = host.parse::<Ipv6Addr>().is_ok() && text.starts_with('[') || host.chars().all(named);
        if host.is_empty() || host.len() > LONGEST_HOST || !legal {
            return Err(NotAnEndpoint::Host);
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(NotAnEndpoint::Port)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_as_it_is_shown() {
        for text in ["berth.example.com:7443", "10.0.0.1:443", "[2001:db8::1]:7443", "localhost:1"] {
            assert_eq!(text.parse::<Endpoint>().map(|e| e.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("https://a:1/".parse::<Endpoint>().map(|e| e.to_string()), Ok("a:1".to_owned()));
    }

    #[test]
    fn what_is_no_endpoint_is_told_how_to_become_one() {
        for (text, wanted) in [
            ("http://a:1", NotAnEndpoint::Scheme),
            ("a:1/join", NotAnEndpoint::Path),
            ("berth.example.com", NotAnEndpoint::PortMissing),
            ("[::1]", NotAnEndpoint::PortMissing),
            ("a:0", NotAnEndpoint::Port),
            ("a:65536", NotAnEndpoint::Port),
            ("2001:db8::1:7443", NotAnEndpoint::Host),
            (":7443", NotAnEndpoint::Host),
            ("a b:1", NotAnEndpoint::Host),
            ("user@a:1", NotAnEndpoint::Host),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(wanted), "{text}");
        }
    }
}
