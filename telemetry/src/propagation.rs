//! How a trace crosses from one process to the other: the headers of W3C Trace
//! Context, level 1 (<https://www.w3.org/TR/trace-context-1/>). No baggage: it
//! would carry what a stranger writes into every process behind us.

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::uncollected;

/// Writes the span's context into the metadata of a call. Writes nothing when
/// the span is not part of a trace.
pub fn inject(span: &Span, metadata: &mut MetadataMap) {
    let Some(context) = span_context(span) else { return };
    if let Ok(value) = MetadataValue::try_from(written(&context)) {
        metadata.insert(TRACEPARENT, value);
    }
    let state = context.trace_state().header();
    if !state.is_empty()
        && let Ok(value) = MetadataValue::try_from(state)
    {
        metadata.insert(TRACESTATE, value);
    }
}

/// The same for a call by plain HTTP. Only what is sampled is told of: nobody is made to
/// look at what nobody keeps.
pub fn inject_headers(span: &Span, headers: &mut HeaderMap) {
    let context = span_context(span).filter(SpanContext::is_sampled);
    if let Some(value) = context.and_then(|context| HeaderValue::try_from(written(&context)).ok()) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Makes the caller's span the parent of `span`, which must not have been
/// entered yet. A `traceparent` that is missing, given twice or malformed is
/// ignored: then `span` begins a trace of its own.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return };
    let Some(context) = parent.to_str().ok().and_then(|text| read(text, state(headers))) else {
        return;
    };
    uncollected::adopt(span, &context);
    // Fails where spans are not exported.
    let _ = span.set_parent(Context::new().with_remote_span_context(context));
}

/// The span's context as a `traceparent`, 55 characters, to be kept for
/// [`link`].
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    span_context(span).map(|context| written(&context))
}

/// Links `span` to an earlier trace, so that a new attempt can be followed back
/// to the one before. Text that is no `traceparent` is ignored.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(context) = read(traceparent, TraceState::default()) {
        span.add_link(context);
    }
}

/// The id of the span's trace, 32 lower-case hex digits.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let id = match uncollected::trace_id(span) {
        Some(id) => id,
        None => span_context(span)?.trace_id(),
    };
    Some(id.to_string())
}

fn span_context(span: &Span) -> Option<SpanContext> {
    if let Some(context) = uncollected::context(span) {
        return Some(context);
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

fn written(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags() & TraceFlags::SAMPLED
    )
}

/// Reads a `traceparent` (section 3.2 of the recommendation): version `00` is
/// exactly 55 characters; a later version may go on after a dash; `ff` is none.
fn read(text: &str, state: TraceState) -> Option<SpanContext> {
    if text.len() > LONGEST_TRACEPARENT || !text.is_ascii() {
        return None;
    }
    let (known, more) = text.split_at_checked(TRACEPARENT_LENGTH)?;
    let mut fields = known.split('-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = TraceId::from_hex(hex(fields.next()?, 32)?).ok()?;
    let span_id = SpanId::from_hex(hex(fields.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(fields.next()?, 2)?, 16).ok()?;
    match version {
        "ff" => return None,
        "00" if !more.is_empty() => return None,
        _ if !more.is_empty() && !more.starts_with('-') => return None,
        _ => {}
    }
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace_id, span_id, flags, true, state);
    context.is_valid().then_some(context)
}

fn hex(field: &str, length: usize) -> Option<&str> {
    let digits = field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (field.len() == length && digits).then_some(field)
}

/// Reads the `tracestate`, which may be spread over several headers. What is
/// malformed or too long counts as none.
fn state(headers: &HeaderMap) -> TraceState {
    let mut text = String::new();
    for value in headers.get_all(TRACESTATE) {
        let Ok(value) = value.to_str() else { return TraceState::default() };
        if text.len() + value.len() > LONGEST_TRACESTATE {
            return TraceState::default();
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(value);
    }
    text.parse().unwrap_or_default()
}

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const TRACEPARENT_LENGTH: usize = 55;

/// A later version may be longer; more than this is not worth reading.
const LONGEST_TRACEPARENT: usize = 128;

/// What the recommendation asks an implementation to carry at least.
const LONGEST_TRACESTATE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_back_the_same() {
        let context = read(GOOD, TraceState::default()).expect("well-formed");
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(written(&context), GOOD);
    }

    #[test]
    fn a_later_version_is_read_by_its_known_part() {
        let later = GOOD.replacen("00", "cc", 1);
        assert!(read(&later, TraceState::default()).is_some());
        assert!(read(&format!("{later}-what-comes"), TraceState::default()).is_some());
        assert!(read(&format!("{later}.what-comes"), TraceState::default()).is_none());
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        let long = format!("cc{}-{}", &GOOD[2..], "x".repeat(200));
        let upper = GOOD.to_uppercase();
        let longer = format!("{GOOD}-x");
        let spaced = format!(" {GOOD}");
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb7ad6b71-69203331--01",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
            &long,
            &upper,
            &longer,
            &spaced,
        ] {
            assert!(read(text, TraceState::default()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_tracestate_is_bounded_and_may_come_in_parts() {
        let mut headers = HeaderMap::new();
        headers.append(TRACESTATE, "a=1".parse().expect("a header"));
        headers.append(TRACESTATE, "b=2".parse().expect("a header"));
        assert_eq!(state(&headers).header(), "a=1,b=2");
        headers.append(TRACESTATE, format!("c={}", "x".repeat(600)).parse().expect("a header"));
        assert_eq!(state(&headers).header(), "");
    }
}
