//! One Node as the registry keeps it, and the pure rules over it: what is in its
//! way, and what a join puts on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::JoinId;
use berth_domain::labels::JOINING_TAINT;
use berth_domain::node::{KUBELET_PORT, NodeRecord};
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoute;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

/// Which join made the Node what it is.
pub const JOIN_ANNOTATION: &str = "berth.dev/join";

/// The W3C trace id of that join.
pub const TRACE_ANNOTATION: &str = "berth.dev/trace-id";

/// Berth's mark on a Node that leaves: it takes no new pods, and then it is deleted.
pub const LEAVING_ANNOTATION: &str = "berth.dev/leaving";

/// Waits for a cloud controller manager (k8s.io/cloud-provider/api).
const CLOUD_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// The kind of address by which nodes of one network reach each other.
const INTERNAL: &str = "InternalIP";

/// Put on and taken away as the Ready condition says (k/k pkg/controller/nodelifecycle).
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";

/// The kubelet's conditions of pressure, and what is short (k/k pkg/kubelet/eviction).
const PRESSURES: [(&str, &str); 3] =
    [("DiskPressure", "disk space"), ("MemoryPressure", "memory"), ("PIDPressure", "process ids")];

/// What of a Node the registry looks at. The rest, images and their sizes above
/// all, would fill the memory of every replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SeenNode {
    pub(super) name: String,
    pub(super) uid: String,
    version: String,
    join: Option<String>,
    leaving: bool,
    provider_id: Option<String>,
    taints: Vec<Taint>,
    conditions: Vec<Condition>,
    addresses: Vec<IpAddr>,
    internal: Vec<IpAddr>,
    pods: Vec<IpNet>,
    kubelet: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Condition {
    kind: String,
    holds: bool,
    words: String,
}

