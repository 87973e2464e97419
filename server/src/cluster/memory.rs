//! The same ports in memory: a working double for tests, with the same verbs and
//! bounds as the embedded store, and nothing durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::identity::{MachineId, SpkiHash};
use berth_domain::join::{Entry, Event, JoinId, JoinRecord, Origin};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, Binding, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{Claim, TokenId, TokenRecord, Use};
use tokio::sync::watch;

use super::Sweep;
use super::ledger::{JoinLedger, NodeLedger, Problem, Stored, TokenLedger};
use super::verbs::{joins, nodes, tokens};
use crate::ports::{Answer, Joins, NodeView, Nodes, Observation, Release, Tokens};

/// All that the server keeps, behind one lock.
pub struct Memory {
    state: Mutex<State>,
    changes: watch::Sender<i64>,
}

#[derive(Default)]
struct State {
    tokens: BTreeMap<TokenId, TokenRecord>,
    joins: BTreeMap<JoinId, (u64, JoinRecord)>,
    entries: VecDeque<Entry>,
    nodes: BTreeMap<NodeName, NodeRecord>,
    facts: BTreeMap<NodeName, Arc<HostFacts>>,
    bans: BTreeMap<MachineId, (Ban, JoinId)>,
    last_sequence: i64,
    last_number: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A verb that writes, under the lock: its transaction.
    fn write<T>(
        &self,
        operation: &'static str,
        verb: impl FnOnce(&mut State) -> Result<T, Problem>,
    ) -> Answer<T> {
        let mut state = self.state();
        let done = verb(&mut state).map_err(|problem| problem.during(operation))?;
        self.changes.send_replace(state.last_sequence);
        Ok(done)
    }
}

#[async_trait]
impl Tokens for Memory {
    async fn mint(&self, token: TokenRecord) -> Answer<()> {
        self.write("mint a token", |state| tokens::mint(state, &token))
    }

    async fn find(&self, id: &TokenId) -> Answer<Option<Arc<TokenRecord>>> {
        Ok(self.state().tokens.get(id).cloned().map(Arc::new))
    }

    async fn redeem(&self, claim: &Claim, origin: &Origin, now: Timestamp) -> Answer<Use> {
        self.write("redeem a token", |state| tokens::redeem(state, claim, origin, now))
    }

    async fn revoke(&self, id: &TokenId, by: &str, now: Timestamp) -> Answer<bool> {
        self.write("revoke a token", |state| Ok(tokens::revoke(state, id, by, now)?))
    }

    async fn tokens(&self, now: Timestamp) -> Answer<Vec<TokenRecord>> {
        let mut state = self.state();
        state.tokens.retain(|_, token| !tokens::is_long_over(token, now));
        let mut all: Vec<TokenRecord> = state.tokens.values().cloned().collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }
}

#[async_trait]
impl Joins for Memory {
    async fn record(
        &self,
        join: JoinId,
        node: Option<&NodeName>,
        event: Event,
        now: Timestamp,
    ) -> Answer<()> {
        self.write("record an event", |state| Ok(joins::record(state, join, node, event, now)?))
    }

    async fn join(&self, id: JoinId) -> Answer<Option<JoinRecord>> {
        Ok(self.state().joins.get(&id).map(|(_, record)| record.clone()))
    }

    async fn joins(&self, most: usize) -> Answer<Vec<JoinRecord>> {
        let mut all: Vec<(u64, JoinRecord)> = self.state().joins.values().cloned().collect();
        all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Ok(all.into_iter().take(most).map(|(_, record)| record).collect())
    }

    async fn entries(&self, join: Option<JoinId>, after: i64, most: usize) -> Answer<Vec<Entry>> {
        let state = self.state();
        let wanted = state.entries.iter().filter(|entry| join.is_none_or(|join| entry.join == join));
        Ok(wanted.filter(|entry| entry.sequence > after).take(most).cloned().collect())
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }
}

