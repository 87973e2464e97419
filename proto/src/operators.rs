//! What the server keeps, as operators see it: records to berth.admin.v1. Private
//! values of diagnoses are shown here, and only here.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_domain::diagnosis::{Diagnosis, Retry};
use berth_domain::facts::{HostFacts, Reserved, allocatable, capacity};
use berth_domain::join::{Decision, Entry, Event, JoinId, JoinRecord, Origin, State};
use berth_domain::labels::Labels;
use berth_domain::node::{Ban, NodeRecord, Readiness};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenBinding, TokenRecord};
use berth_domain::trace::{SeenSpan, Waterfall};

use crate::admin::v1;
use crate::enroll::millis;
use crate::join::v1 as join_v1;
use crate::refusal::phase_to_wire;

/// A diagnosis with the values that only operators may see.
#[must_use]
pub fn diagnosis_for_operators(why: &Diagnosis) -> join_v1::Diagnosis {
    join_v1::Diagnosis {
        code: why.code().as_str().to_owned(),
        phase: phase_to_wire(why.phase()).into(),
        values: why.values().map(|(key, value)| (key.to_owned(), value.text.clone())).collect(),
        cause: why.cause(),
        mend: why.mend(),
        retry_after_ms: match why.when_to_retry() {
            Retry::Never => None,
            Retry::After(after) => Some(millis(after)),
        },
    }
}

/// A token without its secret, which nobody keeps.
#[must_use]
pub fn token_to_wire(token: &TokenRecord) -> v1::Token {
    v1::Token {
        id: token.id.to_string(),
        binding: Some(binding_to_wire(&token.binding)),
        description: token.description.clone(),
        created_unix_ms: token.created.millis(),
        created_by: token.created_by.clone(),
        expires_unix_ms: token.expires.millis(),
        revoked_unix_ms: token.revoked.as_ref().map(|revoked| revoked.at.millis()),
        revoked_by: token.revoked.as_ref().map(|revoked| revoked.by.clone()).unwrap_or_default(),
        used_by: token.used.iter().map(|used| used.join.to_string()).collect(),
    }
}

fn binding_to_wire(binding: &TokenBinding) -> v1::TokenBinding {
    v1::TokenBinding {
        names: binding.names.to_string(),
        pool: binding.pool.to_string(),
        uses: binding.uses,
        networks: binding.networks.iter().map(ToString::to_string).collect(),
        labels: labels_to_wire(&binding.labels),
        taints: binding.taints.iter().map(ToString::to_string).collect(),
        approval: binding.approval,
    }
}

