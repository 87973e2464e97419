//! The way of a span from where it ends to the collector: a bounded queue that
//! never makes anybody wait, and one thread that empties it.
//!
//! The thread has a runtime of its own, so exporting works from any program,
//! also from one whose only runtime thread is blocked in a shutdown, and a dead
//! collector takes nothing from those who join.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::setup::InstallError;

/// The most spans that wait; more are dropped and counted.
pub(crate) const QUEUE: usize = 2048;

/// The most spans in one export.
pub(crate) const BATCH: usize = 512;

/// How long a span waits for company before it leaves.
const LINGER: Duration = Duration::from_millis(200);

/// How long one export may take, with its repetitions.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a failing export is told at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How many spans ended, and how many the collector has acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ended: AtomicU64,
    pub(crate) delivered: AtomicU64,
}

/// The entrance: what the tracer hands its ended spans to.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
    close: watch::Sender<Option<Instant>>,
    done: Mutex<std_mpsc::Receiver<()>>,
}

impl Queue {
    /// Starts the thread that delivers to `endpoint`.
    pub(crate) fn start(endpoint: &str, resource: Resource) -> Result<Self, InstallError> {
        let (spans, waiting) = mpsc::channel(QUEUE);
        let (close, closing) = watch::channel(None);
        let (tell_done, done) = std_mpsc::sync_channel(1);
        let (tell_ready, ready) = std_mpsc::sync_channel(1);
        let counts = Arc::new(Counts::default());
        let (counted, address) = (Arc::clone(&counts), endpoint.to_owned());
        thread::Builder::new()
            .name("berth-otlp".to_owned())
            .spawn(move || {
                // What the exporter does must never become spans itself.
                let _suppressed = Context::enter_telemetry_suppressed_scope();
                match Courier::new(&address, &resource, waiting, closing, counted) {
                    Ok((runtime, courier)) => {
                        let _ = tell_ready.send(Ok(()));
                        runtime.block_on(courier.run());
                        let _ = tell_done.send(());
                        runtime.shutdown_background();
                    }
                    Err(error) => drop(tell_ready.send(Err(error))),
                }
            })
            .map_err(InstallError::Thread)?;
        ready.recv().map_err(|_| InstallError::ThreadDied)??;
        Ok(Self { spans, counts, close, done: Mutex::new(done) })
    }

    /// The counts, which outlive the queue.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.counts.ended.fetch_add(1, Ordering::Relaxed);
            // Full or closed: the difference of the counts tells of it.
            let _ = self.spans.try_send(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        // Nobody waits for the collector except at the end; spans leave by
        // themselves within LINGER.
        Err(OTelSdkError::InternalFailure("flushing is part of shutdown only".to_owned()))
    }

    fn shutdown_with_timeout(&self, patience: Duration) -> OTelSdkResult {
        let now = Instant::now();
        self.close.send_replace(Some(now.checked_add(patience).unwrap_or(now)));
        let done = self.done.lock().map_err(|_| OTelSdkError::AlreadyShutdown)?;
        match done.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(patience)),
        }
    }
}

/// The other end: gathers spans into batches and brings them to the collector.
struct Courier {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    closing: watch::Receiver<Option<Instant>>,
    counts: Arc<Counts>,
    complained: Option<Instant>,
}

impl Courier {
    fn new(
        endpoint: &str,
        resource: &Resource,
        spans: mpsc::Receiver<SpanData>,
        closing: watch::Receiver<Option<Instant>>,
        counts: Arc<Counts>,
    ) -> Result<(tokio::runtime::Runtime, Self), InstallError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(InstallError::Thread)?;
        let mut exporter = {
            // The gRPC channel spawns a task when it is made.
            let _inside = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(|source: ExporterBuildError| InstallError::Endpoint {
                    endpoint: endpoint.to_owned(),
                    source,
                })?
        };
        exporter.set_resource(resource);
        Ok((runtime, Self { exporter, spans, closing, counts, complained: None }))
    }

    async fn run(mut self) {
        let end = deadline(self.closing.clone());
        tokio::select! {
            () = self.deliver() => {}
            () = end => {}
        }
    }

    async fn deliver(&mut self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            let size = batch.len();
            match timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await {
                Ok(Ok(())) => {
                    self.counts.delivered.fetch_add(size as u64, Ordering::Relaxed);
                }
                Ok(Err(error)) => self.complain(size, &error),
                Err(_) => self.complain(size, &OTelSdkError::Timeout(EXPORT_TIMEOUT)),
            }
        }
    }

    /// The next batch; empty when the queue is closed and there is nothing left.
    async fn gather(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        if self.take(&mut batch).await > 0 {
            let _ =
                timeout(LINGER, async { while batch.len() < BATCH && self.take(&mut batch).await > 0 {} })
                    .await;
        }
        batch
    }

    async fn take(&mut self, batch: &mut Vec<SpanData>) -> usize {
        let room = BATCH.saturating_sub(batch.len());
        loop {
            tokio::select! {
                biased;
                _ = self.closing.changed(), if !self.spans.is_closed() => self.spans.close(),
                taken = self.spans.recv_many(batch, room) => return taken,
            }
        }
    }

    fn complain(&mut self, lost: usize, error: &OTelSdkError) {
        let now = Instant::now();
        let due = self.complained.is_none_or(|last| now - last >= COMPLAINT_INTERVAL);
        if due {
            self.complained = Some(now);
            tracing::warn!(spans = lost, %error, "spans could not be exported; joins go on");
        }
    }
}

/// Returns at the deadline that was set at shutdown, or when nobody can set one.
async fn deadline(mut closing: watch::Receiver<Option<Instant>>) {
    let at = closing.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        sleep_until(at).await;
    }
}
