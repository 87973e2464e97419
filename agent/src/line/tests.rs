mod bundle;

use std::net::SocketAddr;
use std::time::SystemTime;

use berth_domain::conversation::{Hello, Mechanism, PROTOCOL_VERSION};
use berth_domain::timestamp::Timestamp;
use berth_proto::join::v1::bundle_service_server::BundleServiceServer;
use berth_proto::join::v1::join_service_server::{JoinService, JoinServiceServer};
use berth_proto::{decode_enroll_request, encode_enroll_response, join_to_agent, refusal_to_status};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::credential::{Issue, NodeKey};
use crate::join::tests::authority::Authority;
use crate::join::tests::server::node;

const SECOND: Duration = Duration::from_secs(1);

/// A server's service that says little: it counts the agent's Hello as its own
/// exporter, and has no profile.
struct Service {
    exporter: [u8; 32],
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl JoinService for Service {
    type EnrollStream = Answers<v1::EnrollResponse>;
    type JoinStream = Answers<v1::JoinResponse>;
    type AttendStream = Answers<v1::AttendResponse>;

    async fn enroll(
        &self,
        request: Request<Streaming<v1::EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let (out, answers) = mpsc::channel(4);
        let exporter = ChannelBinding::new(self.exporter).fingerprint();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let said = requests.message().await.expect("a line").expect("Hello");
            let Ok(EnrollFromAgent::Hello(hello)) = decode_enroll_request(&said.payload) else { return };
            let queued = EnrollFromServer::Queued { position: 1, next_word: SECOND };
            let payload = encode_enroll_response(&queued);
            out.send(Ok(v1::EnrollResponse { payload })).await.expect("the agent listens");
            let code = if hello.exporter == exporter { Code::TokenRejected } else { Code::TlsTerminated };
            let why = Diagnosis::new(code, Phase::Authentication).with("token", "t");
            out.send(Err(refusal_to_status(&why))).await.expect("the agent listens");
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn join(
        &self,
        _request: Request<Streaming<v1::JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (out, answers) = mpsc::channel(4);
        let ready = JoinFromServer::Ready { since: Timestamp::from_millis(5) };
        out.send(Ok(join_to_agent(&ready))).await.expect("room");
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn attend(
        &self,
        _request: Request<Streaming<v1::AttendRequest>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        Err(Status::unavailable("no healthy upstream"))
    }

    async fn renew(
        &self,
        _request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::internal("a proxy's page"))
    }

    async fn leave(
        &self,
        _request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "TLS judges certificates by the real clock")]
    SystemTime::now().into()
}

/// TLS of a server called localhost; client certificates must come from `clients`.
fn tls(ca: &Authority, shows_ca: bool, clients: &Authority, alpn: &[u8]) -> TlsAcceptor {
    let (leaf, key) = ca.server("localhost");
    let mut chain = vec![CertificateDer::from(leaf)];
    chain.extend(shows_ca.then(|| CertificateDer::from(ca.der.clone())));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(clients.der.clone())).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"))
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))
        .expect("a pair");
    configuration.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(configuration))
}

/// A server on loopback that serves each connection.
async fn serve(acceptor: TlsAcceptor) -> Line {
    serve_with(acceptor, bundle::Bundles::default()).await
}

/// The same with bundles.
async fn serve_with(acceptor: TlsAcceptor, bundles: bundle::Bundles) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let exported =
                tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
            let service = JoinServiceServer::new(Service { exporter: exported.expect("TLS 1.3") });
            let service = Routes::new(service).add_service(BundleServiceServer::new(bundles.clone()));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service));
            tokio::spawn(connection);
        }
    });
    line(address)
}

fn line(address: SocketAddr) -> Line {
    Line::new(address.to_string().parse().expect("an endpoint")).with_server_name("localhost".to_owned())
}

/// Takes one connection and does this with it.
async fn raw(answer: &'static [u8]) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        tcp.write_all(answer).await.expect("room");
    });
    line(address)
}

fn hello(line: &dyn Enrollment) -> EnrollFromAgent {
    EnrollFromAgent::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: "0".to_owned(),
        mechanisms: vec![Mechanism::Njp1Ed25519],
        token: "aaaaaaaaaa".parse().expect("a token id"),
        nonce: [1; 32],
        key: SpkiHash::of(b"key"),
        certificate_request: Digest::of(b"request"),
        exporter: line.channel().fingerprint(),
    })
}

fn credential(ca: &Authority, bundle: &Authority, begins: Timestamp, life: Duration) -> Credential {
    let key = NodeKey::generate().expect("a key");
    let token = "aaaaaaaaaa".parse().expect("a token id");
    let issue = Issue {
        chain: vec![ca.sign_key(&key.public_key_spki(), "n1", begins, life)],
        ca_bundle: bundle.pem.clone(),
        node: node(),
        join: berth_domain::join::JoinId::of(&token, key.spki_hash()),
    };
    Credential::new(&key, issue).expect("for its key")
}

