//! The writer's connection as a ledger: what one transaction reads and writes.

use std::sync::Arc;

use berth_domain::facts::HostFacts;
use berth_domain::identity::MachineId;
use berth_domain::join::{Entry, JoinId, JoinRecord};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord};
use rusqlite::{Connection, Params};
use serde::Serialize;

use super::heard::Heard;
use super::joins::{self, Kept};
use super::known::{Known, KnownNode};
use super::read;
use super::recent::Recent;
use crate::cluster::ledger::{JoinLedger, NodeLedger, StoreError, Stored, TokenLedger};
use crate::cluster::verbs::joins::{is_finished, is_proven};

/// The one connection that writes, and what it remembers between transactions.
pub(super) struct Book {
    store: Connection,
    heard: Arc<Heard>,
    known: Known,
    wrote: bool,
    appended: bool,
    writes: u64,
}

impl Book {
    pub(super) fn new(store: Connection, heard: Arc<Heard>, recent: Arc<Recent>) -> Self {
        let known = Known::new(Arc::clone(&heard), recent);
        Self { store, heard, known, wrote: false, appended: false, writes: 0 }
    }

    pub(super) const fn store(&self) -> &Connection {
        &self.store
    }

    /// A number that moves whenever another process commits.
    pub(super) fn foreign_commits(&self) -> rusqlite::Result<i64> {
        self.store.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
    }

    /// What is remembered no longer holds: another process wrote, or a
    /// transaction was rolled back.
    pub(super) fn forget(&mut self) {
        self.known.forget();
    }

    /// Begins to count what a transaction writes.
    pub(super) fn start(&mut self) {
        self.wrote = false;
        self.appended = false;
    }

    /// Counts writes, so that it can be told whether a verb made any.
    pub(super) const fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes when agents were last heard.
    pub(super) fn keep_heard(&mut self, marks: &[(NodeName, Timestamp)]) -> Stored<()> {
        let mut statement = self.store.prepare_cached(
            "INSERT INTO heard (name, at) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM nodes WHERE name = ?1)
             ON CONFLICT (name) DO UPDATE SET at = max(at, excluded.at)",
        )?;
        for (name, at) in marks {
            statement.execute((name.as_str(), at.millis()))?;
            if let Some(node) = self.known.nodes.get_mut(name) {
                node.last_seen = node.last_seen.max(*at);
            }
        }
        Ok(())
    }

    /// The last write before a commit: other processes must see that
    /// something changed where no entry says so. Says whether anything did.
    pub(super) fn finish(&mut self) -> Stored<bool> {
        if self.wrote && !self.appended {
            self.execute("UPDATE revision SET number = number + 1", [])?;
        }
        Ok(self.wrote)
    }

    /// The transaction is durable.
    pub(super) fn committed(&mut self) {
        self.known.committed();
    }

    fn count_write(&mut self) {
        self.wrote = true;
        self.writes = self.writes.wrapping_add(1);
    }

    fn execute(&mut self, sql: &str, with: impl Params) -> Stored<usize> {
        self.count_write();
        Ok(self.store.prepare_cached(sql)?.execute(with)?)
    }

    /// Writes a join's row, which then has all its entries taken, and as many of those
    /// that come next; answers its number.
    fn write_join(&mut self, record: JoinRecord, coming: i64) -> Stored<i64> {
        self.count_write();
        let number = self
            .store
            .prepare_cached(
                "INSERT INTO joins (id, updated, proven, finished, taken, document) VALUES (?1, ?2, ?3, ?4,
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0) + ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET updated = excluded.updated, proven = excluded.proven,
                 finished = excluded.finished, taken = excluded.taken, document = excluded.document
                 RETURNING number",
            )?
            .query_row(
                (
                    record.id.to_string(),
                    record.updated.millis(),
                    is_proven(&record),
                    is_finished(&record),
                    coming,
                    text("join", &record)?,
                ),
                |row| row.get(0),
            )?;
        self.known.joins.insert(record.id, Kept::written(number, record));
        Ok(number)
    }

    /// Drops joins; what is remembered of them no longer holds.
    fn prune_joins(&mut self, sql: &str, with: impl Params) -> Stored<()> {
        if self.execute(sql, with)? > 0 {
            self.known.joins.clear();
        }
        Ok(())
    }

    fn remember(&mut self, token: TokenRecord) {
        self.known.token_changed(&token.id);
        self.known.tokens.insert(token.id.clone(), token);
    }
}

