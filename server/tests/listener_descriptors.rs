//! What the listener does when the process is out of descriptors. A program of its
//! own, because it takes the descriptors of the whole process away.
#![expect(clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_server::listener::{
    ConnectionOutcome, Credentials, Lanes, Limits, ListenerSettings, Observer, ProxyProtocol, ServerTls,
    TlsFailure, bind,
};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn without_descriptors_accepting_pauses_longer_and_longer_and_goes_on_afterwards() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).expect("a lower limit");
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let first = Duration::from_millis(20);
    let bound = bind(ListenerSettings {
        address: "127.0.0.1:0".parse().expect("an address"),
        proxy: ProxyProtocol::Refused,
        limits: Limits { accept_pause: first, ..Limits::default() },
        observer: Arc::new(Told(told)),
    })
    .expect("bound");
    let address = bound.local_addr();
    let drain = CancellationToken::new();
    let lanes = Lanes { anonymous: Routes::default(), authenticated: Routes::default() };
    let served = tokio::spawn(bound.serve(Arc::new(tls()), lanes, drain.clone()));

    let client = TcpSocket::new_v4().expect("a socket");
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    let began = Instant::now();
    let client = client.connect(address).await.expect("the kernel completes the connection");
    for _ in 0..5 {
        let outcome = timeout(PATIENCE, outcomes.recv()).await.expect("in time");
        assert_eq!(outcome, Some(ConnectionOutcome::AcceptError));
    }
    // 1 + 2 + 4 + 8 first pauses lie between five refusals, each up to a fifth shorter.
    assert!(began.elapsed() >= first * 15 * 8 / 10, "only {:?}", began.elapsed());

    drop(held);
    drop(client);
    let closed = ConnectionOutcome::TlsFailed(TlsFailure::Closed);
    loop {
        let outcome = timeout(PATIENCE, outcomes.recv()).await.expect("in time").expect("an outcome");
        if outcome == closed {
            break;
        }
        assert_eq!(outcome, ConnectionOutcome::AcceptError);
    }
    drain.cancel();
    timeout(PATIENCE, served).await.expect("in time").expect("no panic").expect("drained");
}

struct Told(mpsc::UnboundedSender<ConnectionOutcome>);

impl Observer for Told {
    fn connection(&self, outcome: ConnectionOutcome) {
        let _ = self.0.send(outcome);
    }
}

fn tls() -> ServerTls {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    ServerTls::new(Credentials { chain: vec![certificate.clone()], key, client_roots: vec![certificate] })
        .expect("TLS")
}
