//! `JoinToken`: a token with its binding, its verifier, and the uses that were
//! reserved. Minted by the server, or by `kubectl apply` of a spec without
//! `minted`; then a server mints it and keeps the secret in a Secret beside it.
#![expect(unreachable_pub, reason = "KubeSchema repeats the struct where nobody can reach it")]

use std::time::Duration;

use berth_domain::join::JoinId;
use berth_domain::labels::{LabelKey, LabelValue, Labels, Taint, TaintEffect};
use berth_domain::name::{NamePattern, PoolName};
use berth_domain::proof::Verifier;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Network, Revocation, TokenBinding, TokenId, TokenRecord, Use};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{self, Condition, condition};
use super::schema;
use super::token_uses::{self, TokenUse};

/// The most uses of one token on this backend: all of them stand in one object.
pub const MOST_USES: u32 = 1_000;

/// What a machine that joins by this token may become.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "JoinToken",
    namespaced,
    status = "JoinTokenStatus",
    derive = "PartialEq",
    shortname = "jt",
    category = "berth",
    doc = "A token by which machines join the cluster.",
    validation = Rule::new("!has(self.spec.minted) || self.metadata.name == self.spec.minted.tokenID")
        .message("a token that a server minted is named by its id"),
    validation = Rule::new("has(self.spec.minted) || !self.metadata.name.matches('^[a-z0-9]{6}$')")
        .message("names of six letters and digits are kept for kubeadm's tokens; choose another"),
    printcolumn(name = "Token", type_ = "string", json_path = ".status.tokenID"),
    printcolumn(name = "Names", type_ = "string", json_path = ".spec.names"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Uses", type_ = "integer", json_path = ".spec.uses"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.usedCount"),
    printcolumn(name = "Usable", type_ = "string", json_path = r#".status.conditions[?(@.type=="Usable")].status"#),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expires"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName", priority = "1"),
    printcolumn(name = "Description", type_ = "string", json_path = ".spec.description", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.ttl) != has(self.expires)")
        .message("say either ttl or expires"),
    validation = Rule::new("has(self.minted) == has(oldSelf.minted) && (!has(self.minted) || self.minted == oldSelf.minted)")
        .message("minted is said once, by the server that made the token")
)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenSpec {
    /// The names it may give; `*` stands for any run of characters.
    #[serde(default = "NamePattern::any")]
    #[schemars(schema_with = "schema::name_pattern")]
    pub names: NamePattern,
    /// The pool its nodes will be in.
    #[serde(default)]
    #[schemars(schema_with = "schema::pool")]
    pub pool: PoolName,
    /// How many machines may use it.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub uses: u32,
    /// Where joins may come from (CIDR); empty means anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::networks")]
    pub networks: Vec<Network>,
    /// Labels that the Node gets.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Labels,
    /// Taints that the Node gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub taints: Vec<TokenTaint>,
    /// Whether a person must approve each join.
    #[serde(default)]
    pub approval: bool,
    /// A person's words about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub description: String,
    /// How long it is good for from when it was made, such as `1h` or `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(s|m|h|d))+$"), length(max = 32))]
    pub ttl: Option<String>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub expires: Option<Timestamp>,
    /// Set by the server that made it; leave it out when you apply one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted: Option<Minted>,
}

/// What a server knows of a token that was minted. The verifier checks proofs and
/// cannot make them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Minted {
    /// The public part of the token.
    #[serde(rename = "tokenID")]
    #[schemars(schema_with = "schema::token_id")]
    pub token_id: TokenId,
    /// What checks its proof.
    #[schemars(schema_with = "verifier")]
    pub verifier: Verifier,
    /// When it was made.
    #[schemars(schema_with = "schema::moment")]
    pub created: Timestamp,
    /// Who made it.
    #[schemars(length(max = 512))]
    pub created_by: String,
}

/// A taint of a Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenTaint {
    /// The key.
    #[schemars(with = "String", length(max = 317))]
    pub key: LabelKey,
    /// The value, often empty.
    #[serde(default)]
    #[schemars(with = "String", length(max = 63))]
    pub value: LabelValue,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[schemars(schema_with = "effect")]
    pub effect: TaintEffect,
}

