//! All Nodes of the cluster, from one watch, and who waits for which.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_domain::name::NodeName;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::node::SeenNode;

/// The Nodes, by name.
#[derive(Default)]
pub(super) struct Nodes {
    state: Mutex<State>,
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
                for (name, waiting) in &state.waiting {
                    if before.get(name) != state.seen.get(name) {
                        waiting.send_replace(());
                    }
                }
            }
            Event::Apply(node) => {
                let node = SeenNode::of(node);
                let name = node.name.clone();
                if state.seen.get(&name) != Some(&node) {
                    state.seen.insert(name.clone(), node);
                    state.wake(&name);
                }
            }
            Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                state.seen.remove(&name);
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
