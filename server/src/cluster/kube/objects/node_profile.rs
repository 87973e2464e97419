//! `NodeProfile`: what the nodes of a pool are told, named by the pool; the one
//! called `default` is for every pool without its own.
#![expect(unreachable_pub, reason = "KubeSchema repeats the struct where nobody can reach it")]

use berth_domain::labels::Labels;
use berth_domain::pods::PodNetwork;
use berth_domain::profile::KubeletSettings;
use berth_domain::timestamp::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{self, Condition, condition};
use super::schema;
use super::token::TokenTaint;

/// The settings of one pool, laid over the server's own.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "NodeProfile",
    status = "NodeProfileStatus",
    derive = "PartialEq",
    shortname = "np",
    category = "berth",
    doc = "What the nodes of a pool are told, named by the pool.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63")
        .message("a NodeProfile is named by its pool: at most 63 of a-z, 0-9 and '-'"),
    printcolumn(name = "Approval", type_ = "boolean", json_path = ".spec.approval"),
    printcolumn(name = "Accepted", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeProfileSpec {
    /// Fields of a KubeletConfiguration (kubelet.config.k8s.io/v1beta1), laid over
    /// the server's. Settings that open the kubelet are refused.
    #[serde(default, skip_serializing_if = "KubeletSettings::is_empty")]
    #[schemars(schema_with = "schema::open")]
    pub kubelet: KubeletSettings,
    /// Labels that every Node of the pool gets, unless its token says otherwise.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Labels,
    /// Taints that every Node of the pool gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub taints: Vec<TokenTaint>,
    /// Whether a person must approve each join into the pool.
    #[serde(default)]
    pub approval: bool,
    /// URLs of the API servers that its kubelets use.
    #[serde(default, rename = "apiEndpoints", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub api_endpoints: Vec<String>,
    /// Addresses of the cluster's DNS.
    #[serde(default, rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub cluster_dns: Vec<String>,
    /// The cluster's DNS domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub cluster_domain: Option<String>,
    /// Who makes the network of pods: an add-on (`None`), or Berth (`Bridge`): a bridge
    /// on each node and routes between them, for clusters on one network.
    #[serde(default, rename = "podNetwork", skip_serializing_if = "PodNetwork::is_none")]
    #[schemars(schema_with = "schema::pod_network")]
    pub pod_network: PodNetwork,
}

/// Whether the profile is in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProfileStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl NodeProfile {
    /// Its status: in use, or why not.
    #[must_use]
    pub fn judged(&self, problem: Option<&str>, now: Timestamp) -> NodeProfileStatus {
        let mut status = self.status.clone().unwrap_or_default();
        status.observed_generation = self.metadata.generation;
        let mut accepted = match problem {
            None => condition("Accepted", true, now, "Accepted", ""),
            Some(problem) => condition("Accepted", false, now, "Refused", problem),
        };
        accepted.observed_generation = self.metadata.generation;
        conditions::set(&mut status.conditions, accepted);
        status
    }
}
