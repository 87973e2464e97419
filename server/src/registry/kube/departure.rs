//! A node that leaves: no new pods come to it, those on it are evicted as their
//! disruption budgets allow, and its Node is deleted. Nothing is kept between two
//! calls: each sees what is there and goes a step further.

use std::time::{Duration, Instant};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::FIELD_MANAGER;
use super::node::{LEAVING_ANNOTATION, SeenNode};
use crate::kubernetes::failure::Failure;
use crate::kubernetes::within;
use crate::ports::Manner;

/// The most pods that are looked at in one step; the rest has its turn in the next.
const MOST_PODS: u32 = 256;

/// The most that the evictions of one step may take: the agent waits for an answer.
const STEP: Duration = Duration::from_secs(4);

/// The most pods that a diagnosis names.
const MOST_NAMED: usize = 3;

/// Sees nodes off.
pub(super) struct Departure {
    client: Client,
    nodes: Api<Node>,
}

impl Departure {
    pub(super) fn new(client: Client) -> Self {
        Self { nodes: Api::all(client.clone()), client }
    }

    /// Goes a step; what the node's departure still waits for.
    pub(super) async fn step(&self, seen: &SeenNode, manner: Manner) -> Result<Option<Diagnosis>, Failure> {
        if !seen.is_leaving() {
            self.cordon(seen).await?;
        }
        if manner == Manner::Drained
            && let Some(why) = self.drain(&seen.name).await?
        {
            return Ok(Some(why));
        }
        let this = Preconditions { uid: Some(seen.uid.clone()), ..Preconditions::default() };
        let parameters = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
        match within(self.nodes.delete(&seen.name, &parameters)).await {
            // Gone, or another of its name: this one is no more.
            Ok(_) | Err(Failure::NotFound { .. } | Failure::Conflict) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Takes no new pods, and says why: what is not marked so, Berth's policy does not
    /// let it delete.
    async fn cordon(&self, seen: &SeenNode) -> Result<(), Failure> {
        let body = json!({
            // Of this very Node: another of its name is a conflict.
            "metadata": { "uid": seen.uid, "annotations": { LEAVING_ANNOTATION: "true" } },
            "spec": { "unschedulable": true },
        });
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match within(self.nodes.patch(&seen.name, &parameters, &Patch::Merge(&body))).await {
            Ok(_) | Err(Failure::NotFound { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Evicts the pods that are still there; `None` once none is.
    async fn drain(&self, node: &str) -> Result<Option<Diagnosis>, Failure> {
        let on_it = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MOST_PODS);
        let listed = within(Api::<Pod>::all(self.client.clone()).list_metadata(&on_it)).await?;
        let pods: Vec<ObjectMeta> =
            listed.items.into_iter().map(|pod| pod.metadata).filter(has_to_go).collect();
        let mut held: Option<Diagnosis> = None;
        let began = Instant::now();
        for pod in pods.iter().filter(|pod| pod.deletion_timestamp.is_none()) {
            if began.elapsed() > STEP {
                break;
            }
            match self.evict(pod).await {
                Ok(()) | Err(Failure::NotFound { .. } | Failure::Conflict) => {}
                // The others may go all the same.
                Err(Failure::Budget { message }) => {
                    held.get_or_insert_with(|| budget_reached(node, pod, &message));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(held.or_else(|| (!pods.is_empty()).then(|| ending(node, &pods))))
    }

    /// Asks one pod to go: this one, not another of its name.
    async fn evict(&self, pod: &ObjectMeta) -> Result<(), Failure> {
        let this = Preconditions { uid: pod.uid.clone(), ..Preconditions::default() };
        let parameters = EvictParams {
            delete_options: Some(DeleteParams { preconditions: Some(this), ..DeleteParams::default() }),
            ..EvictParams::default()
        };
        let pods = Api::<Pod>::namespaced(self.client.clone(), pod.namespace.as_deref().unwrap_or_default());
        within(pods.evict(pod.name.as_deref().unwrap_or_default(), &parameters)).await.map(drop)
    }
}

/// As `kubectl drain` has it: a DaemonSet's pods belong to the node and end with it, and
/// a mirror pod is the kubelet's own.
fn has_to_go(pod: &ObjectMeta) -> bool {
    let owners = pod.owner_references.iter().flatten();
    let of_the_node = { owners }.any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    let is_mirror = pod.annotations.iter().flatten().any(|(key, _)| key == MIRROR);
    !of_the_node && !is_mirror
}

fn named(pod: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.namespace), part(&pod.name))
}

fn budget_reached(node: &str, pod: &ObjectMeta, message: &str) -> Diagnosis {
    Diagnosis::new(Code::DisruptionBudgetReached, Phase::Registration)
        .with("name", node)
        .with("pod", named(pod))
        .with("namespace", pod.namespace.as_deref().unwrap_or_default())
        .with("message", message)
}

fn ending(node: &str, pods: &[ObjectMeta]) -> Diagnosis {
    let mut names: Vec<String> = pods.iter().take(MOST_NAMED).map(named).collect();
    if pods.len() > MOST_NAMED {
        names.push(format!("{} more", pods.len().saturating_sub(MOST_NAMED)));
    }
    Diagnosis::new(Code::PodsEnding, Phase::Registration)
        .with("name", node)
        .with("count", pods.len())
        .with("pods", names.join(", "))
}

/// The kubelet's mark on pods that it has from a file (k/k pkg/kubelet/types).
const MIRROR: &str = "kubernetes.io/config.mirror";

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn pod(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn owned(kind: &str) -> ObjectMeta {
        let owner =
            OwnerReference { kind: kind.to_owned(), controller: Some(true), ..OwnerReference::default() };
        ObjectMeta { owner_references: Some(vec![owner]), ..pod("p") }
    }

    #[test]
    fn the_node_s_own_pods_do_not_keep_it() {
        let mirror = [(MIRROR.to_owned(), "x".to_owned())].into();
        assert!(!has_to_go(&ObjectMeta { annotations: Some(mirror), ..pod("static") }));
        assert!(!has_to_go(&owned("DaemonSet")));
        assert!(has_to_go(&owned("ReplicaSet")));
        assert!(has_to_go(&pod("bare")));
    }

    #[test]
    fn pods_that_end_are_named_as_far_as_a_person_reads() {
        let pods: Vec<ObjectMeta> = ["a", "b", "c", "d", "e"].map(pod).into();
        let why = ending("n1", &pods);
        assert_eq!(why.value("pods"), Some("default/a, default/b, default/c, 2 more"));
        assert_eq!(why.value("count"), Some("5"));
    }
}
