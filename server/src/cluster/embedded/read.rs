//! The questions to the store, for readers and the writer alike; those about joins are
//! beside how joins are kept.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::facts::HostFacts;
use berth_domain::identity::{MachineId, SpkiHash};
use berth_domain::join::{Entry, JoinId};
use berth_domain::name::NodeName;
use berth_domain::node::{Ban, CertificateTerms, NodeRecord};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{TokenId, TokenRecord, Use};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde::de::DeserializeOwned;

use super::heard::Heard;
use crate::cluster::ledger::{StoreError, Stored};
use crate::ports::{NodeCounts, NodeView};

/// One token with its uses.
pub(super) fn token(store: &Connection, id: &TokenId) -> Stored<Option<TokenRecord>> {
    let found = one(store, "token", "SELECT document FROM tokens WHERE id = ?1", [id.as_str()])?;
    found.map(|token| with_uses(store, token)).transpose()
}

/// All tokens, newest first.
pub(super) fn tokens(store: &Connection) -> Stored<Vec<TokenRecord>> {
    let all = many(store, "token", "SELECT document FROM tokens ORDER BY created DESC, id", [])?;
    all.into_iter().map(|token| with_uses(store, token)).collect()
}

/// Entries after a sequence number, oldest first.
pub(super) fn entries(store: &Connection, of: Option<JoinId>, after: i64, most: usize) -> Stored<Vec<Entry>> {
    match of {
        Some(join) => rows(
            store,
            "SELECT sequence, document FROM entries
             WHERE join_number = (SELECT number FROM joins WHERE id = ?1) AND sequence > ?2
             ORDER BY sequence LIMIT ?3",
            (join.to_string(), after, limit(most)),
            entry,
        ),
        None => rows(
            store,
            "SELECT sequence, document FROM entries WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
            (after, limit(most)),
            entry,
        ),
    }
}

/// The entries after a sequence number that end lines, and up to where was looked.
pub(super) fn endings(store: &Connection, after: i64, most: usize) -> Stored<(i64, Vec<Entry>)> {
    let (last, _) = position(store)?;
    let endings = rows(
        store,
        "SELECT sequence, document FROM entries INDEXED BY entries_endings
         WHERE ends = 1 AND sequence > ?1 ORDER BY sequence LIMIT ?2",
        (after, limit(most)),
        entry,
    )?;
    let seen = match endings.last() {
        Some(newest) if endings.len() >= most => newest.sequence,
        Some(newest) => newest.sequence.max(last),
        None => last,
    };
    Ok((seen.max(after), endings))
}

/// The newest entry of a join.
pub(super) fn newest_entry(store: &Connection, of: JoinId) -> Stored<Option<Entry>> {
    let found = rows(
        store,
        "SELECT sequence, document FROM entries
         WHERE join_number = (SELECT number FROM joins WHERE id = ?1) ORDER BY sequence DESC LIMIT 1",
        [of.to_string()],
        entry,
    )?;
    Ok(found.into_iter().next())
}

/// One node, last seen when anyone heard it last.
pub(super) fn node(store: &Connection, heard: &Heard, name: &NodeName) -> Stored<Option<NodeRecord>> {
    let found = rows(
        store,
        "SELECT document, heard.at FROM nodes LEFT JOIN heard USING (name) WHERE name = ?1",
        [name.as_str()],
        |row| node_row(row, heard),
    )?;
    Ok(found.into_iter().next())
}

/// A node with its machine's ban, for a caller who is heard now: when it was heard
/// before is not looked up. One question: each takes the store's locks anew, and reads
/// pages that a commit has made void.
pub(super) fn node_at_the_door(
    store: &Connection,
    heard: &Heard,
    name: &NodeName,
) -> Stored<Option<(NodeRecord, Option<Ban>)>> {
    let found = rows(
        store,
        "SELECT nodes.document, NULL, bans.document FROM nodes
         LEFT JOIN bans ON bans.machine = nodes.machine WHERE nodes.name = ?1",
        [name.as_str()],
        |row| Ok((node_row(row, heard)?, optional_document("ban", row, 2)?)),
    )?;
    Ok(found.into_iter().next())
}

/// Nodes as operators see them.
pub(super) fn views(store: &Connection, heard: &Heard, name: Option<&NodeName>) -> Stored<Vec<NodeView>> {
    rows(
        store,
        "SELECT nodes.document, heard.at, facts.document, bans.document FROM nodes
         LEFT JOIN heard ON heard.name = nodes.name LEFT JOIN facts ON facts.name = nodes.name
         LEFT JOIN bans ON bans.machine = nodes.machine
         WHERE ?1 IS NULL OR nodes.name = ?1 ORDER BY nodes.name",
        [name.map(NodeName::as_str)],
        |row| {
            let facts: Option<HostFacts> = optional_document("host facts", row, 2)?;
            Ok(NodeView {
                record: node_row(row, heard)?,
                facts: facts.map(Arc::new),
                ban: optional_document("ban", row, 3)?,
            })
        },
    )
}

/// How many nodes stand how, without a look at any document.
pub(super) fn counts(store: &Connection) -> rusqlite::Result<NodeCounts> {
    let mut statement = store.prepare_cached(
        "SELECT count(*) FILTER (WHERE bans.machine IS NULL AND readiness = 'Ready'),
                count(*) FILTER (WHERE bans.machine IS NULL AND readiness <> 'Ready'),
                count(bans.machine)
         FROM nodes LEFT JOIN bans ON bans.machine = nodes.machine",
    )?;
    let count = |row: &Row<'_>, column| -> rusqlite::Result<u64> {
        Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
    };
    statement.query_row([], |row| {
        Ok(NodeCounts { ready: count(row, 0)?, not_ready: count(row, 1)?, banned: count(row, 2)? })
    })
}