#[async_trait]
impl Nodes for Memory {
    async fn bind(&self, binding: &Binding, now: Timestamp) -> Answer<NodeRecord> {
        self.write("bind a name", |state| nodes::bind(state, binding, now))
    }

    async fn admit(&self, name: &NodeName, key: SpkiHash, now: Timestamp) -> Answer<NodeRecord> {
        let mut state = self.state();
        let mut node =
            nodes::admit(&mut *state, name, key).map_err(|problem| problem.during("admit a node"))?;
        node.last_seen = node.last_seen.max(now);
        state.nodes.insert(name.clone(), node.clone());
        Ok(node)
    }

    async fn observe(&self, name: &NodeName, what: Observation, now: Timestamp) -> Answer<()> {
        if matches!(what, Observation::Heard) {
            if let Some(node) = self.state().nodes.get_mut(name) {
                node.last_seen = node.last_seen.max(now);
            }
            return Ok(());
        }
        self.write("note what a node does", |state| nodes::observe(state, name, what, now))
    }

    async fn release(&self, name: &NodeName, how: Release, now: Timestamp) -> Answer<bool> {
        self.write("release a node", |state| Ok(nodes::release(state, name, how, now)?))
    }

    async fn nodes(&self, name: Option<&NodeName>) -> Answer<Vec<NodeView>> {
        let state = self.state();
        let wanted = state.nodes.values().filter(|node| name.is_none_or(|name| node.identity.name == *name));
        let view = |node: &NodeRecord| NodeView {
            record: node.clone(),
            ban: state.bans.get(&node.machine).map(|(ban, _)| ban.clone()),
            facts: state.facts.get(&node.identity.name).cloned(),
        };
        Ok(wanted.map(view).collect())
    }
}

#[async_trait]
impl Sweep for Memory {
    async fn sweep(&self, grace: Duration, now: Timestamp) -> Answer<usize> {
        let names: Vec<NodeName> = self.state().nodes.keys().cloned().collect();
        let mut silent = 0;
        for name in names {
            let marked =
                self.write("mark silent nodes", |state| Ok(nodes::sweep(state, &name, grace, now)?))?;
            silent += usize::from(marked);
        }
        Ok(silent)
    }
}

impl State {
    /// Drops joins with their entries.
    fn drop_joins(&mut self, gone: &[JoinId]) {
        for join in gone {
            self.joins.remove(join);
        }
        self.entries.retain(|entry| !gone.contains(&entry.join));
    }

    /// Ids of the joins that redeemed a token and ended, the latest updated first.
    fn finished(&self) -> Vec<JoinId> {
        self.by_update(|record| joins::is_proven(record) && joins::is_finished(record))
    }

    /// Drops joins, but none that a node still names.
    fn drop_unnamed(&mut self, mut gone: Vec<JoinId>) {
        gone.retain(|id| self.nodes.values().all(|node| node.join != *id));
        self.drop_joins(&gone);
    }

    /// Ids of the joins that match, the latest updated first.
    fn by_update(&self, matches: impl Fn(&JoinRecord) -> bool) -> Vec<JoinId> {
        let mut found: Vec<_> = self.joins.values().filter(|(_, record)| matches(record)).collect();
        found.sort_by_key(|(number, record)| std::cmp::Reverse((record.updated, *number)));
        found.into_iter().map(|(_, record)| record.id).collect()
    }
}

impl TokenLedger for State {
    fn token(&mut self, id: &TokenId) -> Stored<Option<TokenRecord>> {
        Ok(self.tokens.get(id).cloned())
    }

    fn keep_token(&mut self, token: &TokenRecord) -> Stored<()> {
        self.tokens.insert(token.id.clone(), token.clone());
        Ok(())
    }

    fn open_token(&mut self, id: &TokenId) -> Stored<Option<&mut TokenRecord>> {
        Ok(self.tokens.get_mut(id))
    }

    fn keep_use(&mut self, _: &TokenId) -> Stored<()> {
        Ok(())
    }

