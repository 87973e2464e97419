//! The read model: what the objects say, as far as this replica has heard, and on
//! top of it what it has noted itself and not written yet.

mod bans;
mod gone;
mod joins;
mod objects;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use berth_domain::facts::HostFacts;
use berth_domain::identity::MachineId;
use berth_domain::join::{Entry, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, NodeRecord, Readiness};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};
use kube::Resource;
use kube::api::ObjectMeta;

use super::objects::{JoinToken, MachineBan, NodeJoin, Story};
use crate::ports::NodeView;
use gone::Gone;

/// All that this replica knows.
#[derive(Default)]
pub(super) struct View {
    tokens: BTreeMap<String, Arc<JoinToken>>,
    ids: HashMap<TokenId, (String, TokenRecord)>,
    objects: BTreeMap<String, Kept>,
    slots: BTreeMap<JoinId, Slot>,
    nodes: BTreeMap<NodeName, Held>,
    ban_objects: BTreeMap<String, Arc<MachineBan>>,
    bans: BTreeMap<MachineId, (Ban, JoinId)>,
    /// Which join each entry is of, by its sequence.
    order: BTreeMap<i64, JoinId>,
    unproven: BTreeSet<JoinId>,
    gone: Gone,
    last_sequence: i64,
    last_number: u64,
}

/// A `NodeJoin` as it was last seen; its facts stand in the story alone.
struct Kept {
    object: Arc<NodeJoin>,
    story: Arc<Story>,
}

/// A join.
struct Slot {
    /// In the order in which this replica heard of them.
    number: u64,
    /// As it stands, with what is not written yet.
    record: JoinRecord,
    /// Its newest entries, as this replica numbers them.
    entries: VecDeque<Entry>,
    /// As the objects say, or said when they were last there.
    base: JoinRecord,
    base_entries: Vec<Entry>,
    /// Noted here and not written yet.
    pending: Vec<Entry>,
    /// The last event that only repeated the newest entry.
    repeat: Option<Entry>,
    /// The node whose name it holds.
    holder: Option<NodeName>,
}

/// A node.
struct Held {
    record: NodeRecord,
    facts: Option<Arc<HostFacts>>,
    mine: Mine,
}

/// What this replica knows of a node and has not written yet.
#[derive(Default)]
struct Mine {
    readiness: Option<Readiness>,
    facts: Option<Arc<HostFacts>>,
    heard: Option<Timestamp>,
}

impl View {
    /// The number of the newest entry.
    pub(super) const fn last_sequence(&self) -> i64 {
        self.last_sequence
    }

    /// A join's record.
    pub(super) fn join(&self, id: JoinId) -> Option<&JoinRecord> {
        self.slots.get(&id).map(|slot| &slot.record)
    }

    /// The newest joins first.
    pub(super) fn joins(&self, most: usize) -> Vec<JoinRecord> {
        let mut all: Vec<&Slot> = self.slots.values().collect();
        all.sort_unstable_by_key(|slot| std::cmp::Reverse((slot.record.started, slot.number)));
        all.into_iter().take(most).map(|slot| slot.record.clone()).collect()
    }

    /// The newest entry of a join.
    pub(super) fn newest_entry(&self, id: JoinId) -> Option<&Entry> {
        self.slots.get(&id)?.entries.back()
    }

    /// Entries after a sequence number, oldest first.
    pub(super) fn entries(&self, of: Option<JoinId>, after: i64, most: usize) -> Vec<Entry> {
        if let Some(id) = of {
            let slot = self.slots.get(&id);
            let entries = slot.into_iter().flat_map(|slot| &slot.entries);
            return entries.filter(|entry| entry.sequence > after).take(most).cloned().collect();
        }
        let found = self.order.range(after.saturating_add(1)..).filter_map(|(sequence, id)| {
            let entries = &self.slots.get(id)?.entries;
            let place = entries.binary_search_by_key(sequence, |entry| entry.sequence).ok()?;
            entries.get(place).cloned()
        });
        found.take(most).collect()
    }

    /// A node's record.
    pub(super) fn node(&self, name: &NodeName) -> Option<&NodeRecord> {
        self.nodes.get(name).map(|held| &held.record)
    }

    /// One node, or all by name's order.
    pub(super) fn nodes(&self, name: Option<&NodeName>) -> Vec<NodeView> {
        let shown = |held: &Held| NodeView {
            record: held.record.clone(),
            ban: self.ban(held.record.machine).cloned(),
            facts: held.facts.clone(),
        };
        match name {
            Some(name) => self.nodes.get(name).map(shown).into_iter().collect(),
            None => self.nodes.values().map(shown).collect(),
        }
    }
}

/// Whether the object that came is older than the one that is known, or the same:
/// what comes by a watch may be behind what this replica wrote itself.
fn is_stale<K: Resource>(known: Option<&K>, came: &ObjectMeta) -> bool {
    let Some(known) = known.map(Resource::meta).filter(|known| known.uid == came.uid) else { return false };
    version(came) <= version(known)
}

/// Resource versions of one kind grow (Kubernetes promises it since 1.35).
fn version(object: &ObjectMeta) -> u64 {
    object.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether two entries say the same: an event is recorded once, however often its
/// writing was repeated.
fn is_same(one: &Entry, other: &Entry) -> bool {
    one.at == other.at && one.event == other.event
}

/// Whether one of them says the same.
pub(super) fn holds(entries: &[Entry], entry: &Entry) -> bool {
    entries.iter().any(|known| is_same(known, entry))
}

#[cfg(test)]
mod tests;
