//! A span of the SDK's in words of closed lists.

use std::str::FromStr as _;
use std::time::SystemTime;

use berth_domain::diagnosis::Code;
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::trace::{Kind, SeenSpan, Side};
use opentelemetry::trace::{SpanId, SpanKind};
use opentelemetry_sdk::trace::SpanData;

use crate::Outcome;
use crate::effect::Effect;
use crate::names::{attribute, rpc, span as names};
use crate::relay::words::known_span;
use crate::rpc::status_name;

/// Whether a span of this name is there in joins only: an attendance or a renewal is
/// none, and there are many more of them.
pub(super) fn is_of_a_join(name: &str) -> bool {
    [names::JOIN, rpc::ENROLL, rpc::JOIN].contains(&name)
        || Phase::ALL.iter().any(|phase| phase.as_str() == name)
}

/// Whether a server made this span only because the agent had proved itself.
pub(super) fn proves(span: &SeenSpan) -> bool {
    let is = |phase: Phase| span.name == phase.as_str();
    let has_proved = is(Phase::Authentication) && span.outcome == Some(Outcome::Ok.as_str());
    has_proved || is(Phase::Authorization) || is(Phase::Configuration) || is(Phase::Registration)
}

/// The join that the span names.
pub(super) fn join(span: &SpanData) -> Option<JoinId> {
    word(span, attribute::JOIN_ID)?.parse().ok()
}

/// The span; nothing where its name is none of Berth's.
pub(super) fn seen(span: &SpanData, side: Side, has_ended: bool) -> Option<SeenSpan> {
    let since_1970 = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parent = span.parent_span_id;
    let said = |name| word(span, name);
    Some(SeenSpan {
        id: span.span_context.span_id().to_bytes(),
        parent: (parent != SpanId::INVALID).then(|| parent.to_bytes()),
        side,
        kind: match span.span_kind {
            SpanKind::Client => Kind::Call,
            SpanKind::Server => Kind::Answer,
            SpanKind::Internal | SpanKind::Producer | SpanKind::Consumer => Kind::Step,
        },
        name: known_span(&span.name).or_else(|| known_effect(&span.name))?,
        began: since_1970(span.start_time),
        ended: has_ended.then(|| since_1970(span.end_time)),
        outcome: said(attribute::OUTCOME)
            .and_then(|said| Outcome::ALL.into_iter().map(Outcome::as_str).find(|outcome| *outcome == said)),
        code: said(attribute::CODE).and_then(|said| Code::from_str(&said).ok()),
        status: said(rpc::STATUS_CODE).and_then(|said| {
            (0..=LAST_STATUS).map(|code| status_name(code.into())).find(|status| *status == said)
        }),
    })
}

/// What servers do beside what agents do.
fn known_effect(name: &str) -> Option<&'static str> {
    let effects = [Effect::Redeem, Effect::Bind, Effect::Sign];
    effects.into_iter().map(Effect::as_str).find(|known| *known == name)
}

fn word(span: &SpanData, name: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key.as_str() == name)?;
    Some(pair.value.as_str().into_owned())
}

/// UNAUTHENTICATED, the last of gRPC's status codes.
const LAST_STATUS: i32 = 16;