    fn drop_token(&mut self, id: &TokenId) -> Stored<()> {
        self.tokens.remove(id);
        Ok(())
    }
}

impl JoinLedger for State {
    fn join(&mut self, id: JoinId) -> Stored<Option<JoinRecord>> {
        Ok(self.joins.get(&id).map(|(_, record)| record.clone()))
    }

    fn keep_join(&mut self, record: JoinRecord) -> Stored<()> {
        match self.joins.get_mut(&record.id) {
            Some((_, kept)) => *kept = record,
            None => {
                self.last_number += 1;
                self.joins.insert(record.id, (self.last_number, record));
            }
        }
        Ok(())
    }

    fn newest_entry(&mut self, join: JoinId) -> Stored<Option<Entry>> {
        Ok(self.entries.iter().rev().find(|entry| entry.join == join).cloned())
    }

    fn append(&mut self, entry: &Entry, after: JoinRecord) -> Stored<i64> {
        self.keep_join(after)?;
        self.last_sequence += 1;
        self.entries.push_back(Entry { sequence: self.last_sequence, ..entry.clone() });
        Ok(self.last_sequence)
    }

    fn prune_entries(&mut self, join: JoinId, most: usize) -> Stored<()> {
        let mut beyond = self.entries.iter().filter(|entry| entry.join == join).count().saturating_sub(most);
        self.entries.retain(|entry| {
            let goes = beyond > 0 && entry.join == join;
            beyond -= usize::from(goes);
            !goes
        });
        Ok(())
    }

    fn prune_unproven(&mut self, most: usize) -> Stored<()> {
        let unproven = self.by_update(|record| !joins::is_proven(record));
        let gone: Vec<JoinId> = unproven.into_iter().skip(most).collect();
        self.drop_joins(&gone);
        Ok(())
    }

    fn prune_finished_before(&mut self, before: Timestamp) -> Stored<()> {
        let mut gone = self.finished();
        gone.retain(|id| self.joins.get(id).is_some_and(|(_, record)| record.updated < before));
        self.drop_unnamed(gone);
        Ok(())
    }

    fn prune_finished_beyond(&mut self, most: usize) -> Stored<()> {
        let gone = self.finished().into_iter().skip(most).collect();
        self.drop_unnamed(gone);
        Ok(())
    }
}

impl NodeLedger for State {
    fn node(&mut self, name: &NodeName) -> Stored<Option<NodeRecord>> {
        Ok(self.nodes.get(name).cloned())
    }

    fn keep_node(&mut self, node: NodeRecord) -> Stored<()> {
        self.nodes.insert(node.identity.name.clone(), node);
        Ok(())
    }

    fn note_heard(&mut self, name: &NodeName, at: Timestamp) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.last_seen = node.last_seen.max(at);
        }
    }

    fn drop_node(&mut self, name: &NodeName) -> Stored<()> {
        self.nodes.remove(name);
        self.facts.remove(name);
        Ok(())
    }

    fn keep_facts(&mut self, name: &NodeName, facts: &Arc<HostFacts>) -> Stored<()> {
        self.facts.insert(name.clone(), Arc::clone(facts));
        Ok(())
    }

    fn ban(&mut self, machine: MachineId) -> Stored<Option<Ban>> {
        Ok(self.bans.get(&machine).map(|(ban, _)| ban.clone()))
    }

    fn ban_by_name(&mut self, name: &NodeName) -> Stored<Option<(Ban, JoinId)>> {
        let named = self.bans.values().filter(|(ban, _)| ban.name == *name);
        Ok(named.max_by_key(|(ban, _)| ban.at).cloned())
    }

    fn keep_ban(&mut self, ban: &Ban, join: JoinId) -> Stored<()> {
        self.bans.insert(ban.machine, (ban.clone(), join));
        Ok(())
    }

    fn drop_ban(&mut self, machine: MachineId) -> Stored<()> {
        self.bans.remove(&machine);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_joins_that_ended_the_oldest_go() {
        joins::tests::the_oldest_that_ended_go(&mut State::default());
    }
}
