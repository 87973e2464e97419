//! Dials a kubelet back: whether one answers at an address, and whose it is as far
//! as it can say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use berth_domain::identity::NodeIdentity;
use berth_program::tls::unproved;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// How long the connection and the handshake may take together: less than a join
/// waits between two looks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the node's kubelet answers at this address; else what is there instead.
///
/// A kubelet without a certificate ends the handshake by the alert `internal_error`
/// (Go's crypto/tls, where `GetCertificate` fails); one that renews shows the node's
/// name and proves the key of that certificate.
pub(super) async fn dialled(address: IpAddr, port: u16, node: &NodeIdentity) -> Result<(), String> {
    let there = SocketAddr::new(address, port);
    let dial = async {
        let line = TcpStream::connect(there).await.map_err(|error| format!("port {port}: {error}"))?;
        let config = config().map_err(|error| error.to_string())?;
        match TlsConnector::from(config).connect(ServerName::from(address), line).await {
            Ok(secured) => {
                let shown = secured.get_ref().1.peer_certificates().and_then(<[_]>::first);
                if shown.is_some_and(|leaf| is_of(leaf, node)) {
                    return Ok(());
                }
                Err(format!("port {port}: what answers shows a certificate of another name"))
            }
            Err(error) if has_no_certificate(&error) => Ok(()),
            Err(error) => Err(format!("port {port}: {error}")),
        }
    };
    let late = |_| Err(format!("port {port}: no answer in {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, dial).await.unwrap_or_else(late)
}

fn has_no_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(AlertDescription::InternalError)))
}

fn is_of(leaf: &CertificateDer<'_>, node: &NodeIdentity) -> bool {
    let wanted = format!("{}{}", NodeIdentity::COMMON_NAME_PREFIX, node.name);
    X509Certificate::from_der(leaf).is_ok_and(|(_, leaf)| {
        leaf.subject().iter_common_name().any(|name| name.as_str() == Ok(wanted.as_str()))
    })
}

/// Any certificate will do, as long as the other end has its key. Nothing is sent to it,
/// and what counts is who holds the address: the caller has seen the node's own line
/// come from there.
fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    Ok(Arc::new(unproved(default_provider())?.with_no_client_auth()))
}
