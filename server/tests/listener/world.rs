//! A listener with a few services behind it, and what it was seen to do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::routing::{get, post};
use berth_server::listener::{
    ConnectionOutcome, Lane, LaneLimits, Lanes, Limits, ListenerSettings, Observer, Peer, ProxyProtocol,
    ServeError, ServerTls, bind,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::pki::Authority;

/// Far longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) drain: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
    /// Lets `/wait` end.
    pub(crate) release: Arc<Notify>,
    seen: watch::Receiver<Vec<ConnectionOutcome>>,
    closed: watch::Receiver<usize>,
    peers: watch::Receiver<Option<Peer>>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other limits than the default ones.
    pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(|settings| change(&mut settings.limits))
    }

    pub(crate) fn with(change: impl FnOnce(&mut ListenerSettings)) -> Self {
        let (seen_by, seen) = watch::channel(Vec::new());
        let (closed_by, closed) = watch::channel(0);
        let (peers_by, peers) = watch::channel(None);
        let mut settings = ListenerSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            proxy: ProxyProtocol::Refused,
            limits: Limits::default(),
            observer: Arc::new(Seen { outcomes: seen_by, closed: closed_by }),
        };
        change(&mut settings);
        let authority = Authority::new();
        let tls = Arc::new(ServerTls::new(authority.credentials()).expect("TLS"));
        let bound = bind(settings).expect("bound");
        let address = bound.local_addr();
        let drain = CancellationToken::new();
        let release = Arc::new(Notify::new());
        let lane = |lane: Lane| {
            let (peers, release) = (peers_by.clone(), Arc::clone(&release));
            routes(lane, peers, release)
        };
        let lanes = Lanes { anonymous: lane(Lane::Anonymous), authenticated: lane(Lane::Authenticated) };
        let served = tokio::spawn(bound.serve(Arc::clone(&tls), lanes, drain.clone()));
        Self { address, authority, tls, drain, served, release, seen, closed, peers }
    }

    /// Waits until the listener has told this outcome so many times.
    pub(crate) async fn saw(&self, outcome: ConnectionOutcome, times: usize) {
        let told = |outcomes: &Vec<_>| outcomes.iter().filter(|seen| **seen == outcome).count() >= times;
        let mut seen = self.seen.clone();
        let waited = timeout(PATIENCE, seen.wait_for(told)).await.is_ok();
        assert!(waited, "{outcome:?} {times} times, in {:?}", self.outcomes());
    }

    pub(crate) fn outcomes(&self) -> Vec<ConnectionOutcome> {
        self.seen.borrow().clone()
    }

    /// Waits until so many served connections have ended.
    pub(crate) async fn closed(&self, times: usize) {
        let mut closed = self.closed.clone();
        let waited = timeout(PATIENCE, closed.wait_for(|count| *count >= times)).await;
        assert!(waited.is_ok(), "{times} connections closed");
    }

    /// The peer of the request handled last.
    pub(crate) fn peer(&self) -> Peer {
        self.peers.borrow().clone().expect("a request was handled")
    }
}

/// Changes the limits of both lanes alike.
pub(crate) fn both(limits: &mut Limits, change: impl Fn(&mut LaneLimits)) {
    change(&mut limits.anonymous);
    change(&mut limits.authenticated);
}

struct Seen {
    outcomes: watch::Sender<Vec<ConnectionOutcome>>,
    closed: watch::Sender<usize>,
}

impl Observer for Seen {
    fn connection(&self, outcome: ConnectionOutcome) {
        self.outcomes.send_modify(|outcomes| outcomes.push(outcome));
    }

    fn closed(&self, _: Lane) {
        self.closed.send_modify(|count| *count += 1);
    }
}

/// `/hello` answers with the lane; `/prove` first says that the peer has proved
/// itself; `/wait` answers in two parts and waits between them; `/sink` never
/// reads what it is sent.
fn routes(lane: Lane, peers: watch::Sender<Option<Peer>>, release: Arc<Notify>) -> Routes {
    let hello = move |Extension(peer): Extension<Peer>| {
        peers.send_replace(Some(peer));
        async move { format!("{lane:?}") }
    };
    let prove = |Extension(peer): Extension<Peer>| async move { peer.proved() };
    let wait = move || async move {
        let (parts, body) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(2);
        tokio::spawn(async move {
            let _ = parts.send(Ok(Bytes::from_static(b"begun"))).await;
            release.notified().await;
            let _ = parts.send(Ok(Bytes::from_static(b", ended"))).await;
        });
        Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body))
    };
    let sink = |body: Body| async move {
        std::future::pending::<()>().await;
        drop(body);
    };
    let router = Router::new()
        .route("/hello", get(hello))
        .route("/prove", post(prove))
        .route("/wait", get(wait))
        .route("/sink", post(sink));
    let (_, health) = tonic_health::server::health_reporter();
    Routes::from(router).add_service(health)
}
