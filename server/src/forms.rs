//! What operators see as JSON: one form for the commands' `-o json` and for the
//! console. Its fields stay.

use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_proto::admin::v1;
use berth_proto::join::v1 as join_v1;
use serde_json::{Value, json};

/// A join as it stands.
pub(crate) fn join(join: &v1::Join) -> Value {
    let reached =
        |reached: &v1::Reached| json!({ "phase": phase(reached.phase), "at": exact(reached.at_unix_ms) });
    json!({
        "id": join.id,
        "state": join.state,
        "phase": phase(join.phase),
        "node": maybe(&join.node_name),
        "token": maybe(&join.token_id),
        "source": maybe(&join.source),
        "agentVersion": maybe(&join.agent_version),
        "traceId": maybe(&join.trace_id),
        "started": exact(join.started_unix_ms),
        "updated": exact(join.updated_unix_ms),
        "waitingSince": join.waiting_since_unix_ms.map(exact),
        "diagnosis": join.diagnosis.as_ref().map(diagnosis),
        "decision": maybe(&join.decision),
        "reached": join.reached.iter().map(reached).collect::<Vec<_>>(),
    })
}

/// A join with its events.
pub(crate) fn explained(of: &v1::Join, events: &[v1::Event]) -> Value {
    json!({ "join": join(of), "events": events.iter().map(event).collect::<Vec<_>>() })
}

/// The spans of a join.
pub(crate) fn spans(of: &v1::ShowSpansResponse) -> Value {
    let span = |span: &v1::JoinSpan| {
        json!({
            "id": span.span_id,
            "parent": maybe(&span.parent_span_id),
            "side": span.side,
            "kind": span.kind,
            "name": span.name,
            "beganMicros": span.began_unix_us,
            "endedMicros": span.ended_unix_us,
            "outcome": maybe(&span.outcome),
            "code": maybe(&span.code),
            "status": maybe(&span.status),
        })
    };
    json!({
        "isKept": of.is_kept,
        "traceId": maybe(&of.trace_id),
        "spans": of.spans.iter().map(span).collect::<Vec<_>>(),
        "leftOut": of.left_out,
        "agentAheadMicros": of.agent_ahead_us,
    })
}

/// An audit event.
pub(crate) fn event(event: &v1::Event) -> Value {
    json!({
        "sequence": event.sequence,
        "at": exact(event.at_unix_ms),
        "kind": event.kind,
        "node": maybe(&event.node_name),
        "values": event.values,
        "diagnosis": event.diagnosis.as_ref().map(diagnosis),
    })
}

/// A node as it stands.
pub(crate) fn node(node: &v1::Node) -> Value {
    let ban = |ban: &v1::Ban| json!({ "by": ban.by, "reason": ban.reason, "at": moment(ban.at_unix_ms).to_string() });
    json!({
        "name": node.name,
        "pool": node.pool,
        "readiness": node.readiness,
        "diagnosis": node.diagnosis.as_ref().map(diagnosis),
        "join": node.join_id,
        "machine": node.machine_id,
        "labels": node.labels,
        "taints": node.taints,
        "certificateSerial": node.certificate_serial,
        "certificateNotBefore": moment(node.certificate_not_before_unix_ms).to_string(),
        "certificateNotAfter": moment(node.certificate_not_after_unix_ms).to_string(),
        "lastSeen": moment(node.last_seen_unix_ms).to_string(),
        "ban": node.ban.as_ref().map(ban),
        "capacity": node.capacity,
        "allocatable": node.allocatable,
    })
}

/// A node with its machine's facts.
///
/// # Errors
/// The facts have no JSON form; that would be a bug.
pub(crate) fn node_with_facts(of: &v1::Node, facts: Option<&HostFacts>) -> serde_json::Result<Value> {
    let mut shown = node(of);
    let facts = serde_json::to_value(facts)?;
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("facts".to_owned(), facts);
    }
    Ok(shown)
}

/// A token without its secret.
pub(crate) fn token(token: &v1::Token) -> Value {
    let binding = token.binding.clone().unwrap_or_default();
    json!({
        "id": token.id,
        "names": binding.names,
        "pool": binding.pool,
        "uses": binding.uses,
        "networks": binding.networks,
        "labels": binding.labels,
        "taints": binding.taints,
        "approval": binding.approval,
        "description": token.description,
        "created": moment(token.created_unix_ms).to_string(),
        "createdBy": token.created_by,
        "expires": moment(token.expires_unix_ms).to_string(),
        "revoked": token.revoked_unix_ms.map(|at| moment(at).to_string()),
        "revokedBy": maybe(&token.revoked_by),
        "usedBy": token.used_by,
    })
}

/// A diagnosis for programs: the agent's own form, with what only operators see.
pub(crate) fn diagnosis(why: &join_v1::Diagnosis) -> Value {
    json!({
        "code": why.code,
        "phase": phase(why.phase),
        "cause": why.cause,
        "mend": why.mend,
        "values": why.values,
        "docs": docs(why),
        "retryAfterMillis": why.retry_after_ms,
    })
}

/// Where the documentation explains a code.
pub(crate) fn docs(why: &join_v1::Diagnosis) -> String {
    format!("docs/diagnosis.md#{}", why.code.to_ascii_lowercase())
}

/// A phase's name.
pub(crate) fn phase(wire: i32) -> &'static str {
    berth_proto::phase_from_wire(wire).map_or("-", Phase::as_str)
}

/// A moment of the wire.
pub(crate) fn moment(unix_ms: i64) -> Timestamp {
    Timestamp::from_millis(unix_ms)
}

/// A moment of a join, RFC 3339 with milliseconds: a whole phase may take a few.
fn exact(unix_ms: i64) -> String {
    humantime::format_rfc3339_millis(moment(unix_ms).into()).to_string()
}

/// A text that may be absent, for programs.
pub(crate) fn maybe(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
