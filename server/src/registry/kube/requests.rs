//! The certificates that kubelets want to serve with, and whether somebody has
//! decided, from one watch. kube-controller-manager signs these and never approves them
//! (kubernetes.io/kubelet-serving).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::NodeIdentity;
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::runtime::watcher::Event;

/// Between two judgements of the same request: each dials the kubelet.
const PAUSE: Duration = Duration::from_secs(2);

/// What the watch selects.
pub(super) const SELECTED: &str = "spec.signerName=kubernetes.io/kubelet-serving";

/// The requests, by their object's name.
#[derive(Default)]
pub(super) struct Requests {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, Asked>,
    listed: Option<BTreeMap<String, Asked>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    node: NodeName,
    since: Timestamp,
    decided: bool,
    /// When it was last judged, and what was in its way.
    judged: Option<Timestamp>,
    problem: Option<Diagnosis>,
}

impl Requests {
    /// What a node's kubelet waits for.
    pub(super) fn pending(&self, node: &NodeName) -> Option<Diagnosis> {
        let (request, asked) = self.last(node)?;
        if asked.decided {
            return None;
        }
        if let Some(problem) = asked.problem {
            return Some(problem);
        }
        Some(
            Diagnosis::new(Code::ServingCertificatePending, Phase::Registration)
                .with("name", node)
                .with("request", request)
                .with("since", asked.since),
        )
    }

    /// The request of a node that is to be judged now, if one is: undecided, and not
    /// judged a moment ago.
    pub(super) fn to_judge(&self, node: &NodeName, now: Timestamp) -> Option<String> {
        let (request, asked) = self.last(node)?;
        if asked.decided || asked.judged.is_some_and(|at| now.since(at) < PAUSE) {
            return None;
        }
        if let Some(asked) = self.state().asked.get_mut(&request) {
            asked.judged = Some(now);
        }
        Some(request)
    }

    /// Notes what was in the way of a request. One that was decided meanwhile has
    /// nothing in its way.
    pub(super) fn judged(&self, request: &str, problem: Option<Diagnosis>) {
        if let Some(asked) = self.state().asked.get_mut(request) {
            asked.decided |= problem.is_none();
            asked.problem = problem;
        }
    }

    /// A kubelet asks anew when its addresses change, and forgets what it asked
    /// before: only its last request counts.
    fn last(&self, node: &NodeName) -> Option<(String, Asked)> {
        let state = self.state();
        let own = state.asked.iter().filter(|(_, asked)| asked.node == *node);
        let (name, last) = own.max_by_key(|(_, asked)| asked.since)?;
        Some((name.clone(), last.clone()))
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
                let (name, asked) = of(&request);
                if let (Some(listed), Some(asked)) = (&mut state.listed, asked) {
                    listed.insert(name, asked);
                }
                None
            }
            Event::InitDone => {
                if let Some(listed) = state.listed.take() {
                    state.asked = listed;
                }
                None
            }
            Event::Apply(request) => {
                let (name, asked) = of(&request);
                let asked = asked?;
                let node = asked.node.clone();
                let asked = match state.asked.remove(&name) {
                    Some(before) => Asked { decided: asked.decided, ..before },
                    None => asked,
                };
                state.asked.insert(name, asked);
                Some(node)
            }
            Event::Delete(request) => {
                state.asked.remove(&request.metadata.name.unwrap_or_default()).map(|gone| gone.node)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object's name, and what is asked, if a node asks. The cluster itself removes
/// requests that were decided within the hour.
fn of(request: &CertificateSigningRequest) -> (String, Option<Asked>) {
    let name = request.metadata.name.clone().unwrap_or_default();
    let decided = request
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| !conditions.is_empty());
    let user = request.spec.username.as_deref().unwrap_or_default();
    let node = user.strip_prefix(NodeIdentity::COMMON_NAME_PREFIX).and_then(|node| node.parse().ok());
    let since = request.metadata.creation_timestamp.as_ref().map_or(0, |made| made.0.as_millisecond());
    (
        name,
        node.map(|node| Asked {
            node,
            since: Timestamp::from_millis(since),
            decided,
            judged: None,
            problem: None,
        }),
    )
}
