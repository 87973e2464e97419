//! Trace contexts of a process that exports no spans: the ids alone, for the record,
//! the logs, the metrics' exemplars and whoever is called. They are made when they
//! are asked for. An exporter's own machinery would build every span with all its
//! attributes, and drop it.

use opentelemetry::trace::{SpanContext, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::{Span, Subscriber, dispatcher};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::{Layer, Registry};

/// In the exporter's place: it keeps our spans alive whatever the filter of the logs
/// says, and is the sign that this module is asked for their contexts.
pub(crate) struct Uncollected;

impl<S: Subscriber> Layer<S> for Uncollected {}

/// Whether no span of this process goes to anybody.
pub(crate) fn is_everything() -> bool {
    dispatcher::get_default(|dispatch| dispatch.is::<Uncollected>())
}

/// The context of a span, itself or what it inherits from.
struct Kept(SpanContext);

/// The span's context; the same each time. `None` where spans are collected, or are
/// not kept at all.
pub(crate) fn context(span: &Span) -> Option<SpanContext> {
    with(span, |span| {
        if let Some(Kept(own)) = span.extensions().get() {
            return own.clone();
        }
        let above = nearest(&span).unwrap_or_else(|| begin(&span));
        // The root of a new trace is the span itself, perhaps.
        let own = span.extensions().get().map(|Kept(own)| own.clone());
        own.unwrap_or_else(|| keep(&span, below(&above)))
    })
}

/// The id of the span's trace, made if it has none yet.
pub(crate) fn trace_id(span: &Span) -> Option<TraceId> {
    with(span, |span| nearest(&span).unwrap_or_else(|| begin(&span)).trace_id())
}

/// Makes a span elsewhere the parent of this one.
pub(crate) fn adopt(span: &Span, parent: &SpanContext) {
    with(span, |span| keep(&span, below(parent)));
}

fn with<T>(span: &Span, ask: impl FnOnce(SpanRef<'_, Registry>) -> T) -> Option<T> {
    span.with_subscriber(|(id, dispatch)| {
        dispatch.downcast_ref::<Uncollected>()?;
        dispatch.downcast_ref::<Registry>()?.span(id).map(ask)
    })?
}

/// The context of the span or of the nearest one above it that has any.
fn nearest(span: &SpanRef<'_, Registry>) -> Option<SpanContext> {
    span.scope().find_map(|span| span.extensions().get().map(|Kept(context)| context.clone()))
}

/// A new trace, at the root of all, so that spans beside this one are in it too.
fn begin(span: &SpanRef<'_, Registry>) -> SpanContext {
    let ids = RandomIdGenerator::default();
    let (trace, own) = (ids.new_trace_id(), ids.new_span_id());
    let context = SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::default());
    match span.scope().last() {
        Some(root) => keep(&root, context),
        None => keep(span, context),
    }
}

/// One more span of the parent's trace, sampled as its parent is.
fn below(parent: &SpanContext) -> SpanContext {
    let own = RandomIdGenerator::default().new_span_id();
    SpanContext::new(parent.trace_id(), own, parent.trace_flags(), false, parent.trace_state().clone())
}

fn keep(span: &SpanRef<'_, Registry>, context: SpanContext) -> SpanContext {
    span.extensions_mut().replace(Kept(context.clone()));
    context
}
