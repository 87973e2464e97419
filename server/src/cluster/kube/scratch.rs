//! One verb's view of everything: what it changes stands apart, until the objects
//! were written.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_domain::facts::HostFacts;
use berth_domain::identity::MachineId;
use berth_domain::join::{Entry, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};

use super::view::View;
use crate::cluster::ledger::{JoinLedger, NodeLedger, Stored, TokenLedger};

/// A ledger over the view.
pub(super) struct Scratch<'view> {
    view: &'view View,
    pub(super) changes: Changes,
    /// The token that is open for a use.
    open: Option<TokenRecord>,
}

/// What a verb changed.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) tokens: BTreeMap<TokenId, Option<TokenRecord>>,
    pub(super) joins: BTreeMap<JoinId, JoinRecord>,
    /// In order; their sequence is not set.
    pub(super) entries: Vec<Entry>,
    pub(super) nodes: BTreeMap<NodeName, Option<NodeRecord>>,
    /// Whose agent was heard, besides.
    pub(super) heard: Option<(NodeName, Timestamp)>,
    pub(super) facts: BTreeMap<NodeName, Arc<HostFacts>>,
    pub(super) bans: BTreeMap<MachineId, Option<(Ban, JoinId)>>,
}

impl<'view> Scratch<'view> {
    pub(super) fn over(view: &'view View) -> Self {
        Self { view, changes: Changes::default(), open: None }
    }
}

impl TokenLedger for Scratch<'_> {
    fn token(&mut self, id: &TokenId) -> Stored<Option<TokenRecord>> {
        Ok(match self.changes.tokens.get(id) {
            Some(changed) => changed.clone(),
            None => self.view.token(id),
        })
    }

    fn keep_token(&mut self, token: &TokenRecord) -> Stored<()> {
        self.changes.tokens.insert(token.id.clone(), Some(token.clone()));
        Ok(())
    }

    fn open_token(&mut self, id: &TokenId) -> Stored<Option<&mut TokenRecord>> {
        self.open = self.token(id)?;
        Ok(self.open.as_mut())
    }

    fn keep_use(&mut self, id: &TokenId) -> Stored<()> {
        if let Some(token) = self.open.take().filter(|token| token.id == *id) {
            self.changes.tokens.insert(token.id.clone(), Some(token));
        }
        Ok(())
    }

    fn drop_token(&mut self, id: &TokenId) -> Stored<()> {
        self.changes.tokens.insert(id.clone(), None);
        Ok(())
    }
}

impl JoinLedger for Scratch<'_> {
    fn join(&mut self, id: JoinId) -> Stored<Option<JoinRecord>> {
        Ok(match self.changes.joins.get(&id) {
            Some(changed) => Some(changed.clone()),
            None => self.view.join(id).cloned(),
        })
    }

    fn keep_join(&mut self, record: JoinRecord) -> Stored<()> {
        self.changes.joins.insert(record.id, record);
        Ok(())
    }

    fn newest_entry(&mut self, join: JoinId) -> Stored<Option<Entry>> {
        let fresh = self.changes.entries.iter().rev().find(|entry| entry.join == join);
        Ok(fresh.or_else(|| self.view.newest_entry(join)).cloned())
    }

    fn append(&mut self, entry: &Entry, after: JoinRecord) -> Stored<i64> {
        self.keep_join(after)?;
        self.changes.entries.push(entry.clone());
        // No verb's turn to clean up: that is done elsewhere, under a Lease.
        Ok(1)
    }

    fn prune_entries(&mut self, _join: JoinId, _most: usize) -> Stored<()> {
        Ok(())
    }

    fn prune_unproven(&mut self, _most: usize) -> Stored<()> {
        Ok(())
    }

    fn prune_finished_before(&mut self, _before: Timestamp) -> Stored<()> {
        Ok(())
    }

    fn prune_finished_beyond(&mut self, _most: usize) -> Stored<()> {
        Ok(())
    }
}

impl NodeLedger for Scratch<'_> {
    fn node(&mut self, name: &NodeName) -> Stored<Option<NodeRecord>> {
        Ok(match self.changes.nodes.get(name) {
            Some(changed) => changed.clone(),
            None => self.view.node(name).cloned(),
        })
    }

    fn keep_node(&mut self, node: NodeRecord) -> Stored<()> {
        self.changes.nodes.insert(node.identity.name.clone(), Some(node));
        Ok(())
    }

    fn note_heard(&mut self, name: &NodeName, at: Timestamp) {
        self.changes.heard = Some((name.clone(), at));
    }

    fn drop_node(&mut self, name: &NodeName) -> Stored<()> {
        self.changes.nodes.insert(name.clone(), None);
        Ok(())
    }

    fn keep_facts(&mut self, name: &NodeName, facts: &Arc<HostFacts>) -> Stored<()> {
        self.changes.facts.insert(name.clone(), Arc::clone(facts));
        Ok(())
    }

    fn ban(&mut self, machine: MachineId) -> Stored<Option<Ban>> {
        Ok(match self.changes.bans.get(&machine) {
            Some(changed) => changed.as_ref().map(|(ban, _)| ban.clone()),
            None => self.view.ban(machine).cloned(),
        })
    }

    fn ban_by_name(&mut self, name: &NodeName) -> Stored<Option<(Ban, JoinId)>> {
        Ok(self.view.ban_by_name(name))
    }

    fn keep_ban(&mut self, ban: &Ban, join: JoinId) -> Stored<()> {
        self.changes.bans.insert(ban.machine, Some((ban.clone(), join)));
        Ok(())
    }

    fn drop_ban(&mut self, machine: MachineId) -> Stored<()> {
        self.changes.bans.insert(machine, None);
        Ok(())
    }
}
