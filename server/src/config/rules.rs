//! What values may be, and how they are written. Pure but for the default directory.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use berth_domain::profile::{KubeletSettings, MOST_ENDPOINTS, check_kubelet};
use berth_domain::token::Network;
use ipnet::IpNet;

use super::ProxyMode;
use crate::attendance::Terms;
use crate::listener::ProxyProtocol;

/// Certificates live hours (DESIGN 6). Lives below ten minutes are for tests of renewal.
pub(super) const LIFETIMES: RangeInclusive<Duration> = seconds(5, 24 * 3_600);

/// How often agents may have to say that they are there: what the wire allows.
pub(super) const HEARTBEATS: RangeInclusive<Duration> = seconds(1, 60);

/// How long silence may be overlooked.
pub(super) const GRACES: RangeInclusive<Duration> = seconds(2, 3_600);

/// How long a stop may wait for balancers.
pub(super) const PAUSES: RangeInclusive<Duration> = seconds(0, 600);

/// What bundles may take of the line in a second: one chunk for each of the usual
/// transfers at least, so that none stalls; 10 GiB at most.
pub(super) const BANDWIDTHS: RangeInclusive<u64> = (1 << 20)..=(10 << 30);

const fn seconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(least)..=Duration::from_secs(most)
}

/// `HOST:PORT`, as agents dial it.
pub(super) fn endpoint(text: Option<&str>) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    let wrong = || {
        format!("{text:?} is not written as HOST:PORT, such as berth.example.com:7443 or [2001:db8::1]:7443")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    match host && port.parse::<u16>().is_ok_and(|port| port != 0) {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// Names and addresses of a certificate (RFC 5280: dNSName, iPAddress).
pub(super) fn server_names(names: &[String]) -> Result<(), String> {
    match names.iter().find(|name| name.parse::<IpAddr>().is_err() && !is_host(name)) {
        Some(wrong) => Err(format!("{wrong:?} is neither a DNS name nor an address")),
        None => Ok(()),
    }
}

/// URLs of API servers.
pub(super) fn api_endpoints(endpoints: &[String]) -> Result<(), String> {
    if endpoints.len() > MOST_ENDPOINTS {
        return Err(format!("there may be {MOST_ENDPOINTS} at most, not {}", endpoints.len()));
    }
    let wrong = |text: &&String| {
        let host = text.strip_prefix("https://");
        host.is_none_or(|host| endpoint(Some(host)).is_err())
    };
    match endpoints.iter().find(wrong) {
        Some(wrong) => Err(format!("{wrong:?} is not written as https://HOST:PORT")),
        None => Ok(()),
    }
}

/// Where spans go (OTLP over gRPC).
pub(super) fn collector(text: Option<&str>) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    let legal = text.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    match legal {
        true => Ok(()),
        false => Err(format!("{text:?} is not written as http://HOST:PORT, usually with port 4317")),
    }
}

/// Settings that open the kubelet are refused (SECURITY R18).
pub(super) fn kubelet(settings: &KubeletSettings) -> Result<(), String> {
    check_kubelet(settings).map_err(|problem| problem.to_string())
}

/// One lost heartbeat makes no node NotReady.
pub(super) fn grace(terms: Terms) -> Result<(), String> {
    match terms.grace >= terms.heartbeat_interval.saturating_mul(2) {
        true => Ok(()),
        false => Err("it must be at least twice attendance.heartbeatInterval".to_owned()),
    }
}

/// The PROXY protocol is trusted from known balancers only.
pub(super) fn proxy(mode: ProxyMode, from: &[String]) -> Result<ProxyProtocol, String> {
    match (mode, from.is_empty()) {
        (ProxyMode::Refused, true) => Ok(ProxyProtocol::Refused),
        (ProxyMode::Refused, false) => {
            Err("it has a meaning with proxyProtocol.mode: required only; remove it, or set the mode"
                .to_owned())
        }
        (ProxyMode::Required, true) => {
            Err("proxyProtocol.mode: required needs the balancers' networks, such as 10.0.0.0/24".to_owned())
        }
        (ProxyMode::Required, false) => {
            let network = |text: &String| {
                let network = text.parse::<Network>().map(IpNet::from);
                network.map_err(|problem| format!("{text:?}: {problem}"))
            };
            Ok(ProxyProtocol::Required { from: from.iter().map(network).collect::<Result<_, String>>()? })
        }
    }
}

/// Root's service keeps its state where the system wants it; a person's, at home
/// (XDG Base Directory: state that outlives a restart).
pub(super) fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/berth-server");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from(".")).join("berth-server")
}

/// A DNS name or an IPv4 address.
fn is_host(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (1..=253).contains(&text.len()) && text.chars().all(legal) && !text.starts_with(['-', '.'])
}