async fn refused(line: &Line) -> Diagnosis {
    line.call(&[]).await.err().expect("no connection")
}

#[tokio::test]
async fn both_ends_export_the_same_and_a_refusal_keeps_its_words() {
    let ca = Authority::new("cluster");
    let line = serve(tls(&ca, true, &ca, b"h2")).await;
    let stranger = line.call(&[ca.pin]).await.expect("a connection");
    let mut talk = stranger.enroll().await.expect("a conversation");
    let before = talk.transcript();
    talk.say(hello(&*talk)).await.expect("said");
    let said = talk.transcript();
    assert_ne!(before, said);
    assert!(matches!(talk.hear(SECOND).await, Ok(EnrollFromServer::Queued { position: 1, .. })));
    assert_eq!(talk.transcript(), said, "a place in the queue is not proved");
    let LineError::Refused(why) = talk.hear(SECOND).await.expect_err("refused") else {
        panic!("it was refused")
    };
    assert_eq!((why.code(), why.value("token")), (Code::TokenRejected, Some("t")));
    assert!(matches!(talk.hear(SECOND).await, Err(LineError::Lost)), "nothing follows");
}

#[tokio::test]
async fn nothing_is_said_to_a_server_with_another_ca() {
    let (ours, theirs) = (Authority::new("cluster"), Authority::new("cluster"));
    let line = serve(tls(&theirs, true, &theirs, b"h2")).await;
    let why = line.call(&[ours.pin]).await.err().expect("another CA");
    assert_eq!(why.code(), Code::PinMismatch);
}

#[tokio::test]
async fn each_way_of_having_no_connection_has_its_name() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let why = refused(&line(closed)).await;
    assert_eq!(
        (why.code(), why.value("error")),
        (Code::ConnectionFailed, Some("connection refused (ECONNREFUSED)"))
    );
    assert_eq!(why.value("address"), Some(closed.to_string().as_str()));

    let why = refused(&raw(b"").await).await;
    assert_eq!(why.code(), Code::ConnectionClosed, "{why}");
    let why = refused(&raw(b"HTTP/1.1 400 Bad Request\r\n\r\n").await).await;
    assert_eq!(
        (why.code(), why.value("error")),
        (Code::TlsFailed, Some("what answers does not speak TLS")),
        "{why}"
    );

    let ca = Authority::new("cluster");
    let why = refused(&serve(tls(&ca, false, &ca, b"http/1.1")).await).await;
    assert_eq!(why.code(), Code::TlsFailed, "{why}");

    // A label of more than 63 characters is refused before any server is asked.
    let name = format!("{}.invalid:1", "x".repeat(70));
    let why = refused(&Line::new(name.parse().expect("an endpoint"))).await;
    assert_eq!(why.code(), Code::NameNotResolved, "{why}");
}

#[tokio::test]
async fn connection_2_trusts_its_own_bundle_only() {
    let (ours, theirs) = (Authority::new("cluster"), Authority::new("cluster"));
    let line = serve(tls(&theirs, true, &ours, b"h2")).await;
    let why = line.enter(&credential(&ours, &ours, wall(), SECOND * 60)).await.err().expect("another CA");
    assert_eq!((why.code(), why.phase()), (Code::TlsFailed, Phase::Authorization));
}

#[tokio::test]
async fn a_member_speaks_and_every_end_is_told_apart() {
    let ca = Authority::new("cluster");
    let line = serve(tls(&ca, true, &ca, b"h2")).await;
    let member = line.enter(&credential(&ca, &ca, wall(), SECOND * 60)).await.expect("a connection");
    let mut talk = member.join().await.expect("a conversation");
    assert!(matches!(talk.hear(SECOND).await, Ok(JoinFromServer::Ready { .. })));
    assert!(matches!(member.attend().await.err(), Some(LineError::Lost)), "a balancer without a server");
    assert!(matches!(member.renew(b"").await, Err(LineError::Foreign { status: "INTERNAL", .. })));
    member.leave(true).await.expect("it may go");
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_take_is_named() {
    let (ca, other) = (Authority::new("cluster"), Authority::new("other"));
    let line = serve(tls(&ca, true, &ca, b"h2")).await;
    let past = wall().before(SECOND * 3600);
    for (credential, wanted) in [
        (credential(&other, &ca, wall(), SECOND * 60), Code::CertificateRejected),
        (credential(&ca, &ca, past, SECOND), Code::CertificateExpired),
    ] {
        let member = line.enter(&credential).await.expect("TLS 1.3 ends on the client's side first");
        let LineError::Refused(why) = member.join().await.err().expect("refused") else { panic!("{wanted}") };
        assert_eq!(why.code(), wanted);
    }
}
