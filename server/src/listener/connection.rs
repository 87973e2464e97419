//! One connection, from the accepted socket to its end: PROXY header, TLS, lane,
//! HTTP/2, and the deadlines of each.
//!
//! HTTP/2 is hyper's, driven here rather than by tonic's `Server`: with a grace
//! set, tonic 0.14 sends no GOAWAY at `max_connection_age` but cuts at its end; it
//! cannot cut what outlives a drain, has no deadline for the preface, and spawns
//! one more task. The services are tonic's all the same.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use berth_telemetry::metrics::{Decision, LimiterMeter, QueueMeter};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service;

use super::accept::jittered;
use super::failure;
use super::gathering::Gathering;
use super::limits::{LaneLimits, Limits};
use super::message::BoundedMessages;
use super::observer::{ConnectionOutcome, Lane, Observer};
use super::peer::{Exporter, Peer, Standing};
use super::proxy::{self, ProxyProtocol};
use super::source::{SourceSlot, Sources};
use super::tls::ServerTls;

/// What all connections of a listener share.
pub(super) struct Front {
    pub(super) limits: Limits,
    pub(super) drain: CancellationToken,
    proxy: ProxyProtocol,
    tls: Arc<ServerTls>,
    anonymous: Door,
    authenticated: Door,
    handshakes: Semaphore,
    handshakes_waiting: QueueMeter,
    sources: Arc<Sources>,
    of_source: LimiterMeter,
    pub(super) of_all: LimiterMeter,
    observer: Arc<dyn Observer>,
}

impl Front {
    pub(super) fn new(
        settings: super::ListenerSettings,
        tls: Arc<ServerTls>,
        lanes: super::Lanes,
        drain: CancellationToken,
    ) -> Self {
        let super::ListenerSettings { address: _, proxy, limits, observer } = settings;
        Self {
            anonymous: Door::new(lanes.anonymous, &limits.anonymous),
            authenticated: Door::new(lanes.authenticated, &limits.authenticated),
            handshakes: Semaphore::new(limits.handshakes_in_flight),
            handshakes_waiting: observer.handshakes(),
            sources: Sources::new(limits.connections_per_source),
            of_source: observer.source(),
            of_all: observer.total(),
            limits,
            drain,
            proxy,
            tls,
            observer,
        }
    }

    pub(super) fn observe(&self, outcome: ConnectionOutcome, source: Option<SocketAddr>) {
        tracing::debug!(
            outcome = outcome.as_str(),
            source = source.map(tracing::field::display),
            "connection"
        );
        self.observer.connection(outcome);
    }

    fn lane(&self, lane: Lane) -> (&Door, &LaneLimits) {
        match lane {
            Lane::Anonymous => (&self.anonymous, &self.limits.anonymous),
            Lane::Authenticated => (&self.authenticated, &self.limits.authenticated),
        }
    }
}

/// A socket just accepted.
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) stream: TcpStream,
    /// Its place among all connections; dropped with it.
    pub(super) place: OwnedSemaphorePermit,
}

/// A connection whose TLS stands.
struct Greeted {
    lane: Lane,
    standing: Arc<Standing>,
    connection: Pin<Box<Connection>>,
}

/// Takes a connection through its life. Each stage is boxed, so that a connection
/// that stands does not keep the memory of its handshake; and what one hands to the
/// next is small, for this future keeps room for it as long as the connection stands.
pub(super) async fn run(front: Arc<Front>, arrival: Arrival) {
    let Arrival { id, address, stream, place: _place } = arrival;
    let greeted = tokio::select! {
        greeted = Box::pin(greet(&front, id, address, stream)) => greeted,
        () = front.drain.cancelled() => return,
    };
    match greeted {
        Err(outcome) => front.observe(outcome, Some(address)),
        Ok(Greeted { lane, standing, connection }) => {
            front.observe(ConnectionOutcome::Accepted(lane), Some(address));
            Box::pin(serve(&front, lane, connection, &standing)).await;
            standing.leave_source();
            front.observer.closed(lane);
        }
    }
}

