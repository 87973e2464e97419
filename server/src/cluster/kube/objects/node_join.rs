//! `NodeJoin`: one machine's way into the cluster. Named after its node as long as
//! it holds the name, after its join otherwise: creating it under the node's name
//! is what binds the name, and the API server lets that happen once.
#![expect(unreachable_pub, reason = "KubeSchema repeats the struct where nobody can reach it")]

use std::collections::BTreeMap;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;
use berth_domain::identity::{MachineId, SpkiHash};
use berth_domain::join::{Decision, Event, JoinId, Origin, State};
use berth_domain::labels::Labels;
use berth_domain::name::{NodeName, PoolName};
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Condition;
use super::token::TokenTaint;
use super::{schema, text};

/// What was granted to the join, and what people said about it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "NodeJoin",
    status = "NodeJoinStatus",
    derive = "PartialEq",
    shortname = "nj",
    category = "berth",
    doc = "One machine's way into the cluster. Delete it to free its node's name.",
    validation = Rule::new("has(self.spec.node) || self.metadata.name == self.spec.joinID")
        .message("a NodeJoin that holds no node's name is named by its join"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Code", type_ = "string", json_path = ".status.code"),
    printcolumn(name = "Age", type_ = "date", json_path = ".spec.started"),
    printcolumn(name = "Join", type_ = "string", json_path = ".spec.joinID", priority = "1"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.node.pool", priority = "1"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.origin.source", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1")
)]
#[x_kube(
    validation = Rule::new("!has(oldSelf.node) || (has(self.node) && self.node.machine == oldSelf.node.machine)")
        .message("a name that is bound stays its machine's; delete the NodeJoin to free it"),
    validation = Rule::new("has(self.node) || self.joinID == oldSelf.joinID")
        .message("joinID is said once"),
    validation = Rule::new("self.joinID != oldSelf.joinID || !has(oldSelf.approval) || (has(self.approval) && self.approval == oldSelf.approval)")
        .message("a join is decided once")
)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
#[serde(rename_all = "camelCase")]
pub struct NodeJoinSpec {
    /// Which join.
    #[serde(rename = "joinID")]
    #[schemars(schema_with = "schema::join_id")]
    pub join_id: JoinId,
    /// When it was first heard of.
    #[schemars(schema_with = "schema::moment")]
    pub started: Timestamp,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_origin")]
    pub origin: Option<Origin>,
    /// The name that it holds, and what was granted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// A person's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// What was recorded before it could be seen, a line of JSON each; the status takes it
    /// into account up to its `taken`.
    #[serde(default, with = "text::lines", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::events")]
    pub events: Vec<NumberedEvent>,
}

/// The holder of a node's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// The pool whose profile it gets.
    #[serde(default)]
    #[schemars(schema_with = "schema::pool")]
    pub pool: PoolName,
    /// The machine: SHA-256 of its own key.
    #[schemars(schema_with = "schema::digest")]
    pub machine: MachineId,
    /// The key in use.
    #[schemars(schema_with = "schema::digest")]
    pub key: SpkiHash,
    /// A renewed key that was not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_digest")]
    pub next_key: Option<SpkiHash>,
    /// Labels that the Node gets.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Labels,
    /// Taints that the Node gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<TokenTaint>,
    /// The newest certificate.
    #[schemars(schema_with = "schema::certificate")]
    pub certificate: CertificateTerms,
    /// When certificates were authorized, within the last hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::moments")]
    pub issued: Vec<Timestamp>,
}

/// A person's word on a join that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Whether it may go on.
    pub decision: ApprovalDecision,
    /// Who says so.
    #[schemars(length(min = 1, max = 512))]
    pub by: String,
    /// In which words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// Whether a join may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalDecision {
    /// It may.
    Approved,
    /// It may not.
    Denied,
}

/// An event of a join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinEvent {
    /// When, by the clock of the server that recorded it.
    pub at: Timestamp,
    /// Which node, once a name is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that stands in the spec until the status has taken it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberedEvent {
    /// Its place among those of the spec.
    pub number: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: JoinEvent,
}

/// An event as the status tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToldEvent {
    /// The spec has it, under this number.
    InSpec(i64),
    /// What happened.
    Whole(JoinEvent),
}

/// How a join stands. Until it is written, the API server says the default: who holds a
/// name was authorized, and nothing is known to stop it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic", "default" = unwritten()))]
#[serde(rename_all = "camelCase")]
pub struct NodeJoinStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The join that this speaks of: the name may have passed to a newer one of
    /// the same machine. None as long as it is the default.
    #[serde(default, rename = "joinID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_join_id")]
    pub join_id: Option<JoinId>,
    /// The last number among the spec's events that this includes.
    #[serde(default)]
    pub taken: i64,
    /// The node's name, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_name")]
    pub node: Option<NodeName>,
    /// The phase it is in, or ended in.
    #[schemars(schema_with = "schema::phase")]
    pub phase: Phase,
    /// `Running`, `Waiting`, `Ready`, `Refused` or `Ended`.
    #[schemars(schema_with = "state")]
    pub state: String,
    /// Why it waits or was refused: a code of docs/diagnosis.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub code: Option<String>,
    /// The cause in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Since when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub since: Option<Timestamp>,
    /// The same cause with its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_open")]
    pub diagnosis: Option<Diagnosis>,
    /// A person's word, as it was taken into account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_open")]
    pub decision: Option<Decision>,
    /// When each phase's effect was recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::reached")]
    pub reached: BTreeMap<Phase, Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub updated: Option<Timestamp>,
    /// How its node stands: `Bound`, `Registered`, `Ready` or `NotReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "readiness")]
    pub readiness: Option<String>,
    /// Why its node is NotReady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_open")]
    pub not_ready: Option<Diagnosis>,
    /// When its agent was last heard; written along with other changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub last_seen: Option<Timestamp>,
    /// What its survey found: JSON, gzip, base64.
    #[serde(default, with = "text::packed", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_packed")]
    pub facts: Option<HostFacts>,
    /// `Ready`, and `Approved` where a person was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The newest events, a line of JSON each, in the order in which they became known; of
    /// those that the spec has, their number.
    #[serde(default, with = "text::lines", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::events")]
    pub events: Vec<ToldEvent>,
}

/// A status before anybody wrote one.
fn unwritten() -> serde_json::Value {
    serde_json::json!({ "phase": Phase::Authorization, "state": State::Running.as_str() })
}

fn state(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["Running", "Waiting", "Ready", "Refused", "Ended"] })
}

fn readiness(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "enum": ["Bound", "Registered", "Ready", "NotReady"], "nullable": true
    })
}
