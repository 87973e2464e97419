//! The bare server itself: tonic's own over TLS 1.3, one port, and two of the calls of
//! `JoinService`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_lc_rs::hmac;
use berth_program::tls::provider;
use berth_proto::join::v1;
use berth_proto::join::v1::join_service_server::{JoinService, JoinServiceServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Once, once};
use tonic::{Request, Response, Status, Streaming};

use super::line::{Line, Peer};
use super::record::Record;
use super::{PROOF_BYTES, said, secret};

pub(super) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    joins: Joins,
}

/// What its calls know.
struct Joins {
    secret: hmac::Key,
    issuer: Issuer<'static, KeyPair>,
    record: Record,
}

impl Server {
    /// With a CA of its own, that lives as long as it.
    pub(super) async fn open(listen: SocketAddr, database: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("the CA's key")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).context("the CA's certificate")?.der().clone();
        let issuer = Issuer::new(params, key);
        let tls = TlsAcceptor::from(Arc::new(tls(root, &issuer)?));
        let record = Record::open(database)?;
        let listener = TcpListener::bind(listen).await.context("listening")?;
        Ok(Self { listener, tls, joins: Joins { secret: secret(), issuer, record } })
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().context("where it listens")
    }

    /// Ends only by an error.
    pub(super) async fn serve(self) -> Result<()> {
        let (shaken, lines) = mpsc::channel::<Result<Line, Infallible>>(HANDSHAKES_DONE);
        let accepting = async {
            loop {
                let (stream, _) = self.listener.accept().await.context("taking a connection")?;
                let (tls, shaken) = (self.tls.clone(), shaken.clone());
                tokio::spawn(async move {
                    // Whose handshake fails has heard so by an alert.
                    if let Ok(line) = Line::accept(&tls, stream).await {
                        let _ = shaken.send(Ok(line)).await;
                    }
                });
            }
        };
        let service = JoinServiceServer::new(self.joins);
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(lines));
        tokio::select! {
            ended = accepting => ended,
            ended = serving => ended.context("serving"),
        }
    }
}

#[tonic::async_trait]
impl JoinService for Joins {
    type EnrollStream = Once<Result<v1::EnrollResponse, Status>>;
    type JoinStream = Once<Result<v1::JoinResponse, Status>>;
    type AttendStream = Once<Result<v1::AttendResponse, Status>>;

    /// A proof and a request up, a certificate down.
    async fn enroll(
        &self,
        call: Request<Streaming<v1::EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let Some(Peer::Stranger(exported)) = call.extensions().get::<Peer>().cloned() else {
            return Err(Status::failed_precondition("who has a certificate need not enroll"));
        };
        let payload = heard(call.into_inner()).await?.payload;
        let (proof, request) = payload
            .split_first_chunk::<PROOF_BYTES>()
            .ok_or_else(|| Status::invalid_argument("the payload is too short for a proof"))?;
        hmac::verify(&self.secret, &said(&exported, request), proof)
            .map_err(|_| Status::unauthenticated("the proof does not hold"))?;
        let certificate = self.issue(request)?;
        self.record.issued(&certificate).await.map_err(unwritten)?;
        Ok(Response::new(once(Ok(v1::EnrollResponse { payload: certificate.to_vec() }))))
    }

    /// Its health up, Ready down.
    async fn join(
        &self,
        call: Request<Streaming<v1::JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let Some(Peer::Machine(certificate)) = call.extensions().get::<Peer>().cloned() else {
            return Err(Status::unauthenticated("a machine joins with its certificate"));
        };
        heard(call.into_inner()).await?;
        self.record.ready(&certificate).await.map_err(unwritten)?;
        let message = Some(v1::join_response::Message::Ready(v1::Ready::default()));
        Ok(Response::new(once(Ok(v1::JoinResponse { message }))))
    }

    async fn attend(
        &self,
        _: Request<Streaming<v1::AttendRequest>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        Err(Status::unimplemented("nodes do not attend here"))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("certificates are not renewed here"))
    }

    async fn leave(&self, _: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        Err(Status::unimplemented("a machine leaves by going"))
    }
}

impl Joins {
    /// Checks the request's signature, and signs what it wants.
    fn issue(&self, request: &[u8]) -> Result<CertificateDer<'static>, Status> {
        let mut request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
                .map_err(|error| Status::invalid_argument(format!("the certificate request: {error}")))?;
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.use_authority_key_identifier_extension = true;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = request.signed_by(&self.issuer);
        Ok(signed.map_err(|error| Status::internal(format!("signing: {error}")))?.into())
    }
}

/// The one message of a call.
async fn heard<T>(mut said: Streaming<T>) -> Result<T, Status> {
    said.message().await?.ok_or_else(|| Status::invalid_argument("the call has no message"))
}

fn unwritten(error: anyhow::Error) -> Status {
    Status::unavailable(format!("{error:#}"))
}

/// As Berth's listener has it, but that no signature is remembered.
fn tls(root: CertificateDer<'static>, issuer: &Issuer<'static, KeyPair>) -> Result<ServerConfig> {
    let key = KeyPair::generate().context("the server's key")?;
    let mut params = CertificateParams::new(["localhost".to_owned()]).context("the server's name")?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, issuer).context("the server's certificate")?;
    let mut roots = RootCertStore::empty();
    roots.add(root).context("trusting the CA")?;
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("the verifier of machines")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .context("setting TLS 1.3 up")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .context("the server's certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Connections that tonic has yet to take.
const HANDSHAKES_DONE: usize = 64;