impl TokenLedger for Book {
    fn token(&mut self, id: &TokenId) -> Stored<Option<TokenRecord>> {
        Ok(self.open_token(id)?.cloned())
    }

    fn keep_token(&mut self, token: &TokenRecord) -> Stored<()> {
        self.execute(
            "INSERT INTO tokens (id, created, document) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            (token.id.as_str(), token.created.millis(), text("token", &token.without_uses())?),
        )?;
        self.remember(token.clone());
        Ok(())
    }

    fn open_token(&mut self, id: &TokenId) -> Stored<Option<&mut TokenRecord>> {
        if !self.known.tokens.contains_key(id)
            && let Some(token) = read::token(&self.store, id)?
        {
            self.known.tokens.insert(id.clone(), token);
        }
        Ok(self.known.tokens.get_mut(id))
    }

    fn keep_use(&mut self, id: &TokenId) -> Stored<()> {
        let Some(token) = self.known.tokens.get(id) else { return Ok(()) };
        if let Some(newest) = token.used.last() {
            let (number, key, at) = (count(token.used.len()), newest.key.0, newest.at.millis());
            // The primary key makes this the compare-and-swap: a number is used once.
            self.execute(
                "INSERT INTO uses (token, number, key, at) VALUES (?1, ?2, ?3, ?4)",
                (id.as_str(), number, key, at),
            )?;
        }
        self.known.token_changed(id);
        Ok(())
    }

    fn drop_token(&mut self, id: &TokenId) -> Stored<()> {
        self.execute("DELETE FROM tokens WHERE id = ?1", [id.as_str()])?;
        self.known.tokens.remove(id);
        self.known.token_changed(id);
        Ok(())
    }
}

impl JoinLedger for Book {
    fn join(&mut self, id: JoinId) -> Stored<Option<JoinRecord>> {
        if !self.known.joins.contains_key(&id)
            && let Some(join) = joins::one(&self.store, id)?
        {
            self.known.joins.insert(id, join);
        }
        Ok(self.known.joins.get(&id).map(|join| join.record.clone()))
    }

    fn keep_join(&mut self, record: JoinRecord) -> Stored<()> {
        self.write_join(record, 0)?;
        Ok(())
    }

    fn newest_entry(&mut self, join: JoinId) -> Stored<Option<Entry>> {
        read::newest_entry(&self.store, join)
    }

    fn append(&mut self, entry: &Entry, after: JoinRecord) -> Stored<i64> {
        let known = self.known.joins.get_mut(&entry.join).filter(|join| join.can_follow(&after));
        let number = match known {
            Some(join) => join.follow(after),
            None => self.write_join(after, 1)?,
        };
        self.execute(
            "INSERT INTO entries (join_number, at, ends, document) VALUES (?1, ?2, ?3, ?4)",
            (number, entry.at.millis(), entry.event.ends_lines(), text("entry", entry)?),
        )?;
        self.appended = true;
        Ok(self.store.last_insert_rowid())
    }

    fn prune_entries(&mut self, join: JoinId, most: usize) -> Stored<()> {
        self.execute(
            "DELETE FROM entries WHERE sequence IN (
                SELECT sequence FROM entries WHERE join_number = (SELECT number FROM joins WHERE id = ?1)
                ORDER BY sequence DESC LIMIT -1 OFFSET ?2)",
            (join.to_string(), count(most)),
        )?;
        Ok(())
    }

    fn prune_unproven(&mut self, most: usize) -> Stored<()> {
        self.prune_joins(
            "DELETE FROM joins WHERE number IN (
                SELECT number FROM joins WHERE proven = 0 ORDER BY updated DESC, number DESC LIMIT -1 OFFSET ?1)",
            [count(most)],
        )
    }

    fn prune_finished_before(&mut self, before: Timestamp) -> Stored<()> {
        self.prune_joins(
            "DELETE FROM joins WHERE proven = 1 AND finished = 1 AND updated < ?1
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE join_id = joins.id)",
            [before.millis()],
        )
    }

    fn prune_finished_beyond(&mut self, most: usize) -> Stored<()> {
        self.prune_joins(
            "DELETE FROM joins WHERE number IN (
                SELECT number FROM joins WHERE proven = 1 AND finished = 1
                ORDER BY updated DESC, number DESC LIMIT -1 OFFSET ?1)
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE join_id = joins.id)",
            [count(most)],
        )
    }
}

