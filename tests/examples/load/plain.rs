//! A node's first certificate as a kubelet gets it with kubeadm's bootstrap token: a
//! request is made, listed and watched, over one connection of its own (client-go
//! `util/certificate/csr`). A kubelet of 1.36 says so in protobuf, this in JSON.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use berth_domain::identity::NodeIdentity;
use berth_domain::name::PoolName;
use berth_program::pem;
use data_encoding::BASE64;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::machine::request_of;

/// What all machines know.
pub(crate) struct Client {
    api: SocketAddr,
    tls: TlsConnector,
    token: String,
}

/// A machine's line, which a kubelet keeps.
pub(crate) type Line = SendRequest<String>;

impl Client {
    pub(crate) fn new(api: SocketAddr, ca: &[u8], token: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.context("reading the CA")?).context("trusting the CA")?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { api, tls: TlsConnector::from(Arc::new(config)), token })
    }

    /// Machine `number` asks until its certificate is there.
    pub(crate) async fn certificate(&self, number: usize) -> Result<Line> {
        let key = KeyPair::generate().context("a key")?;
        let name = format!("plain-{number}").parse().context("a node's name")?;
        let request = request_of(&NodeIdentity { name, pool: PoolName::default() }, &key)?;
        let mut line = self.line().await?;
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {
                "request": encoded(&request),
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["digital signature", "client auth"],
            },
        });
        let made = whole(self.ask(&mut line, "POST", REQUESTS, object.to_string()).await?).await?;
        let name = text(&made, "/metadata/name")?;
        let selected = format!("{REQUESTS}?fieldSelector=metadata.name%3D{name}");
        // Only whether requests can be listed; the watch tells of it all the same.
        whole(self.ask(&mut line, "GET", &selected, String::new()).await?).await?;
        let watch = format!("{selected}&{FROM_THE_FIRST}");
        let mut told = self.ask(&mut line, "GET", &watch, String::new()).await?;
        let mut heard = Vec::new();
        while let Some(more) = frame(told.body_mut()).await? {
            heard.extend(more);
            while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                let event: Vec<u8> = heard.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&event).context("reading an event")?;
                if event.get("object").is_some_and(is_issued) {
                    return Ok(line);
                }
            }
        }
        bail!("the watch ended before a certificate came")
    }

    pub(crate) async fn line(&self) -> Result<Line> {
        let stream = TcpStream::connect(self.api).await.context("connecting")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let stream = self.tls.connect(ServerName::from(self.api.ip()), stream).await;
        let stream = TokioIo::new(stream.context("the TLS handshake")?);
        let (line, connection) = handshake(TokioExecutor::new(), stream).await.context("HTTP/2")?;
        // It ends with the line.
        tokio::spawn(connection);
        Ok(line)
    }

    pub(crate) async fn ask(
        &self,
        line: &mut Line,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<Response<Incoming>> {
        loop {
            line.ready().await.context("HTTP/2")?;
            let request = Request::builder()
                .method(method)
                .uri(format!("https://{}{path}", self.api))
                .header("authorization", format!("Bearer {}", self.token))
                .header("accept", "application/json")
                .header("content-type", "application/json")
                .body(body.clone())
                .context("a request")?;
            let answer = line.send_request(request).await.with_context(|| format!("{method} {path}"))?;
            let status = answer.status();
            if status == StatusCode::TOO_MANY_REQUESTS {
                // It has done nothing: asked again, as a kubelet does.
                tokio::time::sleep(BUSY).await;
                continue;
            }
            ensure!(status.is_success(), "{method} {path} was answered with {status}");
            return Ok(answer);
        }
    }
}

pub(crate) async fn whole(mut answer: Response<Incoming>) -> Result<Value> {
    let mut body = Vec::new();
    while let Some(more) = frame(answer.body_mut()).await? {
        body.extend(more);
    }
    serde_json::from_slice(&body).context("reading an answer")
}

async fn frame(body: &mut Incoming) -> Result<Option<Vec<u8>>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
    let frame = frame.transpose().context("an answer broke off")?;
    Ok(frame.map(|frame| frame.into_data().map(|data| data.to_vec()).unwrap_or_default()))
}

fn is_issued(request: &Value) -> bool {
    request.pointer("/status/certificate").is_some_and(Value::is_string)
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    object.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {object}"))
}

/// A request as the API takes it: PEM, and that in base64.
pub(crate) fn encoded(request: &[u8]) -> String {
    BASE64.encode(pem::encode(pem::CERTIFICATE_REQUEST, request).as_bytes())
}

/// The API server's `Retry-After`.
const BUSY: Duration = Duration::from_secs(1);
/// A watch that begins with what there is, as client-go makes it since 1.35 (KEP-3157).
const FROM_THE_FIRST: &str =
    "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
pub(crate) const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
