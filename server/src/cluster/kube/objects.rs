//! The objects of API group `berth.dev`, as people see them with kubectl, and
//! their conversions to and from the domain's records, which lose nothing.

mod conditions;
pub mod machine_ban;
pub mod node_join;
pub mod node_profile;
mod node_records;
mod schema;
mod text;
pub mod token;
mod token_uses;

use berth_domain::timestamp::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResourceExt;
use kube::api::ObjectMeta;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;

pub use conditions::Condition;
pub use machine_ban::{MachineBan, MachineBanSpec};
pub use node_join::{
    Approval, ApprovalDecision, Bound, JoinEvent, NodeJoin, NodeJoinSpec, NodeJoinStatus, NumberedEvent,
    ToldEvent,
};
pub use node_profile::{NodeProfile, NodeProfileSpec, NodeProfileStatus};
pub(in crate::cluster) use node_records::camel;
pub use node_records::{MOST_EVENTS, Story};
pub use token::{JoinToken, JoinTokenSpec, JoinTokenStatus, MOST_USES, Minted, TokenTaint};
pub use token_uses::TokenUse;

/// The API group.
pub const GROUP: &str = "berth.dev";

/// Why an object says nothing that the server can use. It is passed over, and
/// never stands in the way of others.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} {name} is malformed at {field}: {problem}; mend it with kubectl edit, or delete it")]
pub struct Malformed {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where.
    pub field: String,
    /// What is wrong there.
    pub problem: String,
}

/// Reads an object as it came from the API server. The schema in the cluster may
/// be older or newer than this program, so nothing is taken for granted.
pub fn read<K: kube::Resource<DynamicType = ()> + DeserializeOwned>(
    object: DynamicObject,
) -> Result<K, Malformed> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let malformed =
        |field: String, problem: String| Malformed { kind: K::kind(&()).into_owned(), name, field, problem };
    let whole = |DynamicObject { metadata, mut data, .. }: DynamicObject| {
        let metadata = serde_json::to_value(metadata)?;
        if let Some(fields) = data.as_object_mut() {
            fields.insert("metadata".to_owned(), metadata);
        } else {
            data = serde_json::json!({ "metadata": metadata });
        }
        Ok::<_, serde_json::Error>(data)
    };
    let value = match whole(object) {
        Ok(value) => value,
        Err(problem) => return Err(malformed("its whole".to_owned(), problem.to_string())),
    };
    serde_path_to_error::deserialize(value)
        .map_err(|error| malformed(error.path().to_string(), error.inner().to_string()))
}

/// When an object was made.
pub(in crate::cluster) fn born(metadata: &ObjectMeta) -> Timestamp {
    metadata.creation_timestamp.as_ref().map(moment).unwrap_or_default()
}

/// A moment as Kubernetes says it.
fn moment(time: &Time) -> Timestamp {
    Timestamp::from_millis(time.0.as_millisecond())
}

/// Every CRD, ready for `kubectl apply`, with the name of its file.
#[must_use]
pub fn crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("jointokens", JoinToken::crd()),
        ("nodejoins", NodeJoin::crd()),
        ("machinebans", MachineBan::crd()),
        ("nodeprofiles", NodeProfile::crd()),
    ]
}

/// All CRDs as one YAML stream.
///
/// # Errors
/// A schema has no YAML form: a mistake in this program.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut out = String::new();
    for (_, crd) in crds() {
        out.push_str("---\n");
        out.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
