//! The certificates that kubelets want to serve with and nobody has approved yet,
//! from one watch. kube-controller-manager signs these and never approves them
//! (kubernetes.io/kubelet-serving).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::NodeIdentity;
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::runtime::watcher::Event;

/// What the watch selects.
pub(super) const SELECTED: &str = "spec.signerName=kubernetes.io/kubelet-serving";

/// The requests that wait, by their object's name.
#[derive(Default)]
pub(super) struct Requests {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<String, Pending>,
    listed: Option<BTreeMap<String, Pending>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Pending {
    node: NodeName,
    since: Timestamp,
}

impl Requests {
    /// What a node's kubelet waits for.
    pub(super) fn pending(&self, node: &NodeName) -> Option<Diagnosis> {
        let state = self.state();
        let (request, pending) = state.pending.iter().find(|(_, pending)| pending.node == *node)?;
        Some(
            Diagnosis::new(Code::ServingCertificatePending, Phase::Registration)
                .with("name", node)
                .with("request", request)
                .with("since", pending.since),
        )
    }

    /// Takes what the watch tells; answers whose node it is about.
    pub(super) fn told(&self, event: Event<CertificateSigningRequest>) -> Option<NodeName> {
        let mut state = self.state();
        match event {
            Event::Init => {
                state.listed = Some(BTreeMap::new());
                None
            }
            Event::InitApply(request) => {
                let (name, pending) = of(&request);
                if let (Some(listed), Some(pending)) = (&mut state.listed, pending) {
                    listed.insert(name, pending);
                }
                None
            }
            Event::InitDone => {
                if let Some(listed) = state.listed.take() {
                    state.pending = listed;
                }
                None
            }
            Event::Apply(request) => {
                let (name, pending) = of(&request);
                let node = pending.as_ref().map(|pending| pending.node.clone());
                let before = match pending {
                    Some(pending) => state.pending.insert(name, pending),
                    None => state.pending.remove(&name),
                };
                node.or(before.map(|before| before.node))
            }
            Event::Delete(request) => {
                state.pending.remove(&request.metadata.name.unwrap_or_default()).map(|gone| gone.node)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object's name, and what waits if anything does: a request of a node, with
/// no condition yet.
fn of(request: &CertificateSigningRequest) -> (String, Option<Pending>) {
    let name = request.metadata.name.clone().unwrap_or_default();
    let decided = request
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| !conditions.is_empty());
    let user = request.spec.username.as_deref().unwrap_or_default();
    let node = user.strip_prefix(NodeIdentity::COMMON_NAME_PREFIX).and_then(|node| node.parse().ok());
    let since = request.metadata.creation_timestamp.as_ref().map_or(0, |made| made.0.as_millisecond());
    let pending =
        node.filter(|_| !decided).map(|node| Pending { node, since: Timestamp::from_millis(since) });
    (name, pending)
}