/// Newest certificates of nodes whose machines are not banned; of each document that part
/// alone is read.
pub(super) fn certificates(store: &Connection) -> Stored<Vec<CertificateTerms>> {
    many(
        store,
        "node's certificate",
        "SELECT json_extract(nodes.document, '$.certificate') FROM nodes
         LEFT JOIN bans ON bans.machine = nodes.machine WHERE bans.machine IS NULL",
        [],
    )
}

/// Names of Ready nodes that were not heard since `now - grace`; by indexes
/// alone, without a look at any document.
pub(super) fn overdue(
    store: &Connection,
    heard: &Heard,
    grace: Duration,
    now: Timestamp,
) -> Stored<Vec<NodeName>> {
    let since = now.before(grace);
    let names = rows(
        store,
        "SELECT nodes.name FROM nodes INDEXED BY nodes_ready LEFT JOIN heard ON heard.name = nodes.name
         WHERE readiness = 'Ready' AND max(seen, coalesce(heard.at, 0)) < ?1 ORDER BY nodes.name",
        [since.millis()],
        |row| Ok(row.get_ref(0)?.as_str().ok().and_then(|name| name.parse::<NodeName>().ok())),
    )?;
    let silent = |name: &NodeName| heard.last(name).is_none_or(|at| at < since);
    Ok(names.into_iter().flatten().filter(silent).collect())
}

/// A machine's ban.
pub(super) fn ban(store: &Connection, machine: MachineId) -> Stored<Option<Ban>> {
    one(store, "ban", "SELECT document FROM bans WHERE machine = ?1", [machine.to_hex()])
}

/// The newest ban of a machine that had this name, and its join.
pub(super) fn ban_by_name(store: &Connection, name: &NodeName) -> Stored<Option<(Ban, JoinId)>> {
    let found = rows(
        store,
        "SELECT document, join_id FROM bans WHERE name = ?1 ORDER BY at DESC LIMIT 1",
        [name.as_str()],
        |row| {
            let join = row.get_ref(1)?.as_str().ok().and_then(|id| id.parse().ok());
            Ok(join.map(|join| document("ban", row, 0).map(|ban| (ban, join))))
        },
    )?;
    found.into_iter().flatten().next().transpose()
}

/// The last sequence number, and the number of changes without an entry.
pub(super) fn position(store: &Connection) -> rusqlite::Result<(i64, i64)> {
    let sequence = store
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'entries'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let revision = store.prepare_cached("SELECT number FROM revision")?.query_row([], |row| row.get(0))?;
    Ok((sequence.unwrap_or(0), revision))
}

fn with_uses(store: &Connection, mut token: TokenRecord) -> Stored<TokenRecord> {
    let uses = rows(
        store,
        "SELECT key, at FROM uses WHERE token = ?1 ORDER BY number",
        [token.id.as_str()],
        |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?)),
    )?;
    let make = |(key, at)| {
        let key = SpkiHash(key);
        Use { key, join: JoinId::of(&token.id, key), at: Timestamp::from_millis(at) }
    };
    token.used = uses.into_iter().map(make).collect();
    Ok(token)
}

fn entry(row: &Row<'_>) -> Stored<Entry> {
    let mut entry: Entry = document("entry", row, 1)?;
    entry.sequence = row.get(0)?;
    Ok(entry)
}

fn node_row(row: &Row<'_>, heard: &Heard) -> Stored<NodeRecord> {
    let mut node: NodeRecord = document("node", row, 0)?;
    let stored: Option<i64> = row.get(1)?;
    let latest = stored.map(Timestamp::from_millis).max(heard.last(&node.identity.name));
    node.last_seen = latest.unwrap_or(node.last_seen).max(node.last_seen);
    Ok(node)
}

fn one<T: DeserializeOwned>(
    store: &Connection,
    kind: &'static str,
    sql: &str,
    with: impl Params,
) -> Stored<Option<T>> {
    Ok(many(store, kind, sql, with)?.into_iter().next())
}

pub(super) fn many<T: DeserializeOwned>(
    store: &Connection,
    kind: &'static str,
    sql: &str,
    with: impl Params,
) -> Stored<Vec<T>> {
    rows(store, sql, with, |row| document(kind, row, 0))
}

pub(super) fn rows<T>(
    store: &Connection,
    sql: &str,
    with: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Stored<T>,
) -> Stored<Vec<T>> {
    let mut statement = store.prepare_cached(sql)?;
    let mut found = statement.query(with)?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

pub(super) fn document<T: DeserializeOwned>(kind: &'static str, row: &Row<'_>, column: usize) -> Stored<T> {
    let text = row.get_ref(column)?.as_bytes().map_err(rusqlite::Error::from)?;
    serde_json::from_slice(text).map_err(StoreError::document(kind))
}

fn optional_document<T: DeserializeOwned>(
    kind: &'static str,
    row: &Row<'_>,
    column: usize,
) -> Stored<Option<T>> {
    let is_there = row.get_ref(column)? != rusqlite::types::ValueRef::Null;
    is_there.then(|| document(kind, row, column)).transpose()
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
