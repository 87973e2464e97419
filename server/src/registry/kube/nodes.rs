//! All Nodes of the cluster, from one watch, and who waits for which.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_domain::name::NodeName;
use berth_domain::pods::{MOST_RANGES, MOST_ROUTES, PodRoute, PodRoutes};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::node::SeenNode;

/// The Nodes, by name.
#[derive(Default)]
pub(super) struct Nodes {
    state: Mutex<State>,
    routes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<String, SeenNode>,
    /// What a list that is under way has told so far.
    listed: Option<BTreeMap<String, SeenNode>>,
    waiting: BTreeMap<String, watch::Sender<()>>,
    /// How many may wait before those that no longer do are looked for.
    prune_at: usize,
}

impl Nodes {
    pub(super) fn get(&self, name: &NodeName) -> Option<SeenNode> {
        self.state().seen.get(name.as_str()).cloned()
    }

    /// Where pods are, as the node of this name must know.
    pub(super) fn routes(&self, name: &NodeName) -> Option<PodRoutes> {
        let state = self.state();
        let own = state.seen.get(name.as_str())?.pods();
        if own.is_empty() {
            return None;
        }
        let others = state.seen.values().filter(|node| node.name != name.as_str());
        let mut others: Vec<PodRoute> = others.flat_map(SeenNode::routes).take(MOST_ROUTES).collect();
        others.sort();
        Some(PodRoutes { own: own.iter().copied().take(MOST_RANGES).collect(), others })
    }

    /// Changes whenever pods may be somewhere else.
    pub(super) fn routes_changed(&self) -> watch::Receiver<u64> {
        self.routes.subscribe()
    }

    fn moved(&self) {
        self.routes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Another Node than this that has the address.
    pub(super) fn other_with(&self, name: &NodeName, address: IpAddr) -> Option<String> {
        let state = self.state();
        let mut others = state.seen.values().filter(|node| node.name != name.as_str());
        others.find(|node| node.addresses().contains(&address)).map(|node| node.name.clone())
    }

    /// Takes a Node as the API server has just answered it.
    pub(super) fn take(&self, node: Node) {
        let node = SeenNode::of(node);
        self.state().seen.insert(node.name.clone(), node);
    }

    pub(super) fn watch(&self, name: &NodeName) -> watch::Receiver<()> {
        let mut state = self.state();
        if state.waiting.len() >= state.prune_at {
            state.waiting.retain(|_, waiting| waiting.receiver_count() > 0);
            state.prune_at = state.waiting.len().saturating_mul(2).max(FEW);
        }
        state.waiting.entry(name.to_string()).or_default().subscribe()
    }

    /// Wakes whoever waits for a Node: something beside the Node has changed.
    pub(super) fn wake(&self, name: &NodeName) {
        self.state().wake(name.as_str());
    }

    /// Takes what the watch tells.
    pub(super) fn told(&self, event: Event<Node>) {
        let mut state = self.state();
        match event {
            Event::Init => state.listed = Some(BTreeMap::new()),
            Event::InitApply(node) => {
                let node = SeenNode::of(node);
                if let Some(listed) = &mut state.listed {
                    listed.insert(node.name.clone(), node);
                }
            }
            Event::InitDone => {
                let Some(listed) = state.listed.take() else { return };
                let before = std::mem::replace(&mut state.seen, listed);
                self.moved();
                for (name, waiting) in &state.waiting {
                    if before.get(name) != state.seen.get(name) {
                        waiting.send_replace(());
                    }
                }
            }
            Event::Apply(node) => {
                let node = SeenNode::of(node);
                let name = node.name.clone();
                let before = state.seen.get(&name);
                if before != Some(&node) {
                    if before.is_none_or(|before| !before.is_placed_as(&node)) {
                        self.moved();
                    }
                    state.seen.insert(name.clone(), node);
                    state.wake(&name);
                }
            }
            Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                state.seen.remove(&name);
                self.moved();
                state.wake(&name);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&self, name: &str) {
        if let Some(waiting) = self.waiting.get(name) {
            waiting.send_replace(());
        }
    }
}

/// Fewer than these are not worth looking through.
const FEW: usize = 64;