impl SeenNode {
    pub(super) fn of(node: Node) -> Self {
        let (metadata, spec, status) =
            (node.metadata, node.spec.unwrap_or_default(), node.status.unwrap_or_default());
        let annotations = metadata.annotations.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default().into_iter().map(|condition| Condition {
            holds: condition.status == "True",
            words: words(condition.reason, condition.message),
            kind: condition.type_,
        });
        // Those of other kinds are names.
        let said = status.addresses.unwrap_or_default();
        let internal = said.iter().filter(|address| address.type_ == INTERNAL);
        let internal = internal.filter_map(|address| address.address.parse().ok()).collect();
        let addresses = said.iter().filter_map(|address| address.address.parse().ok());
        let pods = spec.pod_cidrs.into_iter().flatten().filter_map(|range| range.parse().ok());
        let kubelet = status.daemon_endpoints.and_then(|endpoints| endpoints.kubelet_endpoint);
        let kubelet = kubelet.and_then(|endpoint| u16::try_from(endpoint.port).ok());
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            join: annotations.get(JOIN_ANNOTATION).cloned(),
            leaving: spec.unschedulable == Some(true) && annotations.contains_key(LEAVING_ANNOTATION),
            provider_id: spec.provider_id.filter(|id| !id.is_empty()),
            taints: spec.taints.unwrap_or_default(),
            conditions: conditions.collect(),
            addresses: addresses.collect(),
            internal,
            pods: pods.collect(),
            kubelet,
        }
    }

    /// Addresses that its kubelet has reported.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The ranges of its pods' addresses, once the cluster has given it some.
    pub(super) fn pods(&self) -> &[IpNet] {
        &self.pods
    }

    /// Where its pods are for other nodes.
    pub(super) fn routes(&self) -> impl Iterator<Item = PodRoute> {
        let via = |range: &IpNet| {
            let mut own = self.internal.iter();
            own.find_map(|address| PodRoute::checked(*range, *address))
        };
        self.pods.iter().filter_map(via)
    }

    /// Whether the other is where this one is, and its pods too.
    pub(super) fn is_placed_as(&self, other: &Self) -> bool {
        self.internal == other.internal && self.pods == other.pods
    }

    /// Whether a join of Berth's made it what it is.
    pub(super) const fn has_joined(&self) -> bool {
        self.join.is_some()
    }

    /// Whether it takes no new pods, because it leaves.
    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Where its kubelet listens.
    pub(super) fn kubelet_port(&self) -> u16 {
        self.kubelet.unwrap_or(KUBELET_PORT)
    }

    /// What keeps pods from this Node, by its own conditions and taints.
    pub(super) fn in_the_way(&self) -> Option<Diagnosis> {
        let not_ready = |condition: &str| {
            Diagnosis::new(Code::NodeNotReady, Phase::Registration)
                .with("name", &self.name)
                .with("condition", condition)
        };
        let condition = |kind: &str| self.conditions.iter().find(|condition| condition.kind == kind);
        match condition("Ready") {
            None => return Some(not_ready("its kubelet has not said how it stands")),
            Some(ready) if !ready.holds => return Some(not_ready(&ready.words)),
            Some(_) => {}
        }
        if let Some(network) = condition("NetworkUnavailable").filter(|network| network.holds) {
            return Some(not_ready(&network.words));
        }
        // The Node stays Ready under pressure, and takes no pods.
        let pressed = PRESSURES.iter().find_map(|(kind, resource)| {
            condition(kind).filter(|condition| condition.holds).map(|condition| (resource, condition))
        });
        if let Some((resource, condition)) = pressed {
            return Some(
                Diagnosis::new(Code::NodeUnderPressure, Phase::Registration)
                    .with("name", &self.name)
                    .with("resource", resource)
                    .with("figures", &condition.words),
            );
        }
        let taint = |key: &str| self.taints.iter().find(|taint| taint.key == key);
        if let Some(cloud) = taint(CLOUD_TAINT) {
            return Some(
                Diagnosis::new(Code::CloudProviderPending, Phase::Registration)
                    .with("name", &self.name)
                    .with("taint", format!("{}:{}", cloud.key, cloud.effect)),
            );
        }
        // Pods are kept away as long as it is there; and whoever writes between its
        // going and coming meets a conflict.
        let stale = taint(NOT_READY_TAINT)?;
        let taken_away = "kube-controller-manager takes it away once the node is Ready";
        Some(not_ready(&format!("it has the taint {}:{}; {taken_away}", stale.key, stale.effect)))
    }

    /// Whether this join has still to put something on the Node. What a join has
    /// put there once is the operators' from then on.
    pub(super) fn is_due(&self, join: JoinId) -> bool {
        self.join.as_deref() != Some(join.to_string().as_str())
            || self.taints.iter().any(|taint| taint.key == JOINING_TAINT)
    }

    /// What a join puts on the Node, for server-side apply: of this very Node (by
    /// its uid), as it was last seen (by its resource version).
    ///
    /// The list of taints is atomic to server-side apply
    /// (k8s.io/api/core/v1 NodeSpec): it is sent whole, as the one that was seen
    /// with what changes, or applying would take away what others have put there.
    pub(super) fn applied(&self, node: &NodeRecord, trace: Option<&str>, provider_id: Option<&str>) -> Value {
        let mut taints: Vec<Taint> =
            self.taints.iter().filter(|taint| taint.key != JOINING_TAINT).cloned().collect();
        for wanted in &node.taints {
            let effect = wanted.effect.as_str();
            if !taints.iter().any(|taint| taint.key == wanted.key.as_str() && taint.effect == effect) {
                taints.push(Taint {
                    key: wanted.key.to_string(),
                    value: Some(wanted.value.to_string()).filter(|value| !value.is_empty()),
                    effect: effect.to_owned(),
                    time_added: None,
                });
            }
        }
        let mut annotations = BTreeMap::from([(JOIN_ANNOTATION, node.join.to_string())]);
        if let Some(trace) = trace {
            annotations.insert(TRACE_ANNOTATION, trace.to_owned());
        }
        let mut spec = json!({ "taints": taints });
        // It may be set once and never changed (k/k pkg/apis/core/validation).
        if let (Some(id), Some(spec)) = (self.provider_id.as_deref().or(provider_id), spec.as_object_mut()) {
            spec.insert("providerID".to_owned(), id.into());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "uid": self.uid,
                "resourceVersion": self.version,
                "labels": node.labels,
                "annotations": annotations,
            },
            "spec": spec,
        })
    }
}

fn words(reason: Option<String>, message: Option<String>) -> String {
    let parts = [reason, message].into_iter().flatten().filter(|part| !part.is_empty());
    let words = parts.collect::<Vec<_>>().join(": ");
    if words.is_empty() { "it does not say why".to_owned() } else { words }
}

#[cfg(test)]
pub(super) mod tests;