fn labels_to_wire(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A join as it stands.
#[must_use]
pub fn join_to_wire(join: &JoinRecord) -> v1::Join {
    let origin = join.origin.as_ref();
    v1::Join {
        id: join.id.to_string(),
        state: join.state.as_str().to_owned(),
        phase: phase_to_wire(join.phase).into(),
        node_name: join.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        token_id: origin.map(|origin| origin.token.to_string()).unwrap_or_default(),
        source: origin.map(|origin| origin.source.clone()).unwrap_or_default(),
        agent_version: origin.map(|origin| origin.agent_version.clone()).unwrap_or_default(),
        trace_id: origin.and_then(|origin| origin.trace_id.clone()).unwrap_or_default(),
        started_unix_ms: join.started.millis(),
        updated_unix_ms: join.updated.millis(),
        diagnosis: join.state.why().map(diagnosis_for_operators),
        waiting_since_unix_ms: match &join.state {
            State::Waiting { since, .. } => Some(since.millis()),
            State::Running | State::Ready | State::Refused { .. } | State::Ended => None,
        },
        reached: join
            .reached
            .iter()
            .map(|(phase, at)| v1::Reached { phase: phase_to_wire(*phase).into(), at_unix_ms: at.millis() })
            .collect(),
        decision: join.decision.as_ref().map(decided).unwrap_or_default(),
    }
}

/// A join that waits for its turn since then; `known` is what the record has of it, from
/// an attempt before.
#[must_use]
pub fn queued_to_wire(
    join: JoinId,
    origin: &Origin,
    since: Timestamp,
    known: Option<&JoinRecord>,
) -> v1::Join {
    let mut record = known.cloned().unwrap_or_else(|| JoinRecord::begin(join, since));
    record.origin = Some(origin.clone());
    record.phase = Phase::Initialization;
    record.updated = since;
    record.state = State::Running;
    v1::Join {
        state: QUEUED.to_owned(),
        waiting_since_unix_ms: Some(since.millis()),
        ..join_to_wire(&record)
    }
}

/// The state of a join that no record has: it waits for its turn at one server.
pub const QUEUED: &str = "Queued";

/// The spans of a join, drawn.
#[must_use]
pub fn seen_spans_to_wire(trace: [u8; 16], waterfall: &Waterfall, left_out: u32) -> v1::ShowSpansResponse {
    v1::ShowSpansResponse {
        is_kept: true,
        trace_id: hex(&trace),
        spans: waterfall.spans.iter().map(span_to_wire).collect(),
        left_out,
        agent_ahead_us: waterfall.agent_ahead_micros,
    }
}

fn span_to_wire(span: &SeenSpan) -> v1::JoinSpan {
    let micros = |since_1970: Duration| i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
    v1::JoinSpan {
        span_id: hex(&span.id),
        parent_span_id: span.parent.map(|id| hex(&id)).unwrap_or_default(),
        side: span.side.as_str().to_owned(),
        kind: span.kind.as_str().to_owned(),
        name: span.name.to_owned(),
        began_unix_us: micros(span.began),
        ended_unix_us: span.ended.map(micros),
        outcome: span.outcome.unwrap_or_default().to_owned(),
        code: span.code.map(|code| code.as_str().to_owned()).unwrap_or_default(),
        status: span.status.unwrap_or_default().to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Approved { by } => format!("approved by {by}"),
        Decision::Denied { by, reason } if reason.is_empty() => format!("denied by {by}"),
        Decision::Denied { by, reason } => format!("denied by {by}: {reason}"),
    }
}

/// An audit event.
#[must_use]
pub fn event_to_wire(entry: &Entry) -> v1::Event {
    let (kind, values, why) = told(&entry.event);
    v1::Event {
        sequence: entry.sequence,
        at_unix_ms: entry.at.millis(),
        kind: kind.to_owned(),
        node_name: entry.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        values: values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        diagnosis: why.map(diagnosis_for_operators),
    }
}

type Told<'a> = (&'static str, Vec<(&'static str, String)>, Option<&'a Diagnosis>);

fn told(event: &Event) -> Told<'_> {
    match event {
        Event::Redeemed { origin, key } => (
            "redeemed",
            vec![
                ("token", origin.token.to_string()),
                ("source", origin.source.clone()),
                ("key", key.to_string()),
            ],
            None,
        ),
        Event::Waiting { why } => ("waiting", Vec::new(), Some(why)),
        Event::Refused { why, .. } => ("refused", Vec::new(), Some(why)),
        Event::GaveUp { why } => ("gaveUp", Vec::new(), Some(why)),
        Event::Approved { by } => ("approved", vec![("by", by.clone())], None),
        Event::Denied { by, reason } => {
            ("denied", vec![("by", by.clone()), ("reason", reason.clone())], None)
        }
        Event::Authorized { machine, key, serial, not_before, not_after, renewal } => (
            "authorized",
            vec![
                ("machine", machine.to_string()),
                ("key", key.to_string()),
                ("serial", serial.clone().unwrap_or_else(|| "the signer's choice".to_owned())),
                ("notBefore", not_before.to_string()),
                ("notAfter", not_after.to_string()),
                ("renewal", renewal.to_string()),
            ],
            None,
        ),
        Event::Issued { serial, not_before, not_after } => (
            "issued",
            vec![
                ("serial", serial.clone()),
                ("notBefore", not_before.to_string()),
                ("notAfter", not_after.to_string()),
            ],
            None,
        ),
        Event::Configured { profile } => ("configured", vec![("profile", profile.to_string())], None),
        Event::Registered => ("registered", Vec::new(), None),
        Event::Ready => ("ready", Vec::new(), None),
        Event::NotReady { why } => ("notReady", Vec::new(), Some(why)),
        Event::Banned { by, reason } => {
            ("banned", vec![("by", by.clone()), ("reason", reason.clone())], None)
        }
        Event::Unbanned { by } => ("unbanned", vec![("by", by.clone())], None),
        Event::Left => ("left", Vec::new(), None),
        Event::Forgotten { by } => ("forgotten", vec![("by", by.clone())], None),
    }
}

/// A node as it stands, with what its machine can once that is known.
#[must_use]
pub fn node_to_wire(node: &NodeRecord, ban: Option<&Ban>, facts: Option<&HostFacts>) -> v1::Node {
    let quantities = |resources: berth_domain::facts::Resources| {
        resources.into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect()
    };
    v1::Node {
        name: node.identity.name.to_string(),
        pool: node.identity.pool.to_string(),
        readiness: node.readiness.as_str().to_owned(),
        diagnosis: match &node.readiness {
            Readiness::NotReady { why } => Some(diagnosis_for_operators(why)),
            Readiness::Bound | Readiness::Registered | Readiness::Ready => None,
        },
        join_id: node.join.to_string(),
        machine_id: node.machine.to_string(),
        labels: labels_to_wire(&node.labels),
        taints: node.taints.iter().map(ToString::to_string).collect(),
        certificate_serial: node.certificate.serial.clone().unwrap_or_default(),
        certificate_not_before_unix_ms: node.certificate.not_before.millis(),
        certificate_not_after_unix_ms: node.certificate.not_after.millis(),
        last_seen_unix_ms: node.last_seen.millis(),
        ban: ban.map(|ban| v1::Ban {
            by: ban.by.clone(),
            reason: ban.reason.clone(),
            at_unix_ms: ban.at.millis(),
        }),
        capacity: facts.map(|facts| quantities(capacity(facts))).unwrap_or_default(),
        allocatable: facts
            .map(|facts| quantities(allocatable(facts, &Reserved::default())))
            .unwrap_or_default(),
    }
}
