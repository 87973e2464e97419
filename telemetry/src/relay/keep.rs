//! The agent's side: a buffer that never grows and never makes anybody wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::span::{MOST_SPANS, RelayedSpan};
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::Notify;

use super::words;

/// The most spans that wait for a line; the oldest give way to newer ones. A join has
/// about ten, so these are the last attempts of a machine that was long turned away.
pub const MOST_KEPT: usize = 128;

/// Spans that wait. Cloning it gives another handle on the same buffer.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Buffer>);

#[derive(Debug, Default)]
struct Buffer {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<RelayedSpan>,
    lost: u64,
    is_closed: bool,
}

impl Kept {
    /// Waits until there are spans.
    pub async fn come(&self) {
        loop {
            let came = self.0.came.notified();
            if !self.waiting().spans.is_empty() {
                return;
            }
            came.await;
        }
    }

    /// The oldest spans, as many as one message takes.
    #[must_use]
    pub fn take(&self) -> Vec<RelayedSpan> {
        let mut waiting = self.waiting();
        let many = waiting.spans.len().min(MOST_SPANS);
        waiting.spans.drain(..many).collect()
    }

    /// Nobody wants them: what waits is dropped, and what comes too.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.spans = VecDeque::new();
    }

    /// How many gave way to newer ones.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.waiting().lost
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let Some(span) = words::written(&span) else { return };
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return;
        }
        if waiting.spans.len() >= MOST_KEPT {
            waiting.spans.pop_front();
            waiting.lost = waiting.lost.saturating_add(1);
        }
        waiting.spans.push_back(span);
        drop(waiting);
        self.0.came.notify_one();
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.close();
        Ok(())
    }
}
