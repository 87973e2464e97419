//! The little HTTPS that is needed to ask a component: one request a connection.
//! For all else there is kubectl.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// An API server, or another component, and who asks it.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    bearer: Option<String>,
}

impl Api {
    /// Asks with a client certificate; all three are PEM.
    pub(crate) fn with_certificate(
        address: SocketAddr,
        ca: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.context("reading a client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("reading a client certificate's key")?;
        let config = builder(ca)?.with_client_auth_cert(chain, key);
        let config = config.context("using a client certificate")?;
        Ok(Self { address, config: Arc::new(config), bearer: None })
    }

    /// Asks with a bearer token, or with nothing.
    pub(crate) fn with_token(address: SocketAddr, ca: &[u8], token: Option<String>) -> Result<Self> {
        Ok(Self { address, config: Arc::new(builder(ca)?.with_no_client_auth()), bearer: token })
    }

    /// Asks a component of a cluster that was made here.
    pub(crate) fn of_component(address: SocketAddr, pki: &Path, ca: &str, identity: &str) -> Result<Self> {
        let read = |name: &str| {
            std::fs::read(pki.join(name)).with_context(|| format!("reading {name} in {}", pki.display()))
        };
        let (ca, certificate) = (read(ca)?, read(&format!("{identity}.crt"))?);
        Self::with_certificate(address, &ca, &certificate, &read(&format!("{identity}.key"))?)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Status and body of an answer.
    ///
    /// # Errors
    /// No answer came within ten seconds.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.ask(method, path, kind, body)
    }

    /// Status and body of the answer to a server-side apply; the query of `path`
    /// names the field manager.
    ///
    /// # Errors
    /// No answer came within ten seconds.
    pub fn server_side_apply(&self, path: &str, body: &Value) -> Result<(u16, String)> {
        self.ask("PATCH", path, "application/apply-patch+yaml", Some(body))
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let asked = || format!("asking {} for {method} {path}", self.address);
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).with_context(asked)?;
        stream.set_read_timeout(Some(PATIENCE)).with_context(asked)?;
        stream.set_write_timeout(Some(PATIENCE)).with_context(asked)?;
        let name = ServerName::from(self.address.ip());
        let session = ClientConnection::new(Arc::clone(&self.config), name).with_context(asked)?;
        let mut stream = StreamOwned::new(session, stream);
        // HTTP/1.0: the answer comes whole, and the connection's end is its end.
        let mut head =
            format!("{method} {path} HTTP/1.0\r\nhost: {}\r\naccept: application/json\r\n", self.address);
        if let Some(token) = &self.bearer {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        head.push_str(&format!("content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(head.as_bytes()).with_context(asked)?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // A server that ends the connection and not the session has said all.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(error).with_context(asked)?
            }
            Ok(_) | Err(_) => {}
        }
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").with_context(asked)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(asked)?;
        Ok((status, body.to_owned()))
    }

    /// The JSON of a GET that is answered with 200.
    ///
    /// # Errors
    /// It was answered otherwise, or not at all.
    pub fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.request("GET", path, None)?;
        if status != 200 {
            bail!("{} answered GET {path} with {status}: {body}", self.address);
        }
        serde_json::from_str(&body).with_context(|| format!("reading the answer to GET {path}"))
    }

    /// True if a GET is answered with 200.
    pub(crate) fn answers(&self, path: &str) -> bool {
        self.request("GET", path, None).is_ok_and(|(status, _)| status == 200)
    }
}

fn builder(ca: &[u8]) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.context("reading a CA's certificate")?).context("trusting a CA")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.context("choosing TLS versions")?.with_root_certificates(roots))
}

/// What connecting, each read and each write may take.
const PATIENCE: Duration = Duration::from_secs(10);
