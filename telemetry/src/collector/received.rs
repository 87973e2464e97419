//! OTLP's spans as a test likes to compare them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// The part that a span plays in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work within a process.
    Internal,
    /// The answering side of an RPC.
    Server,
    /// The calling side of an RPC.
    Client,
    /// Anything else, which Berth does not use.
    Other,
}

/// Whether a span says that something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanStatus {
    /// It says nothing, as it should when all is well.
    Unset,
    /// It was marked as good.
    Ok,
    /// It was marked as an error, with this description.
    Error(String),
}

/// One span that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSpan {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; `None` for a root.
    pub parent_span_id: Option<String>,
    /// The span's name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its own attributes, values as text.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of the process, values as text.
    pub resource: BTreeMap<String, String>,
    /// `service.name` of the process.
    pub service: String,
    /// The trace id and span id of each link.
    pub links: Vec<(String, String)>,
    /// The names of its events.
    pub events: Vec<String>,
    /// Its status.
    pub status: SpanStatus,
    /// Nanoseconds since 1970.
    pub start_nanos: u64,
    /// Nanoseconds since 1970.
    pub end_nanos: u64,
}

impl ReceivedSpan {
    /// One attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

pub(super) fn spans(request: ExportTraceServiceRequest) -> Vec<ReceivedSpan> {
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = attributes(group.resource.unwrap_or_default().attributes);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(received(span, &resource));
        }
    }
    all
}

fn received(span: Span, resource: &BTreeMap<String, String>) -> ReceivedSpan {
    let kind = match span.kind() {
        SpanKind::Internal => Kind::Internal,
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Unspecified | SpanKind::Producer | SpanKind::Consumer => Kind::Other,
    };
    let status = span.status.unwrap_or_default();
    ReceivedSpan {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_span_id: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        name: span.name,
        kind,
        attributes: attributes(span.attributes),
        service: resource.get("service.name").cloned().unwrap_or_default(),
        resource: resource.clone(),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        events: span.events.into_iter().map(|event| event.name).collect(),
        status: match status.code() {
            StatusCode::Unset => SpanStatus::Unset,
            StatusCode::Ok => SpanStatus::Ok,
            StatusCode::Error => SpanStatus::Error(status.message),
        },
        start_nanos: span.start_time_unix_nano,
        end_nanos: span.end_time_unix_nano,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        None => String::new(),
        Some(other) => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