async fn greet(
    front: &Front,
    id: u64,
    address: SocketAddr,
    mut stream: TcpStream,
) -> Result<Greeted, ConnectionOutcome> {
    let late = |_| ConnectionOutcome::DeadlineHandshake;
    let began = Instant::now();
    // Nagle's delay would cost each answer up to 40 ms; without the option it still works.
    let _ = stream.set_nodelay(true);
    // What comes is answered at once, and the answer acknowledges it (RFC 9293 3.8.6.3):
    // one for itself would be a segment more.
    let _ = stream.set_quickack(false);
    let (client, slot) =
        timeout(front.limits.handshake, open(front, address, &mut stream)).await.map_err(late)??;
    let left = front.limits.handshake.saturating_sub(began.elapsed());
    // A peer has sent its first bytes before it waits here, so silent ones hold no turn.
    let waits = front.handshakes_waiting.enter();
    let turn = front.handshakes.acquire().await;
    drop(waits);
    let stream = timeout(left, front.tls.acceptor().accept(stream))
        .await
        .map_err(late)?
        .map_err(|error| failure::of_handshake(&error))?;
    drop(turn);
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(super::limits::ALPN) {
        return Err(ConnectionOutcome::NoAlpn);
    }
    let exporter = session
        .export_keying_material([0; 32], Exporter::LABEL, Some(b""))
        .map_err(|_| ConnectionOutcome::TlsFailed(super::TlsFailure::Protocol))?;
    let certificate =
        session.peer_certificates().and_then(<[_]>::first).map(|leaf| Arc::new(leaf.clone().into_owned()));
    let standing = Arc::new(Standing::new(slot));
    let lane = match certificate {
        None => Lane::Anonymous,
        Some(_) => {
            standing.prove();
            Lane::Authenticated
        }
    };
    let peer = Peer {
        connection_id: id,
        address: client,
        balancer: match front.proxy {
            ProxyProtocol::Refused => None,
            ProxyProtocol::Required { .. } => Some(address),
        },
        exporter: Exporter::new(exporter),
        certificate,
        standing: Arc::clone(&standing),
    };
    Ok(Greeted { lane, standing, connection: http2_over(front, lane, stream, peer) })
}

/// What comes before TLS: who the client is, and whether its source may have one more.
async fn open(
    front: &Front,
    address: SocketAddr,
    stream: &mut TcpStream,
) -> Result<(SocketAddr, SourceSlot), ConnectionOutcome> {
    let admit = |client: SocketAddr| {
        let slot = front.sources.admit(client.ip());
        front.of_source.decided(if slot.is_some() { Decision::Passed } else { Decision::Refused });
        slot.ok_or(ConnectionOutcome::SourceLimit)
    };
    match &front.proxy {
        ProxyProtocol::Refused => {
            let slot = admit(address)?;
            proxy::refuse_header(stream).await?;
            Ok((address, slot))
        }
        ProxyProtocol::Required { from } => {
            let longest = front.limits.proxy_header_bytes;
            let client = proxy::take_header(stream, address, from, longest).await?;
            Ok((client, admit(client)?))
        }
    }
}

/// The connection as HTTP/2 is served on it.
type Connection = http2::Connection<TokioIo<Gathering<Counted>>, Requests, TokioExecutor>;
/// What comes is counted until it is known to be HTTP/2.
type Counted = InspectReader<TlsStream<TcpStream>, Count>;
type Count = Box<dyn FnMut(&[u8]) + Send>;

/// Made apart from the future that drives it, and boxed: a future keeps room for
/// whatever was moved through it, for as long as the connection stands.
fn http2_over(front: &Front, lane: Lane, stream: TlsStream<TcpStream>, peer: Peer) -> Pin<Box<Connection>> {
    let (door, limits) = front.lane(lane);
    let standing = Arc::clone(&peer.standing);
    let count: Count = Box::new(move |bytes| standing.receive(bytes.len()));
    let counted = InspectReader::new(stream, count);
    let requests = Requests { routes: door.routes.clone(), peer, message_bytes: limits.message_bytes };
    Box::pin(door.http.serve_connection(TokioIo::new(Gathering::new(counted)), requests))
}

