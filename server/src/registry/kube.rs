//! The registry of a cluster with an API server. All replicas watch all Nodes, one
//! watch each; a join looks at what was told, and calls the API server once: to
//! put on its Node, by server-side apply, what its kubelet may not set.

mod departure;
pub mod inventory;
mod node;
mod nodes;
mod probe;
mod requests;
mod serving;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;
use berth_domain::timestamp::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use node::{JOIN_ANNOTATION, LEAVING_ANNOTATION, TRACE_ANNOTATION};
pub use serving::Reserved;

use self::departure::Departure;
use self::inventory::InventoryFile;
use self::node::SeenNode;
use self::nodes::Nodes;
use self::probe::Probe;
use self::requests::{Requests, SELECTED};
use self::serving::{Serving, Sight};
use crate::kubernetes::failure::Failure;
use crate::kubernetes::watch::{Failing, Standing, follow};
use crate::kubernetes::within;
use crate::ports::{Answer, Clock, Departures, Manner, Registry};

/// Who server-side apply says has set a field.
pub const FIELD_MANAGER: &str = "berth-server";

/// What the registry is told by configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The Node's providerID, with `{name}` for its name; `None`: left to others.
    pub provider_id: Option<String>,
    /// The CA certificates that nodes' certificates are signed by, PEM.
    pub issuers: String,
    /// Names and addresses that are the cluster's and no node's.
    pub reserved: Reserved,
    /// What the operator knows of nodes' addresses.
    pub inventory: Option<Arc<InventoryFile>>,
}

/// The Nodes of a cluster.
pub struct KubeRegistry {
    client: Client,
    nodes: Api<Node>,
    settings: Settings,
    seen: Seen,
    probe: Probe,
    serving: Serving,
    departure: Departure,
}

#[derive(Default)]
struct Seen {
    nodes: Nodes,
    standing: Standing,
    requests: Requests,
    requests_standing: Standing,
}

impl KubeRegistry {
    /// The registry of the cluster that the client reaches. It knows nothing until
    /// [`KubeRegistry::run`] has been told.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        let probe = Probe::new(client.clone(), settings.issuers.clone());
        let serving = Serving::new(client.clone(), settings.reserved.clone(), settings.inventory.clone());
        let nodes = Api::all(client.clone());
        let departure = Departure::new(client.clone());
        Self { client, nodes, settings, seen: Seen::default(), probe, serving, departure }
    }

    /// Watches until `end`.
    pub async fn run(&self, clock: &Arc<dyn Clock>, end: &CancellationToken) {
        let Seen { nodes, standing, requests, requests_standing } = &self.seen;
        let nodes_watch =
            follow(self.nodes.clone(), Config::default(), standing, clock, |event| nodes.told(event));
        let asked: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let selected = Config::default().fields(SELECTED);
        let requests_watch = follow(asked, selected, requests_standing, clock, |event| {
            if let Some(node) = requests.told(event) {
                nodes.wake(&node);
            }
        });
        tokio::select! {
            () = end.cancelled() => {}
            ((), ()) = async { tokio::join!(nodes_watch, requests_watch) } => {}
        }
    }

    /// Waits until every Node has been told once.
    pub async fn filled(&self) {
        self.seen.standing.filled().await;
    }

    async fn apply(
        &self,
        node: &NodeRecord,
        body: &serde_json::Value,
        now: Timestamp,
    ) -> Answer<Option<Diagnosis>> {
        let name = &node.identity.name;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match within(self.nodes.patch(name.as_str(), &parameters, &Patch::Apply(body))).await {
            Ok(applied) => {
                self.seen.nodes.take(applied);
                Ok(None)
            }
            // Changed, deleted or made anew meanwhile: the watch is about to tell.
            Err(Failure::Conflict | Failure::NotFound { .. }) => {
                Ok(Some(unsettled(name, "its labels and taints are being set".to_owned())))
            }
            Err(Failure::Invalid { message }) => {
                Ok(Some(unsettled(name, format!("what was granted cannot be put on it: {message}"))))
            }
            Err(failure) => Ok(Some(waiting(failure, now))),
        }
    }
}

#[async_trait]
impl Registry for KubeRegistry {
    async fn settle(
        &self,
        node: &NodeRecord,
        trace: Option<&str>,
        now: Timestamp,
    ) -> Answer<Option<Diagnosis>> {
        let name = &node.identity.name;
        if let Some(Failing { since, why, .. }) = self.seen.standing.failing(now) {
            return Ok(Some(waiting(why, since)));
        }
        let Some(seen) = self.seen.nodes.get(name) else {
            return Ok(Some(self.probe.absent(node, now).await));
        };
        if let Some(why) = seen.in_the_way().or_else(|| self.seen.requests.pending(name)) {
            return Ok(Some(why));
        }
        if !seen.is_due(node.join) {
            return Ok(None);
        }
        let provider_id = self.settings.provider_id.as_ref().map(|id| id.replace("{name}", name.as_str()));
        self.apply(node, &seen.applied(node, trace, provider_id.as_deref()), now).await
    }

    fn watch(&self, name: &NodeName) -> watch::Receiver<()> {
        self.seen.nodes.watch(name)
    }

    async fn vouch(&self, node: &NodeRecord, from: IpAddr, now: Timestamp) -> Answer<()> {
        let name = &node.identity.name;
        let (nodes, requests) = (&self.seen.nodes, &self.seen.requests);
        let Some(request) = requests.to_judge(name, now) else { return Ok(()) };
        let Some(seen) = nodes.get(name) else { return Ok(()) };
        let others = |address| nodes.other_with(name, address);
        let is_node = |name: &str| name.parse().is_ok_and(|name| nodes.get(&name).is_some());
        let sight = Sight { node, seen: &seen, from, others: &others, is_node: &is_node };
        match self.serving.vouch(&request, &sight, now).await {
            Ok(problem) => requests.judged(&request, problem),
            // The join goes on by the rest; settle says what is in the way.
            Err(failure) => requests.judged(&request, Some(waiting(failure, now))),
        }
        Ok(())
    }

    fn routes(&self, name: &NodeName) -> Option<PodRoutes> {
        self.seen.nodes.routes(name)
    }

    fn routes_changed(&self) -> watch::Receiver<u64> {
        self.seen.nodes.routes_changed()
    }
}

#[async_trait]
impl Departures for KubeRegistry {
    async fn see_off(&self, node: &NodeRecord, manner: Manner, now: Timestamp) -> Answer<Option<Diagnosis>> {
        // Without a Node there is nothing to see off; one that did not come through Berth
        // is not Berth's to delete.
        let seen = self.seen.nodes.get(&node.identity.name);
        let Some(seen) = seen.filter(SeenNode::has_joined) else { return Ok(None) };
        match self.departure.step(&seen, manner).await {
            Ok(waits_for) => Ok(waits_for),
            Err(failure) => Ok(Some(waiting(failure, now))),
        }
    }
}

fn unsettled(name: &NodeName, condition: String) -> Diagnosis {
    Diagnosis::new(Code::NodeNotReady, Phase::Registration).with("name", name).with("condition", condition)
}

/// What the API server's answer means to a join that waits for its Node.
fn waiting(failure: Failure, since: Timestamp) -> Diagnosis {
    failure.diagnosis(Phase::Registration).unwrap_or_else(|| {
        Diagnosis::new(Code::StoreUnavailable, Phase::Registration)
            .with("since", since)
            .with_private("error", failure)
    })
}