/// How a token stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The public part of the token.
    #[serde(default, rename = "tokenID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::token_id")]
    pub token_id: Option<TokenId>,
    /// Set when a server minted what was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted: Option<Minted>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_moment")]
    pub expires: Option<Timestamp>,
    /// The Secret that holds the token and its join command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,
    /// Who took it back, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_revocation")]
    pub revoked: Option<Revocation>,
    /// The keys that reserved a use, in order, one a line: SHA-256 of the key, and when.
    #[serde(default, with = "token_uses", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "token_uses::schema")]
    pub used: Vec<TokenUse>,
    /// How many they are.
    #[serde(default)]
    pub used_count: u32,
    /// `Minted` and `Usable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl JoinToken {
    /// A token as a server mints it.
    #[must_use]
    pub fn minted(record: &TokenRecord) -> Self {
        let binding = &record.binding;
        let spec = JoinTokenSpec {
            names: binding.names.clone(),
            pool: binding.pool.clone(),
            uses: binding.uses,
            networks: binding.networks.clone(),
            labels: binding.labels.clone(),
            taints: binding.taints.iter().map(TokenTaint::from).collect(),
            approval: binding.approval,
            description: record.description.clone(),
            ttl: None,
            expires: Some(record.expires),
            minted: Some(Minted {
                token_id: record.id.clone(),
                verifier: record.verifier.clone(),
                created: record.created,
                created_by: record.created_by.clone(),
            }),
        };
        Self::new(record.id.as_str(), spec)
    }

    /// The record, once the token was minted.
    #[must_use]
    pub fn record(&self) -> Option<TokenRecord> {
        let status = self.status.as_ref();
        let minted = self.spec.minted.as_ref().or_else(|| status?.minted.as_ref())?;
        let used = status.map(|status| status.used.as_slice()).unwrap_or_default();
        let reserved = |used: &TokenUse| Use {
            key: used.key,
            join: JoinId::of(&minted.token_id, used.key),
            at: used.at,
        };
        Some(TokenRecord {
            id: minted.token_id.clone(),
            verifier: minted.verifier.clone(),
            binding: self.binding(),
            description: self.spec.description.clone(),
            created: minted.created,
            created_by: minted.created_by.clone(),
            expires: self.expires(minted.created),
            revoked: status.and_then(|status| status.revoked.clone()),
            used: used.iter().map(reserved).collect(),
        })
    }

    /// What it is good for.
    #[must_use]
    pub fn binding(&self) -> TokenBinding {
        TokenBinding {
            names: self.spec.names.clone(),
            pool: self.spec.pool.clone(),
            uses: self.spec.uses.clamp(1, MOST_USES),
            networks: self.spec.networks.clone(),
            labels: self.spec.labels.clone(),
            taints: self.spec.taints.iter().map(Taint::from).collect(),
            approval: self.spec.approval,
        }
    }

    /// When it ends, if it was made then. A span that cannot be read ends at once:
    /// a token must never last longer than someone meant.
    #[must_use]
    pub fn expires(&self, created: Timestamp) -> Timestamp {
        match (&self.spec.expires, &self.spec.ttl) {
            (Some(expires), _) => *expires,
            (None, Some(ttl)) => created.after(humantime::parse_duration(ttl).unwrap_or(Duration::ZERO)),
            (None, None) => created,
        }
    }

    /// Its status after the record changed.
    #[must_use]
    pub fn status_of(&self, record: &TokenRecord, now: Timestamp) -> JoinTokenStatus {
        let mut status = self.status.clone().unwrap_or_default();
        status.observed_generation = self.metadata.generation;
        status.token_id = Some(record.id.clone());
        status.expires = Some(record.expires);
        status.revoked.clone_from(&record.revoked);
        status.used = record.used.iter().map(|used| TokenUse { key: used.key, at: used.at }).collect();
        status.used_count = u32::try_from(status.used.len()).unwrap_or(u32::MAX);
        let (usable, reason, message) = if let Some(revoked) = &record.revoked {
            (false, "Revoked", format!("revoked by {}", revoked.by))
        } else if now >= record.expires {
            (false, "Expired", format!("it ended at {}", record.expires))
        } else if status.used_count >= record.binding.uses {
            (false, "Spent", format!("all {} uses are reserved", record.binding.uses))
        } else {
            let left = record.binding.uses - status.used_count;
            (true, "Usable", format!("{left} of {} uses are left", record.binding.uses))
        };
        let minted = condition("Minted", true, record.created, "Minted", "");
        for mut condition in [minted, condition("Usable", usable, now, reason, message)] {
            condition.observed_generation = self.metadata.generation;
            conditions::set(&mut status.conditions, condition);
        }
        status
    }

    /// Itself with a status that says whether it is usable, if its own does not.
    #[must_use]
    pub fn judged(&self, now: Timestamp) -> Option<Self> {
        let record = self.record()?;
        let status = self.status_of(&record, now);
        let usable = |status: &JoinTokenStatus| {
            let found = status.conditions.iter().find(|condition| condition.kind == "Usable");
            found.map(|condition| (condition.status.clone(), condition.reason.clone()))
        };
        let is_said = self.status.as_ref().is_some_and(|said| usable(said) == usable(&status));
        (!is_said).then(|| Self { status: Some(status), ..self.clone() })
    }

    /// What a refusal to mint it looks like in its status.
    #[must_use]
    pub fn not_minted(&self, reason: &str, message: String, now: Timestamp) -> JoinTokenStatus {
        let mut status = self.status.clone().unwrap_or_default();
        status.observed_generation = self.metadata.generation;
        let mut condition = condition("Minted", false, now, reason, message);
        condition.observed_generation = self.metadata.generation;
        conditions::set(&mut status.conditions, condition);
        status
    }

    /// Whether its present form was refused: it waits until somebody changes it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let conditions = self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.kind == "Minted"
                && condition.status == "False"
                && condition.observed_generation == self.metadata.generation
        })
    }

    /// The Secret that holds an applied token.
    #[must_use]
    pub fn secret_name(&self) -> String {
        format!("{}-join-token", self.name_any())
    }
}

impl From<&Taint> for TokenTaint {
    fn from(taint: &Taint) -> Self {
        Self { key: taint.key.clone(), value: taint.value.clone(), effect: taint.effect }
    }
}

impl From<&TokenTaint> for Taint {
    fn from(taint: &TokenTaint) -> Self {
        Self { key: taint.key.clone(), value: taint.value.clone(), effect: taint.effect }
    }
}

const fn one() -> u32 {
    1
}

fn effect(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] })
}

fn verifier(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "required": ["client", "server"],
        "properties": {
            "client": { "type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64 },
            "server": { "type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64 }
        }
    })
}
