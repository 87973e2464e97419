//! The console's section: where it listens, whom it knows, what it shows beside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::lay::Lay;
use super::{Said, rules};
use crate::console::{SERVERS, Settings, TlsFiles};

/// The section of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsoleFile {
    /// Where it listens; there is no console without.
    pub listen: Option<SocketAddr>,
    /// Further hosts by which browsers may ask for it.
    pub names: Option<Vec<String>>,
    /// Names and tokens of its operators.
    pub token_file: Option<PathBuf>,
    /// Its certificate, leaf first, PEM.
    pub certificate: Option<PathBuf>,
    /// The leaf's key, PEM.
    pub key: Option<PathBuf>,
    /// The CA of operators' certificates, PEM.
    #[serde(rename = "clientCA")]
    pub client_ca: Option<PathBuf>,
    /// Where a trace can be seen, with `{trace}` in it.
    #[serde(rename = "traceURL")]
    pub trace_url: Option<String>,
    /// Health listeners of the other servers.
    pub servers: Option<Vec<String>>,
}

/// What the command line and the environment say of it.
#[derive(Clone, Debug, Default)]
pub struct GivenConsole {
    /// `--console-listen`.
    pub listen: Said<SocketAddr>,
    /// `--console-name`, repeatable.
    pub names: Said<Vec<String>>,
    /// `--console-token-file`.
    pub token_file: Said<PathBuf>,
    /// `--console-certificate`.
    pub certificate: Said<PathBuf>,
    /// `--console-key`.
    pub key: Said<PathBuf>,
    /// `--console-client-ca`.
    pub client_ca: Said<PathBuf>,
    /// `--console-trace-url`.
    pub trace_url: Said<String>,
    /// `--console-server`, repeatable.
    pub servers: Said<Vec<String>>,
}

/// The console, if there is to be one.
pub(super) fn console(
    lay: &mut Lay,
    given: GivenConsole,
    file: ConsoleFile,
    data_dir: &Path,
) -> Option<Settings> {
    let listen = lay.maybe("console.listen", given.listen, file.listen);
    let names = lay.list("console.names", given.names, file.names);
    lay.check("console.names", rules::server_names(&names));
    let usual = data_dir.join("console.tokens");
    let token_file = lay.path("console.tokenFile", given.token_file, file.token_file, usual);
    let certificate = lay.maybe_path("console.certificate", given.certificate, file.certificate);
    let key = lay.maybe_path("console.key", given.key, file.key);
    let client_ca = lay.maybe_path("console.clientCA", given.client_ca, file.client_ca);
    let trace_url = lay.maybe("console.traceURL", given.trace_url, file.trace_url);
    lay.check("console.traceURL", traces(trace_url.as_deref()));
    let servers = lay.list("console.servers", given.servers, file.servers);
    lay.check("console.servers", health_listeners(&servers));
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca: client_ca.clone() }),
        (Some(_), None) => {
            lay.check("console.key", Err("console.certificate needs its key".to_owned()));
            None
        }
        (None, Some(_)) => {
            lay.check("console.certificate", Err("console.key needs its certificate".to_owned()));
            None
        }
        (None, None) => {
            lay.check("console.listen", plain(listen));
            None
        }
    };
    if client_ca.is_some() && tls.is_none() {
        let problem = "it has a meaning with console.certificate and console.key only";
        lay.check("console.clientCA", Err(problem.to_owned()));
    }
    Some(Settings { listen: listen?, names, token_file, tls, trace_url, servers })
}

/// What goes over a network is encrypted: a session would be anybody's.
fn plain(listen: Option<SocketAddr>) -> Result<(), String> {
    match listen {
        Some(address) if !address.ip().is_loopback() => Err(format!(
            "{address} is not loopback, so the console needs TLS there; set console.certificate and \
             console.key, or listen at 127.0.0.1:{} and come through ssh -L",
            address.port()
        )),
        Some(_) | None => Ok(()),
    }
}

fn traces(url: Option<&str>) -> Result<(), String> {
    let Some(url) = url else { return Ok(()) };
    let web = url.starts_with("http://") || url.starts_with("https://");
    match web && url.contains("{trace}") && !url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        true => Ok(()),
        false => Err(format!("{url:?} is not written as http://jaeger.example.com:16686/trace/{{trace}}")),
    }
}

fn health_listeners(servers: &[String]) -> Result<(), String> {
    if servers.len() > SERVERS {
        return Err(format!("there may be {SERVERS} at most, not {}", servers.len()));
    }
    servers.iter().try_for_each(|server| rules::endpoint(Some(server)))
}