impl NodeLedger for Book {
    fn node(&mut self, name: &NodeName) -> Stored<Option<NodeRecord>> {
        if let Some(node) = self.known.nodes.get(name) {
            return Ok(Some(node.record(self.heard.last(name))));
        }
        let node = read::node(&self.store, &self.heard, name)?;
        if let Some(node) = &node {
            self.known.nodes.insert(name.clone(), KnownNode::new(node.clone()));
        }
        Ok(node)
    }

    fn keep_node(&mut self, node: NodeRecord) -> Stored<()> {
        let name = &node.identity.name;
        let known = self.known.nodes.get(name);
        let is_the_same = known.is_some_and(|known| known.is_of(node.machine, node.join));
        let (readiness, seen) = (node.readiness.as_str(), node.last_seen.millis());
        let document = text("node", &node)?;
        if is_the_same {
            // To set a column is to write its indexes anew, and a join's place in its
            // index is a page that nobody else's write has in common.
            self.execute(
                "UPDATE nodes SET readiness = ?2, seen = ?3, document = ?4 WHERE name = ?1",
                (name.as_str(), readiness, seen, document),
            )?;
        } else {
            self.execute(
                "INSERT INTO nodes (name, machine, join_id, readiness, seen, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name) DO UPDATE SET machine = excluded.machine, join_id = excluded.join_id,
                 readiness = excluded.readiness, seen = excluded.seen, document = excluded.document",
                (name.as_str(), node.machine.to_hex(), node.join.to_string(), readiness, seen, document),
            )?;
        }
        self.known.keep_node(node);
        Ok(())
    }

    fn note_heard(&mut self, name: &NodeName, at: Timestamp) {
        self.heard.note(name, at);
    }

    fn drop_node(&mut self, name: &NodeName) -> Stored<()> {
        self.execute("DELETE FROM nodes WHERE name = ?1", [name.as_str()])?;
        self.known.drop_node(name);
        Ok(())
    }

    fn keep_facts(&mut self, name: &NodeName, facts: &Arc<HostFacts>) -> Stored<()> {
        self.execute(
            "INSERT OR REPLACE INTO facts (name, document) VALUES (?1, ?2)",
            (name.as_str(), text("set of host facts", facts.as_ref())?),
        )?;
        Ok(())
    }

    fn ban(&mut self, machine: MachineId) -> Stored<Option<Ban>> {
        if let Some(ban) = self.known.ban(machine) {
            return Ok(ban);
        }
        let ban = read::ban(&self.store, machine)?;
        self.known.remember_ban(machine, ban.clone());
        Ok(ban)
    }

    fn ban_by_name(&mut self, name: &NodeName) -> Stored<Option<(Ban, JoinId)>> {
        read::ban_by_name(&self.store, name)
    }

    fn keep_ban(&mut self, ban: &Ban, join: JoinId) -> Stored<()> {
        self.execute(
            "INSERT OR REPLACE INTO bans (machine, name, join_id, at, document) VALUES (?1, ?2, ?3, ?4, ?5)",
            (ban.machine.to_hex(), ban.name.as_str(), join.to_string(), ban.at.millis(), text("ban", ban)?),
        )?;
        self.known.keep_ban(ban.machine, Some(ban.clone()));
        Ok(())
    }

    fn drop_ban(&mut self, machine: MachineId) -> Stored<()> {
        self.execute("DELETE FROM bans WHERE machine = ?1", [machine.to_hex()])?;
        self.known.keep_ban(machine, None);
        Ok(())
    }
}

fn text(kind: &'static str, document: &impl Serialize) -> Stored<String> {
    serde_json::to_string(document).map_err(StoreError::document(kind))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::embedded::schema;
    use crate::cluster::verbs::joins::tests::the_oldest_that_ended_go;

    #[test]
    fn of_too_many_joins_that_ended_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("berth.db");
        schema::prepare(&path).expect("a file");
        let store = schema::writer(&path).expect("a store");
        the_oldest_that_ended_go(&mut Book::new(store, Arc::default(), Arc::default()));
    }
}
