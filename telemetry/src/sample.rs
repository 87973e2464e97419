//! Which traces are kept: every one in which something was refused or failed, and of the
//! others the share that is configured.
//!
//! A trace is judged by its own process when its local root ends, so what went wrong is
//! always kept, whatever became of its other parts. The share is taken by the trace's id:
//! every process that is configured alike keeps and leaves the same ones whole.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, Status, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

/// The most spans that wait for their root; what comes then is kept without judging.
const MOST_WAITING: usize = 8_192;

/// The most spans of one trace that wait: one that goes on so long is kept.
const MOST_OF_A_TRACE: usize = 64;

/// The share of traces that are kept though all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(100);

    /// So many of a hundred.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(if percent > 100 { 100 } else { percent })
    }

    /// Whether a trace in which all went well is one of them. The id's last bytes are
    /// random (W3C Trace Context level 2, random trace id).
    #[must_use]
    pub fn keeps(self, trace: [u8; 16]) -> bool {
        let [.., a, b, c, d] = trace;
        u64::from(u32::from_be_bytes([a, b, c, d])) * 100 < u64::from(self.0) << 32
    }
}

/// Judges traces before they go on.
#[derive(Debug)]
pub(crate) struct Sampled<P> {
    then: P,
    share: Share,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    traces: HashMap<TraceId, Vec<SpanData>>,
    spans: usize,
}

impl<P: SpanProcessor> Sampled<P> {
    pub(crate) fn new(then: P, share: Share) -> Self {
        Self { then, share, waiting: Mutex::default() }
    }

    /// What of its trace goes on now that this span has ended.
    fn judge(&self, span: SpanData) -> Vec<SpanData> {
        let trace = span.span_context.trace_id();
        if self.share == Share::ALL || self.share.keeps(trace.to_bytes()) {
            return vec![span];
        }
        let is_root = span.parent_span_id == SpanId::INVALID || span.parent_span_is_remote;
        let mut waiting = self.waiting();
        let mut spans = waiting.take(trace);
        let is_long = spans.len() >= MOST_OF_A_TRACE || waiting.spans >= MOST_WAITING;
        spans.push(span);
        if is_root || is_long {
            let is_kept = is_long || spans.iter().any(went_wrong);
            return if is_kept { spans } else { Vec::new() };
        }
        waiting.keep(trace, spans);
        Vec::new()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, trace: TraceId) -> Vec<SpanData> {
        match self.traces.entry(trace) {
            Entry::Occupied(found) => {
                let spans = found.remove();
                self.spans = self.spans.saturating_sub(spans.len());
                spans
            }
            Entry::Vacant(_) => Vec::new(),
        }
    }

    fn keep(&mut self, trace: TraceId, spans: Vec<SpanData>) {
        self.spans = self.spans.saturating_add(spans.len());
        self.traces.insert(trace, spans);
    }
}

/// A refusal, a failure, or a wait: whatever has a code, and whatever is an error.
pub(crate) fn went_wrong(span: &SpanData) -> bool {
    let has_code = span.attributes.iter().any(|known| known.key.as_str() == crate::names::attribute::CODE);
    has_code || matches!(span.status, Status::Error { .. })
}

impl<P: SpanProcessor> SpanProcessor for Sampled<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.then.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.judge(span).into_iter().for_each(|span| self.then.on_end(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.then.force_flush()
    }

    fn shutdown_with_timeout(&self, patience: Duration) -> OTelSdkResult {
        // Whose roots have not ended by now were cut: that is worth seeing.
        let left = std::mem::take(&mut *self.waiting());
        left.traces.into_values().flatten().for_each(|span| self.then.on_end(span));
        self.then.shutdown_with_timeout(patience)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanContext, SpanKind, TraceFlags, TraceState};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl SpanProcessor for Seen {
        fn on_start(&self, _: &mut Span, _: &Context) {}
        fn on_end(&self, span: SpanData) {
            self.0.lock().expect("nobody panicked").push(span.name.into_owned());
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    fn span(trace: u8, name: &'static str, parent: SpanId) -> SpanData {
        let state = TraceState::default();
        let id = SpanId::from_bytes([2; 8]);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes([trace; 16]),
                id,
                TraceFlags::SAMPLED,
                false,
                state,
            ),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(name),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("test").build(),
        }
    }

    fn ended(share: Share, spans: Vec<SpanData>) -> Vec<String> {
        let seen = Seen::default();
        let sampled = Sampled::new(seen.clone(), share);
        spans.into_iter().for_each(|span| sampled.on_end(span));
        seen.0.lock().expect("nobody panicked").drain(..).collect()
    }

    const INNER: SpanId = SpanId::from_bytes([1; 8]);

    #[test]
    fn a_good_trace_is_left_and_a_bad_one_is_kept_whole() {
        let none = Share::percent(0);
        let good = vec![span(9, "child", INNER), span(9, "root", SpanId::INVALID)];
        assert_eq!(ended(none, good.clone()), Vec::<String>::new());
        assert_eq!(ended(Share::ALL, good), ["child", "root"]);

        let code = KeyValue::new(crate::names::attribute::CODE, "TOKEN_SPENT");
        let bad = SpanData { attributes: vec![code], ..span(9, "bad", INNER) };
        let trace = vec![span(9, "child", INNER), bad, span(9, "root", SpanId::INVALID)];
        assert_eq!(ended(none, trace), ["child", "bad", "root"]);
        let error = SpanData { status: Status::error(""), ..span(9, "root", SpanId::INVALID) };
        assert_eq!(ended(none, vec![span(9, "child", INNER), error]), ["child", "root"]);
    }

    #[test]
    fn a_root_whose_parent_is_elsewhere_ends_its_part() {
        let remote = SpanData { parent_span_is_remote: true, ..span(9, "rpc", INNER) };
        let sampled = Sampled::new(Seen::default(), Share::percent(0));
        sampled.on_end(span(9, "child", INNER));
        assert_eq!(sampled.waiting().spans, 1);
        sampled.on_end(remote);
        let left = sampled.waiting();
        assert_eq!((left.spans, left.traces.len()), (0, 0));
    }

    #[test]
    fn a_trace_that_does_not_end_is_bounded() {
        let many = vec![span(9, "child", INNER); MOST_OF_A_TRACE + 1];
        assert_eq!(ended(Share::percent(0), many).len(), MOST_OF_A_TRACE + 1);
    }

    #[test]
    fn a_share_is_what_it_says() {
        let ids = (0..10_000_u32).map(|number| {
            let mut id = [7; 16];
            let random = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
            id[12..].copy_from_slice(&random);
            id
        });
        let kept = ids.filter(|id| Share::percent(25).keeps(*id)).count();
        assert!((2_400..2_600).contains(&kept), "{kept} of 10,000");
        assert!(Share::ALL.keeps([0xff; 16]) && !Share::percent(0).keeps([0; 16]));
    }
}
