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
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
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

/// How many spans ended, and what became of them; those that are left wait.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ended: AtomicU64,
    /// The collector has acknowledged them.
    pub(crate) delivered: AtomicU64,
    /// There was no room in the queue.
    pub(crate) dropped: AtomicU64,
    /// The collector did not take them in time.
    pub(crate) failed: AtomicU64,
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
            // Full or closed: nobody waits for room.
            if self.spans.try_send(span).is_err() {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
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
    /// How many losses were told of.
    told: u64,
}

impl Courier {
    fn new(
        endpoint: &str,
        resource: &Resource,
        spans: mpsc::Receiver<SpanData>,
        closing: watch::Receiver<Option<Instant>>,
        counts: Arc<Counts>,
    ) -> Result<(LocalRuntime, Self), InstallError> {
        // Of the kind that can only have one thread: an agent's program then needs nothing of
        // tokio's scheduler for many.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
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
        Ok((runtime, Self { exporter, spans, closing, counts, complained: None, told: 0 }))
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
            let size = batch.len() as u64;
            let exported = timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await;
            let exported = exported.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)));
            let count = if exported.is_ok() { &self.counts.delivered } else { &self.counts.failed };
            count.fetch_add(size, Ordering::Relaxed);
            self.complain(exported.err().as_ref());
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

    /// Tells now and then what was lost since: by exports that failed, or because a slow
    /// collector let the queue fill.
    fn complain(&mut self, error: Option<&OTelSdkError>) {
        let Counts { dropped, failed, .. } = &*self.counts;
        let lost = dropped.load(Ordering::Relaxed).saturating_add(failed.load(Ordering::Relaxed));
        let now = Instant::now();
        let due = self.complained.is_none_or(|last| now - last >= COMPLAINT_INTERVAL);
        if lost == self.told || !due {
            return;
        }
        let spans = lost.saturating_sub(self.told);
        (self.complained, self.told) = (Some(now), lost);
        match error {
            Some(error) => tracing::warn!(spans, %error, "spans could not be exported; joins go on"),
            None => tracing::warn!(spans, "the collector is slow and spans were dropped; joins go on"),
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
