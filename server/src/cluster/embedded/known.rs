//! What the writer remembers between transactions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use berth_domain::identity::MachineId;
use berth_domain::join::JoinId;
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};

use super::heard::Heard;
use super::joins::Kept;
use super::recent::{MOST_NODES, MOST_TOKENS, Recent};

/// Records as the present transaction sees them; good as long as nobody else writes.
pub(super) struct Known {
    heard: Arc<Heard>,
    recent: Arc<Recent>,
    pub(super) tokens: HashMap<TokenId, TokenRecord>,
    pub(super) joins: HashMap<JoinId, Kept>,
    pub(super) nodes: HashMap<NodeName, KnownNode>,
    /// Of machines that were asked about: most have none.
    bans: HashMap<MachineId, Option<Box<Ban>>>,
    changed_tokens: Vec<TokenId>,
    changed_nodes: Vec<NodeName>,
    gone_nodes: Vec<NodeName>,
    bans_changed: bool,
}

/// A node; its record is shared with those who read it.
pub(super) struct KnownNode {
    record: Arc<NodeRecord>,
    /// As written, which happens to many at a time without their records.
    pub(super) last_seen: Timestamp,
}

impl KnownNode {
    pub(super) fn new(record: NodeRecord) -> Self {
        Self { last_seen: record.last_seen, record: Arc::new(record) }
    }

    /// As it stands; `heard` is what is not yet written.
    pub(super) fn record(&self, heard: Option<Timestamp>) -> NodeRecord {
        let last_seen = heard.map_or(self.last_seen, |at| at.max(self.last_seen));
        NodeRecord { last_seen, ..NodeRecord::clone(&self.record) }
    }

    /// Whether it is of this machine, and of this join.
    pub(super) fn is_of(&self, machine: MachineId, join: JoinId) -> bool {
        self.record.machine == machine && self.record.join == join
    }
}

impl Known {
    pub(super) fn new(heard: Arc<Heard>, recent: Arc<Recent>) -> Self {
        Self {
            heard,
            recent,
            tokens: HashMap::new(),
            joins: HashMap::new(),
            nodes: HashMap::new(),
            bans: HashMap::new(),
            changed_tokens: Vec::new(),
            changed_nodes: Vec::new(),
            gone_nodes: Vec::new(),
            bans_changed: false,
        }
    }

    /// Another process wrote, or a transaction was rolled back: nothing holds any more.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
        *self = Self::new(Arc::clone(&self.heard), Arc::clone(&self.recent));
    }

    /// A token, or its uses, changed.
    pub(super) fn token_changed(&mut self, id: &TokenId) {
        self.changed_tokens.push(id.clone());
    }

    pub(super) fn keep_node(&mut self, node: NodeRecord) {
        self.changed_nodes.push(node.identity.name.clone());
        self.nodes.insert(node.identity.name.clone(), KnownNode::new(node));
    }

    pub(super) fn drop_node(&mut self, name: &NodeName) {
        self.nodes.remove(name);
        self.gone_nodes.push(name.clone());
    }

    /// The machine's ban, if it was asked for before.
    pub(super) fn ban(&self, machine: MachineId) -> Option<Option<Ban>> {
        self.bans.get(&machine).map(|ban| ban.as_deref().cloned())
    }

    pub(super) fn remember_ban(&mut self, machine: MachineId, ban: Option<Ban>) {
        self.bans.insert(machine, ban.map(Box::new));
    }

    pub(super) fn keep_ban(&mut self, machine: MachineId, ban: Option<Ban>) {
        self.remember_ban(machine, ban);
        self.bans_changed = true;
    }

    /// The transaction is durable: others may see what it changed.
    pub(super) fn committed(&mut self) {
        for id in each(&mut self.changed_tokens) {
            self.recent.tokens.publish(&id, self.tokens.get(&id).cloned().map(Arc::new));
        }
        if std::mem::take(&mut self.bans_changed) {
            self.recent.nodes.clear();
        }
        for name in each(&mut self.changed_nodes) {
            let is_free = |node: &Arc<NodeRecord>| matches!(self.bans.get(&node.machine), Some(None));
            let node = self.nodes.get(&name).map(|node| Arc::clone(&node.record)).filter(is_free);
            self.recent.nodes.publish(&name, node);
        }
        for name in each(&mut self.gone_nodes) {
            self.heard.forget(&name);
            if !self.nodes.contains_key(&name) {
                self.recent.nodes.publish(&name, None);
            }
        }
        bound(&mut self.tokens, MOST_TOKENS);
        bound(&mut self.joins, MOST_JOINS);
        bound(&mut self.nodes, MOST_NODES);
        bound(&mut self.bans, MOST_NODES);
    }
}

/// Takes what changed, each once.
fn each<T: Ord>(changed: &mut Vec<T>) -> Vec<T> {
    let mut changed = std::mem::take(changed);
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn bound<K: Eq + Hash, V>(known: &mut HashMap<K, V>, most: usize) {
    if known.len() > most {
        known.clear();
    }
}

/// The most joins that are remembered.
const MOST_JOINS: usize = 512;
