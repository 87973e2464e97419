//! An OTLP receiver for tests: it keeps every span it is sent, and every byte,
//! so that a test can assert the tree and search for what must not be there.
//!
//! It runs on a thread of its own, so that a test which blocks in a shutdown
//! does not starve it.

mod received;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub use received::{Kind, ReceivedSpan, SpanStatus};

/// How a receiver answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// At once.
    #[default]
    Prompt,
    /// Only after this time.
    Slow(Duration),
    /// With a status that says it has no room; it keeps nothing of what it was sent.
    Refusing,
}

/// A running receiver. It stops when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Kept>,
    stop: Option<oneshot::Sender<()>>,
}

impl Collector {
    /// Starts a receiver on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The port or the thread cannot be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts a receiver at an address, as one that restarts does.
    ///
    /// # Errors
    ///
    /// The port or the thread cannot be had.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, Manner::Prompt).await
    }

    /// The same, which answers in a manner of its own.
    ///
    /// # Errors
    ///
    /// The port or the thread cannot be had.
    pub async fn start_with(address: SocketAddr, manner: Manner) -> io::Result<Self> {
        let kept = Arc::new(Kept::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, ready) = oneshot::channel();
        let keeper = Arc::clone(&kept);
        thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || run(address, Service(keeper, manner), stopped, tell))?;
        let address = ready.await.map_err(io::Error::other)??;
        Ok(Self { address, kept, stop: Some(stop) })
    }

    /// What to configure as OTLP endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans received so far, in order of arrival.
    #[must_use]
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.kept.lock().spans.clone()
    }

    /// Waits until the spans received are as the test wants them.
    ///
    /// # Errors
    ///
    /// The spans there are when `patience` is over.
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&[ReceivedSpan]) -> bool,
        patience: Duration,
    ) -> Result<Vec<ReceivedSpan>, Vec<ReceivedSpan>> {
        let mut exports = self.kept.exports.subscribe();
        let seen = async {
            loop {
                let spans = self.spans();
                if wanted(&spans) {
                    return spans;
                }
                if exports.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, seen).await.map_err(|_| self.spans())
    }

    /// Whether the bytes occur anywhere in what was received: on the wire as it
    /// came, in a whole message, or in a header.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        let kept = self.kept.lock();
        let mut places = kept.messages.iter().chain([&kept.wire, &kept.headers]);
        places.any(|bytes| bytes.windows(needle.len().max(1)).any(|window| window == needle))
    }

    /// How many bytes came over the wire.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.kept.lock().wire.len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ = stop.send(());
        }
    }
}

/// What has been received.
#[derive(Debug, Default)]
struct Kept {
    state: Mutex<State>,
    exports: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    spans: Vec<ReceivedSpan>,
    /// Messages whole: on the wire they are cut into frames.
    messages: Vec<Vec<u8>>,
    /// Headers plain: on the wire they are compressed.
    headers: Vec<u8>,
    wire: Vec<u8>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Service(Arc<Kept>, Manner);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        match self.1 {
            Manner::Prompt => {}
            Manner::Slow(time) => tokio::time::sleep(time).await,
            Manner::Refusing => return Err(Status::resource_exhausted("no room")),
        }
        let headers = format!("{:?}", request.metadata());
        let message = request.into_inner();
        {
            let mut state = self.0.lock();
            state.headers.extend_from_slice(headers.as_bytes());
            state.messages.push(message.encode_to_vec());
            state.spans.extend(received::spans(message));
        }
        self.0.exports.send_modify(|count| *count += 1);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn run(
    address: SocketAddr,
    service: Service,
    stopped: oneshot::Receiver<()>,
    tell: oneshot::Sender<io::Result<SocketAddr>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error))),
    };
    runtime.block_on(async {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(listener.local_addr());
        let tap = Arc::clone(&service.0);
        let connections = TcpListenerStream::new(listener)
            .map(move |stream| stream.map(|stream| wire::Tapped::new(stream, Arc::clone(&tap))));
        let server =
            Server::builder().add_service(TraceServiceServer::new(service)).serve_with_incoming(connections);
        tokio::select! {
            _ = server => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}
