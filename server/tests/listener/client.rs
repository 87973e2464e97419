//! Clients of the listener: TLS by rustls, HTTP/2 by hyper.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;

use crate::pki::Pair;
use crate::world::{PATIENCE, World};

/// A client's TLS that trusts this root and asks for h2.
pub(crate) fn configuration(root: CertificateDer<'static>, own: Option<Pair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut configuration = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a client certificate"),
    };
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    configuration
}

/// TLS over this socket.
pub(crate) async fn handshake(
    tcp: TcpStream,
    configuration: impl Into<Arc<ClientConfig>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(configuration.into()).connect(name, tcp).await
}

/// An HTTP/2 client on one connection.
pub(crate) struct Client {
    pub(crate) exporter: [u8; 32],
    pub(crate) server_leaf: CertificateDer<'static>,
    sender: SendRequest<Body>,
    connection: JoinHandle<()>,
}

impl Client {
    /// Without a certificate.
    pub(crate) async fn connect(world: &World) -> Self {
        Self::try_connect(world).await.expect("connected")
    }

    pub(crate) async fn try_connect(world: &World) -> std::io::Result<Self> {
        let tcp = TcpStream::connect(world.address).await?;
        Self::over(tcp, configuration(world.authority.root(), None)).await
    }

    /// With this certificate.
    pub(crate) async fn connect_as(world: &World, own: Pair) -> Self {
        let tcp = TcpStream::connect(world.address).await.expect("TCP");
        Self::over(tcp, configuration(world.authority.root(), Some(own))).await.expect("connected")
    }

    pub(crate) async fn over(tcp: TcpStream, configuration: ClientConfig) -> std::io::Result<Self> {
        let stream = handshake(tcp, configuration).await?;
        let (_, session) = stream.get_ref();
        let exporter = session
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .expect("an exporter");
        let server_leaf = session.peer_certificates().and_then(<[_]>::first).expect("a leaf").clone();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { exporter, server_leaf: server_leaf.into_owned(), sender, connection })
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.ask("GET", path).await
    }

    pub(crate) async fn post(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.ask("POST", path).await
    }

    /// The whole body of a GET.
    pub(crate) async fn text(&mut self, path: &str) -> String {
        let response = self.get(path).await.expect("a response");
        assert_eq!(response.status(), 200);
        body(response).await
    }

    /// For tonic's generated clients.
    pub(crate) fn grpc(
        &self,
    ) -> impl tower::Service<Request<Body>, Response = Response<Incoming>, Error = hyper::Error, Future: Send>
    + Clone {
        let sender = self.sender.clone();
        tower::service_fn(move |request| sender.clone().send_request(request))
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(self) {
        timeout(PATIENCE, self.connection).await.expect("closed in time").expect("no panic");
    }

    async fn ask(&mut self, method: &str, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .body(Body::empty())
            .expect("a request");
        timeout(PATIENCE, async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
        .expect("an answer in time")
    }
}

/// A response's whole body; empty if the connection broke before its end.
pub(crate) async fn body(response: Response<Incoming>) -> String {
    let body = axum::body::Body::new(response.into_body());
    let bytes = timeout(PATIENCE, axum::body::to_bytes(body, 1 << 20)).await.expect("a body in time");
    String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("UTF-8")
}
