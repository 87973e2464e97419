//! `NodeJoin` objects in the view: as watches bring them, as this replica wrote
//! them, and as people delete them.

use std::sync::Arc;

use berth_domain::join::{Entry, Event, JoinId};
use berth_domain::timestamp::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::{Held, Kept, Mine, View, holds, is_stale};
use crate::cluster::kube::objects::{MOST_EVENTS, NodeJoin};

impl View {
    /// Takes what the API server says of a join. Answers the join, if it is news.
    pub(in crate::cluster::kube) fn take_join(
        &mut self,
        mut object: NodeJoin,
        now: Timestamp,
    ) -> Option<JoinId> {
        let name = object.name_any();
        let known = self.object(&name);
        if self.is_old_join(&object.metadata) {
            return None;
        }
        let story = Arc::new(object.story()?);
        if let Some(known) = known.filter(|known| known.uid() != object.uid()) {
            // Deleted and made anew, and the first half was missed.
            self.drop_join(&name, known.uid().as_ref(), now);
        }
        // The story has what is needed of them; twice would be much for thousands of nodes.
        object.metadata.managed_fields = None;
        if let Some(status) = &mut object.status {
            status.facts = None;
        }
        let id = story.join.id;
        let before = self.objects.insert(name, Kept { object: Arc::new(object), story: Arc::clone(&story) });
        let displaced = before.map(|before| before.story.join.id).filter(|before| *before != id);
        if let Some(node) = &story.node {
            let name = node.identity.name.clone();
            let mine = self.nodes.remove(&name).map(|held| held.mine).unwrap_or_default();
            let mut held = Held { record: node.clone(), facts: story.facts.clone(), mine };
            held.overlay();
            self.nodes.insert(name.clone(), held);
            self.slot(id, story.join.started).holder = Some(name);
        }
        if let Some(displaced) = displaced {
            if let Some(slot) = self.slots.get_mut(&displaced) {
                slot.holder = None;
            }
            self.rebase(displaced);
        }
        self.rebase(id);
        Some(id)
    }

    /// Whether what came of a `NodeJoin` is known already, or older than what is.
    pub(in crate::cluster::kube) fn is_old_join(&self, came: &ObjectMeta) -> bool {
        let known = came.name.as_ref().and_then(|name| self.objects.get(name));
        self.gone.holds(came.uid.as_ref()) || is_stale(known.map(|kept| kept.object.as_ref()), came)
    }

    /// A `NodeJoin` was deleted. If nobody of us says why, a person did it: the
    /// name is free, and whoever has it is told. Answers the join, if it is news.
    pub(in crate::cluster::kube) fn drop_join(
        &mut self,
        name: &str,
        uid: Option<&String>,
        now: Timestamp,
    ) -> Option<JoinId> {
        self.gone.note(uid);
        if self.object(name).is_none_or(|known| known.metadata.uid.as_ref() != uid) {
            return None;
        }
        let kept = self.objects.remove(name)?;
        let id = kept.story.join.id;
        let Some(node) = &kept.story.node else {
            // A loose one. Its join lives on if it was bound meanwhile.
            if self.slots.get(&id).is_some_and(|slot| slot.holder.is_none()) {
                self.forget(id);
            }
            return Some(id);
        };
        self.nodes.remove(&node.identity.name);
        let is_archived = self.loose_object(id).is_some();
        let slot = self.slots.get_mut(&id)?;
        slot.holder = None;
        if is_archived {
            self.rebase(id);
            return Some(id);
        }
        // What was not written has no place any more.
        slot.base_entries.append(&mut slot.pending);
        slot.base = slot.record.clone();
        let event = Event::Forgotten { by: BY_HAND.to_owned() };
        let entry = Entry { sequence: 0, at: now, join: id, node: Some(node.identity.name.clone()), event };
        slot.base.take(&entry);
        slot.base_entries.push(entry);
        self.settle(id);
        Some(id)
    }

    /// Names and uids of all objects.
    pub(in crate::cluster::kube) fn join_names(&self) -> Vec<(String, Option<String>)> {
        self.objects.iter().map(|(name, kept)| (name.clone(), kept.object.uid())).collect()
    }

    /// Objects that nobody needs: of joins that are no longer known, strangers'
    /// that were too many; and of joins that kept their name after all.
    pub(in crate::cluster::kube) fn superfluous(&self) -> Vec<Arc<NodeJoin>> {
        let loose = self.objects.values().filter(|kept| kept.story.node.is_none());
        let is_superfluous = |kept: &&Kept| {
            let id = kept.story.join.id;
            let kept_its_name = kept.object.is_ended() && self.has_both(id) && !self.is_unabsorbed(id);
            kept_its_name || !self.slots.contains_key(&id)
        };
        loose.filter(is_superfluous).map(|kept| Arc::clone(&kept.object)).collect()
    }

    /// Whether a join holds a name, and still has the object it had before.
    pub(in crate::cluster::kube) fn has_both(&self, id: JoinId) -> bool {
        self.loose_object(id).is_some() && self.named_object(id).is_some()
    }

    /// Whether the object it had before says something that the other does not.
    fn is_unabsorbed(&self, id: JoinId) -> bool {
        let named = self.named_object(id).and_then(|object| self.objects.get(&object.name_any()));
        let (Some(named), Some(loose)) = (named, self.objects.get(&id.to_string())) else { return false };
        let known = &named.story.entries;
        // What is full has left out the oldest already.
        known.len() < MOST_EVENTS && loose.story.entries.iter().any(|entry| !holds(known, entry))
    }
}

impl Mine {
    /// Whether there is anything worth a write of its own.
    pub(super) const fn is_news(&self) -> bool {
        self.readiness.is_some() || self.facts.is_some()
    }
}

impl View {
    /// Whether a join's status does not say yet what its spec decided.
    pub(in crate::cluster::kube) fn is_behind(&self, id: JoinId) -> bool {
        let object = self.named_object(id).or_else(|| self.loose_object(id));
        object.is_some_and(|object| object.is_behind())
    }

    /// Whether anything of a join is to be written.
    pub(in crate::cluster::kube) fn is_dirty(&self, id: JoinId) -> bool {
        let Some(slot) = self.slots.get(&id) else { return false };
        let held = slot.holder.as_ref().and_then(|name| self.nodes.get(name));
        let behind = self.is_behind(id);
        !slot.pending.is_empty()
            || behind
            || self.is_unabsorbed(id)
            || held.is_some_and(|held| held.mine.is_news())
    }
}

/// Who freed a name by deleting its object: the watch does not say.
const BY_HAND: &str = "whoever deleted its NodeJoin";
