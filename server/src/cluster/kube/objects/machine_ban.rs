//! `MachineBan`: a machine that may not come back, named by its id. Deleting it
//! lifts the ban.
#![expect(unreachable_pub, reason = "KubeSchema repeats the struct where nobody can reach it")]

use berth_domain::identity::MachineId;
use berth_domain::join::JoinId;
use berth_domain::name::NodeName;
use berth_domain::node::Ban;
use berth_domain::timestamp::Timestamp;
use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};

use super::schema;

/// Who banned the machine, and why.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "MachineBan",
    derive = "PartialEq",
    shortname = "mb",
    category = "berth",
    doc = "A machine that may not join or come back, named by its machine id.",
    validation = Rule::new("self.metadata.name.matches('^[0-9a-f]{64}$')")
        .message("a MachineBan is named by the machine's id, 64 hexadecimal digits (spec.node.machine of its NodeJoin)"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a ban is not changed; delete it and make another"))]
#[serde(rename_all = "camelCase")]
pub struct MachineBanSpec {
    /// The node it was.
    #[schemars(schema_with = "schema::name")]
    pub node: NodeName,
    /// Who said so.
    #[schemars(length(max = 512))]
    pub by: String,
    /// In which words.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// When; the object's own age counts if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub at: Option<Timestamp>,
    /// The join it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_join_id")]
    pub join: Option<JoinId>,
}

impl MachineBan {
    /// The object of a ban.
    #[must_use]
    pub fn of(ban: &Ban, join: JoinId) -> Self {
        let spec = MachineBanSpec {
            node: ban.name.clone(),
            by: ban.by.clone(),
            reason: ban.reason.clone(),
            at: Some(ban.at),
            join: Some(join),
        };
        Self::new(&ban.machine.to_hex(), spec)
    }

    /// The ban, if the object is named by a machine.
    #[must_use]
    pub fn ban(&self) -> Option<Ban> {
        let machine: MachineId = self.name_any().parse().ok()?;
        Some(Ban {
            machine,
            name: self.spec.node.clone(),
            by: self.spec.by.clone(),
            reason: self.spec.reason.clone(),
            at: self.spec.at.unwrap_or_else(|| super::born(&self.metadata)),
        })
    }
}