async fn serve(front: &Front, lane: Lane, mut connection: Pin<Box<Connection>>, standing: &Standing) {
    let (_, limits) = front.lane(lane);
    let mut drained = pin!(front.drain.cancelled());
    let began = Instant::now();
    let mut stage = Stage::Preface;
    let mut deadline = pin!(sleep_until(began + front.limits.first_byte));
    loop {
        let next = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection failed");
                }
                return;
            }
            () = standing.cut.notified() => return,
            () = drained.as_mut(), if stage != Stage::Drain => Next::Leave(Stage::Drain, front.limits.drain),
            () = deadline.as_mut() => stage.next(lane, standing, &front.limits, limits),
        };
        match next {
            Next::End(outcome) => {
                if let Some(outcome) = outcome {
                    front.observe(outcome, None);
                }
                return;
            }
            Next::Stay(next, after) => {
                stage = next;
                deadline.as_mut().reset(began + after);
            }
            Next::Leave(next, grace) => {
                stage = next;
                connection.as_mut().graceful_shutdown();
                deadline.as_mut().reset(Instant::now() + grace);
            }
        }
    }
}

/// What a connection's one timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    Proof,
    Age,
    Grace,
    Drain,
}

/// What to do when it has struck.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Wait for this, until so long after the handshake.
    Stay(Stage, Duration),
    /// Send GOAWAY, let the streams finish, cut after the grace.
    Leave(Stage, Duration),
    /// Cut now.
    End(Option<ConnectionOutcome>),
}

impl Stage {
    fn next(self, lane: Lane, standing: &Standing, limits: &Limits, own: &LaneLimits) -> Next {
        let age = || Next::Stay(Self::Age, jittered(own.age, own.age_jitter_percent));
        match self {
            Self::Preface if !standing.has_preface() => Next::End(Some(ConnectionOutcome::DeadlineFirstByte)),
            Self::Preface => match lane {
                Lane::Anonymous => Next::Stay(Self::Proof, limits.proof),
                Lane::Authenticated => age(),
            },
            Self::Proof if !standing.is_proved() => Next::End(Some(ConnectionOutcome::DeadlineProof)),
            Self::Proof => age(),
            Self::Age => Next::Leave(Self::Grace, own.age_grace),
            Self::Grace | Self::Drain => Next::End(None),
        }
    }
}

/// A lane's services, and the HTTP/2 that leads to them.
struct Door {
    routes: Routes,
    http: http2::Builder<TokioExecutor>,
}

impl Door {
    fn new(routes: Routes, limits: &LaneLimits) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(limits.window_bytes)
            .initial_connection_window_size(limits.window_bytes)
            .adaptive_window(false)
            .max_concurrent_streams(limits.streams)
            .max_frame_size(limits.frame_bytes)
            .max_header_list_size(limits.header_list_bytes)
            .max_send_buf_size(limits.send_buffer_bytes)
            .max_local_error_reset_streams(limits.local_error_resets)
            .max_pending_accept_reset_streams(limits.pending_accept_resets)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.keepalive_timeout);
        Self { routes: routes.prepare(), http }
    }
}

/// Hands a connection's requests to its lane, each with its peer and its bound.
struct Requests {
    routes: Routes,
    peer: Peer,
    message_bytes: u32,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = <Routes as Service<Request<BoundedMessages>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(|body| BoundedMessages::new(body, self.message_bytes));
        request.extensions_mut().insert(self.peer.clone());
        // Routes are always ready: they are a table, cloned by reference.
        self.routes.clone().call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_leaves_little_room_behind_in_a_connection_that_stands() {
        assert!(size_of::<Result<Greeted, ConnectionOutcome>>() <= 32);
    }
}
