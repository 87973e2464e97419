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
    arrivals: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    node: NodeName,
    /// In whole seconds, by the clock of the API server that made it.
    since: Timestamp,
    /// Grows in the order in which the watch told of requests; those that one list
    /// brought have the same.
    arrival: u64,
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
    /// before: only its last request counts. A watch tells of changes in the order in
    /// which they happened, so the order of arrival says which that is. A list has none
    /// (it goes by name): there the time says it, and within one second it is the one
    /// that nobody has decided, which is what the kubelet can still wait for. Resource
    /// versions say when a request was changed last, approval included, not when it was
    /// made.
    fn last(&self, node: &NodeName) -> Option<(String, Asked)> {
        let state = self.state();
        let own = state.asked.iter().filter(|(_, asked)| asked.node == *node);
        let (name, last) =
            own.max_by_key(|(name, asked)| (asked.arrival, asked.since, !asked.decided, *name))?;
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
                    let mut known = std::mem::take(&mut state.asked);
                    let arrival = state.arrives();
                    let told = |(name, asked): (String, Asked)| {
                        let asked = asked.after(known.remove(&name), arrival);
                        (name, asked)
                    };
                    state.asked = listed.into_iter().map(told).collect();
                }
                None
            }
            Event::Apply(request) => {
                let (name, asked) = of(&request);
                let asked = asked?;
                let node = asked.node.clone();
                let (known, arrival) = (state.asked.remove(&name), state.arrives());
                state.asked.insert(name, asked.after(known, arrival));
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

impl State {
    const fn arrives(&mut self) -> u64 {
        self.arrivals = self.arrivals.saturating_add(1);
        self.arrivals
    }
}

impl Asked {
    /// What is known of the request now, and was before, if anything was.
    fn after(self, known: Option<Self>, arrival: u64) -> Self {
        match known {
            Some(known) => Self { decided: self.decided, ..known },
            None => Self { arrival, ..self },
        }
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
            arrival: 0,
            decided,
            judged: None,
            problem: None,
        }),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIRST: &str = "2026-11-26T10:00:00Z";
    const LATER: &str = "2026-11-26T10:00:01Z";

    fn request(name: &str, made: &str, is_decided: bool) -> CertificateSigningRequest {
        let decided = json!([{ "type": "Approved", "status": "True" }]);
        serde_json::from_value(json!({
            "metadata": { "name": name, "creationTimestamp": made },
            "spec": {
                "request": "", "signerName": "kubernetes.io/kubelet-serving", "username": "system:node:n1",
            },
            "status": { "conditions": if is_decided { decided } else { json!([]) } },
        }))
        .expect("a request")
    }

    fn listed(requests: &Requests, all: Vec<CertificateSigningRequest>) {
        requests.told(Event::Init);
        for request in all {
            requests.told(Event::InitApply(request));
        }
        requests.told(Event::InitDone);
    }

    fn last(requests: &Requests) -> Option<String> {
        requests.last(&"n1".parse().expect("a name")).map(|(name, _)| name)
    }

    #[test]
    fn of_requests_of_one_second_the_one_that_was_told_last_counts() {
        let requests = Requests::default();
        listed(&requests, Vec::new());
        requests.told(Event::Apply(request("csr-z", FIRST, false)));
        requests.told(Event::Apply(request("csr-a", FIRST, false)));
        assert_eq!(last(&requests).as_deref(), Some("csr-a"), "whatever their names");
        requests.told(Event::Apply(request("csr-z", FIRST, true)));
        assert_eq!(last(&requests).as_deref(), Some("csr-a"), "a decision makes none newer");
        requests.told(Event::Delete(request("csr-a", FIRST, false)));
        assert_eq!(last(&requests).as_deref(), Some("csr-z"));
    }

    #[test]
    fn an_api_server_whose_clock_is_behind_makes_none_older() {
        let requests = Requests::default();
        requests.told(Event::Apply(request("csr-a", LATER, false)));
        requests.told(Event::Apply(request("csr-b", FIRST, false)));
        assert_eq!(last(&requests).as_deref(), Some("csr-b"));
    }

    #[test]
    fn in_a_list_the_time_counts_and_then_whether_it_is_still_waited_for() {
        let requests = Requests::default();
        listed(&requests, vec![request("csr-a", LATER, true), request("csr-z", FIRST, false)]);
        assert_eq!(last(&requests).as_deref(), Some("csr-a"));
        listed(&requests, vec![request("csr-b", LATER, false), request("csr-c", LATER, true)]);
        assert_eq!(last(&requests).as_deref(), Some("csr-b"));
    }

    #[test]
    fn a_second_list_keeps_what_is_known_and_brings_what_came_between() {
        let requests = Requests::default();
        requests.told(Event::Apply(request("csr-z", FIRST, false)));
        requests.told(Event::Apply(request("csr-b", FIRST, false)));
        let why = Diagnosis::new(Code::ServingNameUnproven, Phase::Registration);
        requests.judged("csr-b", Some(why.clone()));
        let known = || vec![request("csr-b", FIRST, false), request("csr-z", FIRST, false)];
        listed(&requests, known());
        assert_eq!(last(&requests).as_deref(), Some("csr-b"), "as the watch has told it");
        assert_eq!(requests.pending(&"n1".parse().expect("a name")), Some(why));
        listed(&requests, [known(), vec![request("csr-a", FIRST, false)]].concat());
        assert_eq!(last(&requests).as_deref(), Some("csr-a"), "it came after all that were known");
        listed(&requests, Vec::new());
        assert_eq!(last(&requests), None);
    }
}
