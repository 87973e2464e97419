//! Between a span as the SDK has it and as it travels.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;
use berth_domain::span::{LONGEST_TEXT, MOST_ATTRIBUTES, MOST_LINKS, RelayedSpan, SpanPlace, SpanValue};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::effect::Effect;
use crate::names::{attribute, rpc, span as names};

/// The span as it travels; nothing where it is not one of Berth's own.
pub(crate) fn written(span: &SpanData) -> Option<RelayedSpan> {
    let place =
        |context: &SpanContext| SpanPlace::new(context.trace_id().to_bytes(), context.span_id().to_bytes());
    let parent = span.parent_span_id;
    Some(RelayedSpan {
        place: place(&span.span_context)?,
        parent: (parent != SpanId::INVALID).then(|| parent.to_bytes()),
        name: known_span(&span.name)?.to_owned(),
        is_call: span.span_kind == SpanKind::Client,
        began: since_1970(span.start_time),
        ended: since_1970(span.end_time),
        attributes: span.attributes.iter().filter_map(attribute_written).take(MOST_ATTRIBUTES).collect(),
        error: match &span.status {
            Status::Error { description } => Some(short(description, berth_domain::span::LONGEST_NAME)),
            Status::Unset | Status::Ok => None,
        },
        links: span.links.iter().filter_map(|link| place(&link.span_context)).take(MOST_LINKS).collect(),
    })
}

/// A span that travelled, as the SDK exports it. `node` is who has sent it, whatever
/// the span itself says. Nothing where its name is none of Berth's.
pub(crate) fn read(span: &RelayedSpan, node: &str) -> Option<SpanData> {
    let name = known_span(&span.name)?;
    let own = span.attributes.iter().filter(|(name, _)| name != attribute::NODE_NAME);
    let mut attributes: Vec<KeyValue> = own.filter_map(attribute_read).collect();
    attributes.push(KeyValue::new(attribute::NODE_NAME, node.to_owned()));
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(|place| Link::with_context(context(*place))).collect();
    Some(SpanData {
        span_context: context(span.place),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: false,
        span_kind: if span.is_call { SpanKind::Client } else { SpanKind::Internal },
        name: Cow::Borrowed(name),
        start_time: moment(span.began),
        end_time: moment(span.ended),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: match &span.error {
            // A code of the closed list or nothing: free text here could be anything.
            Some(code) => Status::error(Code::from_str(code).map_or("", |code| code.as_str())),
            None => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("berth").build(),
    })
}

/// The names that spans of an agent have.
pub(crate) fn known_span(name: &str) -> Option<&'static str> {
    let effects = [Effect::Apply, Effect::Record, Effect::Renewal, Effect::Attendance];
    let own = [names::JOIN].into_iter().chain(effects.map(Effect::as_str));
    let all = own.chain(Phase::ALL.map(Phase::as_str)).chain(rpc::JOIN_METHODS);
    all.into_iter().find(|known| *known == name)
}

/// The names that their attributes have.
fn known_attribute(name: &str) -> Option<&'static str> {
    const KNOWN: [&str; 14] = [
        attribute::JOIN_ID,
        attribute::PHASE,
        attribute::OUTCOME,
        attribute::CODE,
        attribute::ATTEMPT,
        attribute::NODE_NAME,
        attribute::CLUSTER_UID,
        attribute::CLUSTER_NAME,
        rpc::SYSTEM,
        rpc::METHOD,
        rpc::STATUS_CODE,
        rpc::ERROR_TYPE,
        rpc::SERVER_ADDRESS,
        rpc::SERVER_PORT,
    ];
    KNOWN.into_iter().find(|known| *known == name)
}

fn attribute_written(pair: &KeyValue) -> Option<(String, SpanValue)> {
    let name = known_attribute(pair.key.as_str())?;
    let value = if let Value::I64(number) = &pair.value {
        SpanValue::Number(*number)
    } else if let Value::String(text) = &pair.value {
        SpanValue::Text(short(text.as_str(), LONGEST_TEXT))
    } else {
        // None of these attributes is of another kind.
        return None;
    };
    Some((name.to_owned(), value))
}

fn attribute_read((name, value): &(String, SpanValue)) -> Option<KeyValue> {
    let name = Key::from_static_str(known_attribute(name)?);
    Some(match value {
        SpanValue::Text(text) => KeyValue::new(name, text.clone()),
        SpanValue::Number(number) => KeyValue::new(name, *number),
    })
}

fn context(place: SpanPlace) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(place.trace()), SpanId::from_bytes(place.span()));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

fn since_1970(moment: SystemTime) -> Duration {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn moment(since_1970: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Text that the wire takes: no control characters, and not longer than this.
fn short(text: &str, most: usize) -> String {
    let mut out = berth_domain::diagnosis::printable(text);
    let mut end = out.len().min(most);
    while !out.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    out.truncate(end);
    out
}
