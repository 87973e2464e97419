//! HTTP/2 over one TLS connection, without any layer that would reconnect: a
//! conversation belongs to the channel it began on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_domain::conversation::{LARGEST_ENROLL_MESSAGE, LARGEST_JOIN_MESSAGE};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_proto::join::v1::bundle_service_client::BundleServiceClient;
use berth_proto::join::v1::join_service_client::JoinServiceClient;
use berth_proto::join::v1::telemetry_service_client::TelemetryServiceClient;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use super::talk::{Alerts, Meaning};
use super::tls::Secured;
use super::witness::Seen;
use crate::config::Endpoint;

/// How long the preface may take to leave.
const PREFACE: Duration = Duration::from_secs(5);

/// Between two signs of life of an idle connection, and how long one may be
/// waited for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Bytes that a peer may send unread: one of the largest messages.
const WINDOW: u32 = 256 * 1024;

/// The most bytes of headers and trailers: a refusal's details stand there.
const HEADERS: u32 = 32 * 1024;

/// The most bytes that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// Which of the two connections, for the bounds of its messages.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Unproved,
    Mutual,
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: JoinServiceClient<Channel>,
    pub(super) telemetry: TelemetryServiceClient<Channel>,
    pub(super) bundles: BundleServiceClient<Channel>,
    pub(super) endpoint: Endpoint,
    seen: Arc<Seen>,
}

/// Where requests go in; the connection ends when the last of these and the
/// last stream are gone, or when the peer gives no sign of life.
#[derive(Clone, Debug)]
pub(super) struct Channel(SendRequest<Body>);

impl Connection {
    /// Speaks HTTP/2 over a connection that was just secured.
    pub(super) async fn begin(
        secured: Secured,
        endpoint: &Endpoint,
        kind: Kind,
        phase: Phase,
    ) -> Result<Self, Diagnosis> {
        let failed = |error: String| {
            Diagnosis::new(Code::TlsFailed, phase).with("address", endpoint).with("error", error)
        };
        let origin: Uri =
            format!("https://{endpoint}").parse().map_err(|_| failed("no URL can name it".to_owned()))?;
        let (every, patience) = KEEPALIVE;
        let begun = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(every)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(secured.stream));
        let (requests, connection) = timeout(PREFACE, begun)
            .await
            .map_err(|_elapsed| failed("HTTP/2 did not begin in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        // Ends by itself, see Channel; how it ended is told by its streams.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection ended");
            }
        });
        let largest = match kind {
            Kind::Unproved => LARGEST_ENROLL_MESSAGE,
            Kind::Mutual => LARGEST_JOIN_MESSAGE,
        };
        let channel = Channel(requests);
        let telemetry = TelemetryServiceClient::with_origin(channel.clone(), origin.clone());
        let bundles = BundleServiceClient::with_origin(channel.clone(), origin.clone())
            .max_decoding_message_size(largest)
            .max_encoding_message_size(largest);
        let client = JoinServiceClient::with_origin(channel, origin)
            .max_decoding_message_size(largest)
            .max_encoding_message_size(largest);
        Ok(Self { client, telemetry, bundles, endpoint: endpoint.clone(), seen: secured.seen })
    }

    /// What turns the end of a call over it into its meaning.
    pub(super) fn meaning(&self, alerts: Arc<Alerts>) -> Meaning {
        Meaning { endpoint: self.endpoint.clone(), seen: Arc::clone(&self.seen), alerts }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
