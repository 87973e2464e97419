//! The agent's spans on the line: sent over whichever connection with a certificate is
//! the newest, never in anybody's way, and lost rather than waited for.

use std::sync::Arc;
use std::time::Duration;

use berth_proto::join::v1::telemetry_service_client::TelemetryServiceClient;
use berth_proto::spans_to_wire;
use berth_telemetry::relay::Kept;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::http2::Channel;
use crate::jitter;

/// How long a span waits for company.
const LINGER: Duration = Duration::from_millis(500);

/// How long one message may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Between a failure and the next message, at least; and up to twice that.
const PAUSE: Duration = Duration::from_secs(5);

type Client = TelemetryServiceClient<Channel>;

/// The way of spans to the server; cloning gives another handle on it.
#[derive(Clone, Debug)]
pub struct Relay(Arc<Way>);

#[derive(Debug)]
struct Way {
    kept: Kept,
    newest: watch::Sender<Option<Client>>,
    sending: Mutex<()>,
}

impl Relay {
    /// Starts sending what is kept, as soon as there is a connection. Its task ends with
    /// the runtime, or when the server says that it takes no spans.
    #[must_use]
    pub fn start(kept: Kept) -> Self {
        let relay = Self(Arc::new(Way { kept, newest: watch::Sender::new(None), sending: Mutex::default() }));
        tokio::spawn(relay.clone().run());
        relay
    }

    /// From now on spans go over this connection.
    pub(super) fn go_over(&self, client: Client) {
        self.0.newest.send_replace(Some(client));
    }

    /// Sends what is kept, for so long at most.
    pub async fn flush(&self, patience: Duration) {
        // In time or not: nobody waits longer for spans.
        let _late = timeout(patience, self.send()).await;
    }

    async fn run(self) {
        let mut newest = self.0.newest.subscribe();
        loop {
            self.0.kept.come().await;
            // The sender is ours: the watch does not close.
            drop(newest.wait_for(Option::is_some).await);
            sleep(LINGER).await;
            match self.send().await {
                Sent::All => {}
                Sent::Unwanted => return,
                Sent::Failed => sleep(PAUSE + jitter::part(PAUSE, jitter::random())).await,
            }
        }
    }

    async fn send(&self) -> Sent {
        let _one_at_a_time = self.0.sending.lock().await;
        let Some(mut client) = self.0.newest.borrow().clone() else { return Sent::Failed };
        loop {
            let spans = self.0.kept.take();
            if spans.is_empty() {
                return Sent::All;
            }
            match timeout(ANSWER, client.export_spans(spans_to_wire(&spans))).await {
                Ok(Ok(_taken)) => {}
                Ok(Err(status)) if status.code() == Code::Unimplemented => {
                    self.0.kept.close();
                    return Sent::Unwanted;
                }
                Ok(Err(status)) => {
                    tracing::debug!(spans = spans.len(), code = ?status.code(), "spans were not taken");
                    return Sent::Failed;
                }
                Err(_elapsed) => return Sent::Failed,
            }
        }
    }
}

enum Sent {
    All,
    Unwanted,
    Failed,
}
