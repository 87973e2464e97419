//! TelemetryService: an agent's spans.

use std::time::Duration;

use berth_domain::span::{
    LONGEST_NAME, LONGEST_TEXT, MOST_ATTRIBUTES, MOST_LINKS, MOST_SPANS, RelayedSpan, SpanPlace, SpanValue,
};

use crate::bounds::{Field, Malformed};
use crate::join::v1;

/// Spans for the wire, at most [`MOST_SPANS`] of them.
#[must_use]
pub fn spans_to_wire(spans: &[RelayedSpan]) -> v1::ExportSpansRequest {
    v1::ExportSpansRequest { spans: spans.iter().take(MOST_SPANS).map(span_to_wire).collect() }
}

/// The spans that an agent sent.
///
/// # Errors
/// The field that breaks its bounds.
pub fn spans_from_wire(wire: v1::ExportSpansRequest) -> Result<Vec<RelayedSpan>, Malformed> {
    let field = Field("ExportSpansRequest", "spans");
    field.count(wire.spans.len(), MOST_SPANS)?;
    if wire.spans.is_empty() {
        return field.there(None);
    }
    wire.spans.into_iter().map(span_from_wire).collect()
}

fn span_to_wire(span: &RelayedSpan) -> v1::Span {
    use v1::span_attribute::Value;
    let attribute = |(name, value): &(String, SpanValue)| v1::SpanAttribute {
        name: name.clone(),
        value: Some(match value {
            SpanValue::Text(text) => Value::Text(text.clone()),
            SpanValue::Number(number) => Value::Number(*number),
        }),
    };
    let link =
        |place: &SpanPlace| v1::SpanLink { trace_id: place.trace().to_vec(), span_id: place.span().to_vec() };
    v1::Span {
        trace_id: span.place.trace().to_vec(),
        span_id: span.place.span().to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name.clone(),
        is_call: span.is_call,
        began_unix_ns: nanos(span.began),
        ended_unix_ns: nanos(span.ended),
        attributes: span.attributes.iter().map(attribute).collect(),
        error: span.error.clone(),
        links: span.links.iter().map(link).collect(),
    }
}

fn span_from_wire(wire: v1::Span) -> Result<RelayedSpan, Malformed> {
    let field = |name| Field("Span", name);
    let (began, ended) = (wire.began_unix_ns, wire.ended_unix_ns);
    if ended < began {
        return Err(field("ended_unix_ns").invalid("it is before the beginning"));
    }
    field("attributes").count(wire.attributes.len(), MOST_ATTRIBUTES)?;
    field("links").count(wire.links.len(), MOST_LINKS)?;
    let parent = match wire.parent_span_id.as_slice() {
        [] => None,
        id => Some(field("parent_span_id").array(id)?),
    };
    Ok(RelayedSpan {
        place: place(field("trace_id"), &wire.trace_id, field("span_id"), &wire.span_id)?,
        parent,
        name: field("name").text(wire.name, LONGEST_NAME)?,
        is_call: wire.is_call,
        began: Duration::from_nanos(began),
        ended: Duration::from_nanos(ended),
        attributes: wire.attributes.into_iter().map(attribute_from_wire).collect::<Result<_, _>>()?,
        error: wire.error.map(|code| field("error").text(code, LONGEST_NAME)).transpose()?,
        links: wire
            .links
            .iter()
            .map(|link| {
                let field = |name| Field("SpanLink", name);
                place(field("trace_id"), &link.trace_id, field("span_id"), &link.span_id)
            })
            .collect::<Result<_, _>>()?,
    })
}

fn attribute_from_wire(wire: v1::SpanAttribute) -> Result<(String, SpanValue), Malformed> {
    use v1::span_attribute::Value;
    let field = |name| Field("SpanAttribute", name);
    let value = match field("value").there(wire.value)? {
        Value::Text(text) => SpanValue::Text(field("text").text(text, LONGEST_TEXT)?),
        Value::Number(number) => SpanValue::Number(number),
    };
    Ok((field("name").text(wire.name, LONGEST_NAME)?, value))
}

fn place(trace: Field, trace_id: &[u8], span: Field, span_id: &[u8]) -> Result<SpanPlace, Malformed> {
    let (trace_id, span_id) = (trace.array(trace_id)?, span.array(span_id)?);
    SpanPlace::new(trace_id, span_id).ok_or_else(|| span.invalid("an id is zero"))
}

/// Until the year 2554.
fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> RelayedSpan {
        let place = |byte| SpanPlace::new([byte; 16], [byte; 8]).expect("a place");
        RelayedSpan {
            place: place(1),
            parent: Some([3; 8]),
            name: "authentication".to_owned(),
            is_call: true,
            began: Duration::from_nanos(1_700_000_000_000_000_001),
            ended: Duration::from_nanos(1_700_000_000_000_000_009),
            attributes: vec![
                ("berth.code".to_owned(), SpanValue::Text("TOKEN_SPENT".to_owned())),
                ("berth.attempt".to_owned(), SpanValue::Number(2)),
            ],
            error: Some("TOKEN_SPENT".to_owned()),
            links: vec![place(2)],
        }
    }

    #[test]
    fn spans_come_out_as_they_went_in() {
        let spans = vec![span(), RelayedSpan { parent: None, error: None, ..span() }];
        assert_eq!(spans_from_wire(spans_to_wire(&spans)).expect("within bounds"), spans);
    }

    #[test]
    fn every_bound_is_held() {
        type Change = fn(&mut v1::Span);
        let changes: [(&str, Change); 11] = [
            ("trace_id", |span| span.trace_id = vec![1; 15]),
            ("span_id", |span| span.span_id = vec![0; 8]),
            ("parent_span_id", |span| span.parent_span_id = vec![1; 9]),
            ("name", |span| span.name = "x".repeat(65)),
            ("name", |span| span.name = "a\u{1b}[31m".to_owned()),
            ("ended_unix_ns", |span| span.ended_unix_ns = 0),
            ("attributes", |span| span.attributes = vec![v1::SpanAttribute::default(); 17]),
            ("value", |span| span.attributes = vec![v1::SpanAttribute::default()]),
            ("text", |span| {
                let value = Some(v1::span_attribute::Value::Text("x".repeat(257)));
                span.attributes = vec![v1::SpanAttribute { name: "a".to_owned(), value }];
            }),
            ("error", |span| span.error = Some("x".repeat(65))),
            ("links", |span| span.links = vec![v1::SpanLink::default(); 5]),
        ];
        for (named, change) in changes {
            let mut wire = spans_to_wire(&[span()]);
            change(wire.spans.first_mut().expect("one"));
            let malformed = spans_from_wire(wire).expect_err(named);
            assert_eq!(malformed.field, named);
        }
        let many = v1::ExportSpansRequest { spans: vec![span_to_wire(&span()); 65] };
        assert!(spans_from_wire(many).is_err());
        assert!(spans_from_wire(v1::ExportSpansRequest::default()).is_err());
    }
}
