//! Joins in the view: noting events, and what a join is once the objects and the
//! notes are put together.

use std::collections::VecDeque;
use std::sync::Arc;

use berth_domain::facts::HostFacts;
use berth_domain::join::{Entry, Event, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::node::{CertificateTerms, Readiness};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;

use super::{Held, Slot, View, holds, is_same};
use crate::cluster::kube::objects::{MOST_EVENTS, NodeJoin, Story};
use crate::cluster::verbs::joins::{MOST_UNPROVEN, is_proven};

impl View {
    /// Notes an event that is to be written. Says whether it is news.
    pub(in crate::cluster::kube) fn note(&mut self, entry: Entry) -> bool {
        let id = entry.join;
        let slot = self.slot(id, entry.at);
        if holds(&slot.base_entries, &entry) || holds(&slot.pending, &entry) {
            return false;
        }
        slot.pending.push(entry);
        // No more than an object takes at once.
        let excess = slot.pending.len().saturating_sub(MOST_EVENTS);
        slot.pending.drain(..excess);
        self.settle(id);
        self.prune_unproven();
        true
    }

    /// Notes an event that only repeats the newest: the record knows it, and
    /// nothing is written for its sake.
    pub(in crate::cluster::kube) fn repeat(&mut self, entry: Entry) {
        let (id, at) = (entry.join, entry.at);
        self.slot(id, at).repeat = Some(entry);
        self.settle(id);
    }

    /// Notes that an agent was heard.
    pub(in crate::cluster::kube) fn heard(&mut self, name: &NodeName, at: Timestamp) {
        if let Some(held) = self.nodes.get_mut(name) {
            held.mine.heard = held.mine.heard.max(Some(at));
            held.record.last_seen = held.record.last_seen.max(at);
        }
    }

    /// Notes how a node stands.
    pub(in crate::cluster::kube) fn observed(
        &mut self,
        name: &NodeName,
        readiness: &Readiness,
        facts: Option<Arc<HostFacts>>,
    ) {
        let Some(held) = self.nodes.get_mut(name) else { return };
        if held.record.readiness != *readiness {
            held.record.readiness = readiness.clone();
            held.mine.readiness = Some(readiness.clone());
        }
        if facts.is_some() {
            held.facts.clone_from(&facts);
            held.mine.facts = facts;
        }
    }

    /// Notes what a signer has made of the node's authorization.
    pub(in crate::cluster::kube) fn issued(&mut self, name: &NodeName, certificate: &CertificateTerms) {
        if let Some(held) = self.nodes.get_mut(name) {
            held.record.certificate.clone_from(certificate);
        }
    }

    /// What is to be written of a join: all that is known of it.
    pub(in crate::cluster::kube) fn story(&self, id: JoinId) -> Option<Story> {
        let slot = self.slots.get(&id)?;
        let held = slot.holder.as_ref().and_then(|name| self.nodes.get(name));
        Some(Story {
            join: slot.record.clone(),
            entries: slot.base_entries.iter().chain(&slot.pending).cloned().collect(),
            node: held.map(|held| held.record.clone()),
            facts: held.and_then(|held| held.facts.clone()),
        })
    }

    /// What was noted of a join and is not written.
    pub(in crate::cluster::kube) fn pending(&self, id: JoinId) -> Vec<Entry> {
        self.slots.get(&id).map(|slot| slot.pending.clone()).unwrap_or_default()
    }

    /// The object that holds a node's name for the join.
    pub(in crate::cluster::kube) fn named_object(&self, id: JoinId) -> Option<Arc<NodeJoin>> {
        let holder = self.slots.get(&id)?.holder.as_ref()?;
        self.object(holder.as_str())
    }

    /// The object that is named after the join.
    pub(in crate::cluster::kube) fn loose_object(&self, id: JoinId) -> Option<Arc<NodeJoin>> {
        self.object(&id.to_string()).filter(|object| object.spec.node.is_none())
    }

    /// A `NodeJoin` by its name.
    pub(in crate::cluster::kube) fn object(&self, name: &str) -> Option<Arc<NodeJoin>> {
        self.objects.get(name).map(|kept| Arc::clone(&kept.object))
    }

    /// Forgets a join that no object speaks of.
    pub(in crate::cluster::kube) fn forget(&mut self, id: JoinId) {
        if let Some(slot) = self.slots.remove(&id) {
            for entry in slot.entries {
                self.order.remove(&entry.sequence);
            }
        }
        self.unproven.remove(&id);
    }

    /// Joins that match.
    pub(in crate::cluster::kube) fn find(&self, matches: impl Fn(&JoinRecord) -> bool) -> Vec<JoinRecord> {
        self.slots.values().map(|slot| &slot.record).filter(|record| matches(record)).cloned().collect()
    }

    pub(super) fn slot(&mut self, id: JoinId, at: Timestamp) -> &mut Slot {
        self.last_number += 1;
        let number = self.last_number;
        self.slots.entry(id).or_insert_with(|| Slot {
            number,
            record: JoinRecord::begin(id, at),
            entries: VecDeque::new(),
            base: JoinRecord::begin(id, at),
            base_entries: Vec::new(),
            pending: Vec::new(),
            repeat: None,
            holder: None,
        })
    }

    /// Takes what the objects say of a join as its base.
    pub(super) fn rebase(&mut self, id: JoinId) {
        let holder = self.slots.get(&id).and_then(|slot| slot.holder.clone());
        let story = |name: &str| self.objects.get(name).map(|kept| Arc::clone(&kept.story));
        let named = holder.as_ref().and_then(|name| story(name.as_str())).filter(|story| story.join.id == id);
        let loose = story(&id.to_string()).filter(|story| story.node.is_none());
        let (join, entries) = match (named, loose) {
            (Some(named), Some(loose)) => absorbed(&named, &loose),
            (Some(story), None) | (None, Some(story)) => (story.join.clone(), story.entries.clone()),
            (None, None) => return,
        };
        let slot = self.slot(id, join.started);
        slot.pending.retain(|entry| !holds(&entries, entry));
        slot.base = join;
        slot.base_entries = entries;
        self.settle(id);
        self.prune_unproven();
    }

    /// Puts base and notes together, and numbers what is new.
    pub(super) fn settle(&mut self, id: JoinId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let mut record = slot.base.clone();
        for entry in &slot.pending {
            follow(&mut record, entry);
        }
        if let Some(repeat) = slot.repeat.take_if(|repeat| repeat.at < record.updated) {
            drop(repeat);
        } else if let Some(repeat) = &slot.repeat {
            record.take(repeat);
        }
        slot.record = record;
        let most = if is_proven(&slot.record) { MOST_KEPT } else { MOST_KEPT_UNPROVEN };
        // What was dropped for its age does not come back.
        let since = slot.entries.front().filter(|_| slot.entries.len() >= most).map(|oldest| oldest.at);
        let fresh: Vec<Entry> = slot
            .base_entries
            .iter()
            .chain(&slot.pending)
            .filter(|entry| since.is_none_or(|since| entry.at >= since))
            .filter(|entry| !slot.entries.iter().any(|known| is_same(known, entry)))
            .cloned()
            .collect();
        for mut entry in fresh {
            self.last_sequence += 1;
            entry.sequence = self.last_sequence;
            self.order.insert(entry.sequence, id);
            slot.entries.push_back(entry);
        }
        while slot.entries.len() > most {
            if let Some(oldest) = slot.entries.pop_front() {
                self.order.remove(&oldest.sequence);
                slot.pending.retain(|entry| !is_same(entry, &oldest));
                slot.base_entries.retain(|entry| !is_same(entry, &oldest));
            }
        }
        if is_proven(&slot.record) {
            self.unproven.remove(&id);
        } else {
            self.unproven.insert(id);
        }
    }

    fn prune_unproven(&mut self) {
        while self.unproven.len() > MOST_UNPROVEN {
            let age = |id: &&JoinId| self.slots.get(*id).map(|slot| (slot.record.updated, slot.number));
            let Some(oldest) = self.unproven.iter().min_by_key(age).copied() else { return };
            self.forget(oldest);
        }
    }
}

impl Held {
    /// Takes what this replica knows itself over what the object says.
    pub(super) fn overlay(&mut self) {
        if self.mine.readiness.as_ref() == Some(&self.record.readiness) {
            self.mine.readiness = None;
        }
        if let Some(readiness) = &self.mine.readiness {
            self.record.readiness = readiness.clone();
        }
        if self.mine.facts == self.facts {
            self.mine.facts = None;
        }
        if self.mine.facts.is_some() {
            self.facts.clone_from(&self.mine.facts);
        }
        self.record.last_seen =
            self.mine.heard.map_or(self.record.last_seen, |at| at.max(self.record.last_seen));
    }
}

/// Takes an event into a record that others may have led further meanwhile: what
/// comes late fills in, and leads nothing back.
fn follow(record: &mut JoinRecord, entry: &Entry) {
    if let Event::Waiting { why } = &entry.event
        && why.phase() < record.phase
        && entry.at < record.updated
    {
        // It could not be written while the join went on at another replica.
        return;
    }
    let is_late = record.reached.iter().any(|(phase, at)| *phase > Phase::Authentication && *at >= entry.at);
    let Event::Redeemed { origin, .. } = &entry.event else {
        record.take(entry);
        return;
    };
    if !is_late {
        record.take(entry);
        return;
    }
    record.origin.get_or_insert_with(|| origin.clone());
    record.started = record.started.min(entry.at);
    if !record.reached.iter().any(|(phase, _)| *phase == Phase::Authentication) {
        record.reached.insert(0, (Phase::Authentication, entry.at));
    }
}

/// A join that is bound and still has the object it had before: one story of both.
fn absorbed(named: &Story, loose: &Story) -> (JoinRecord, Vec<Entry>) {
    let fresh = named.entries.iter().filter(|entry| !holds(&loose.entries, entry));
    let mut entries: Vec<Entry> = loose.entries.iter().chain(fresh).cloned().collect();
    let excess = entries.len().saturating_sub(MOST_EVENTS);
    entries.drain(..excess);
    let mut join = named.join.clone();
    join.origin = join.origin.or_else(|| loose.join.origin.clone());
    join.decision = join.decision.or_else(|| loose.join.decision.clone());
    join.started = join.started.min(loose.join.started);
    for reached in &loose.join.reached {
        if !join.reached.iter().any(|(phase, _)| *phase == reached.0) {
            join.reached.push(*reached);
        }
    }
    join.reached.sort_by_key(|(phase, _)| *phase);
    (join, entries)
}

/// The most entries of one join in memory: more than an object keeps, so that what
/// an object says is known already.
const MOST_KEPT: usize = 2 * MOST_EVENTS;
const MOST_KEPT_UNPROVEN: usize = 32;
