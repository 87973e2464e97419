//! The record of changes below `var/lib/berth/applied`: the manifest of what
//! Berth has put where and what stood there before, the intent of a change
//! under way, and copies of former contents, by digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use berth_domain::identity::Digest;
use berth_domain::timestamp::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::stand::{self, Stand};
use crate::files::{State, Tree};
use crate::ports::{ApplyError, RolledBack};

/// What Berth has put where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    version: u32,
    /// Counts applied plans.
    pub(super) serial: u64,
    applied: Timestamp,
    pub(super) entries: BTreeMap<PathBuf, Entry>,
}

/// One path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What stood there before Berth first touched it.
    pub(super) before: Stand,
    /// What Berth last put there.
    pub(super) ours: Stand,
}

/// A change under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    version: u32,
    /// Of the manifest that will say that it stands.
    pub(super) serial: u64,
    pub(super) changes: Vec<Change>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { version: VERSION, serial: 0, applied: Timestamp::default(), entries: BTreeMap::new() }
    }
}

impl Manifest {
    /// The manifest once these changes stand.
    pub(super) fn after(&self, changes: &[Change], now: Timestamp) -> Self {
        let mut next = self.clone();
        next.serial = self.serial.saturating_add(1);
        next.applied = now;
        for change in changes {
            let before =
                next.entries.remove(&change.path).map_or_else(|| change.before.clone(), |entry| entry.before);
            if !before.same(&change.after) {
                next.entries.insert(change.path.clone(), Entry { before, ours: change.after.clone() });
            }
        }
        next
    }
}

impl Pending {
    /// The intent of changes that lead to `next`.
    pub(super) const fn new(next: &Manifest, changes: Vec<Change>) -> Self {
        Self { version: VERSION, serial: next.serial, changes }
    }
}

/// The record's files.
#[derive(Clone)]
pub(super) struct Record {
    state: State,
    copies: State,
}

impl Record {
    /// The record below a tree's root.
    pub(super) fn of(tree: &Tree) -> Self {
        Self { state: State::at(tree.clone(), DIRECTORY), copies: State::at(tree.clone(), COPIES) }
    }

    /// The manifest; an empty one where none was written.
    pub(super) fn manifest(&self) -> Result<Manifest, ApplyError> {
        let manifest = self.parsed(MANIFEST, |manifest: &Manifest| manifest.version)?;
        Ok(manifest.unwrap_or_default())
    }

    /// The change under way.
    pub(super) fn pending(&self) -> Result<Option<Pending>, ApplyError> {
        self.parsed(PENDING, |pending: &Pending| pending.version)
    }

    /// Makes the record's directory.
    pub(super) fn prepare(&self) -> Result<(), ApplyError> {
        self.state.prepare().map_err(|cause| self.not_changed("", cause))
    }

    /// Copies what will be replaced, then records the intent.
    pub(super) fn begin(&self, tree: &Tree, pending: &Pending) -> Result<(), ApplyError> {
        for change in &pending.changes {
            if let Stand::File { content, .. } = change.before {
                self.copy(tree, &change.path, content).map_err(|cause| ApplyError::NotWritten {
                    path: change.path.clone(),
                    cause,
                    rolled_back: RolledBack::Nothing,
                })?;
            }
        }
        self.write(PENDING, pending).map_err(|(path, cause)| {
            // It may stand all the same, if only making it durable failed: then
            // it must not be taken for a crash that there was none of.
            let _ = self.end();
            ApplyError::NotWritten { path, cause, rolled_back: RolledBack::Nothing }
        })
    }

    /// Makes a manifest the one in force.
    pub(super) fn save(&self, manifest: &Manifest) -> Result<(), (PathBuf, io::Error)> {
        self.write(MANIFEST, manifest)
    }

    /// Forgets the intent.
    pub(super) fn end(&self) -> Result<(), ApplyError> {
        self.state.remove(PENDING).map_err(|cause| self.not_changed(PENDING, cause))
    }

    /// Puts back what stood at a path.
    pub(super) fn restore(&self, tree: &Tree, path: &Path, stands: &Stand, before: &Stand) -> io::Result<()> {
        if let Stand::File { content, .. } = before {
            let copied = tree.digest(&self.copies.path(&content.to_hex()))?;
            if copied.is_none_or(|(_, copied)| copied != *content) {
                let what = "the copy of its former content is lost";
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            }
        }
        stand::put_back(tree, path, stands, before, |content| self.copies.path(&content.to_hex()))
    }

    /// Removes copies that the manifest does not name. One that stays is
    /// removed the next time.
    pub(super) fn tidy(&self, manifest: &Manifest) {
        let named: BTreeSet<String> = manifest
            .entries
            .values()
            .filter_map(|entry| match entry.before {
                Stand::File { content, .. } => Some(content.to_hex()),
                Stand::Absent | Stand::Directory { .. } | Stand::Symlink { .. } | Stand::Other { .. } => None,
            })
            .collect();
        let names = self.copies.names().unwrap_or_default();
        for name in names.iter().filter(|name| !named.contains(*name)) {
            let _ = self.copies.remove(name);
        }
    }

    /// Forgets everything: the manifest first, so that copies are never missed.
    pub(super) fn forget(&self) -> Result<(), ApplyError> {
        self.state.remove(MANIFEST).map_err(|cause| self.not_changed(MANIFEST, cause))?;
        self.tidy(&Manifest::default());
        for state in [&self.copies, &self.state] {
            state.remove_if_empty().map_err(|cause| self.not_changed("", cause))?;
        }
        Ok(())
    }

    fn copy(&self, tree: &Tree, path: &Path, digest: Digest) -> io::Result<()> {
        let name = digest.to_hex();
        let copy = self.copies.path(&name);
        if tree.digest(&copy)?.is_some_and(|(_, stands)| stands == digest) {
            return Ok(());
        }
        self.copies.prepare()?;
        tree.copy(path, &copy, 0o600, None, digest).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                return io::Error::new(io::ErrorKind::ResourceBusy, "it changes while it is read");
            }
            error
        })
    }

    fn parsed<T: DeserializeOwned>(
        &self,
        name: &str,
        version: fn(&T) -> u32,
    ) -> Result<Option<T>, ApplyError> {
        let failed = |cause| ApplyError::Record { path: self.state.path(name), cause };
        let Some(content) = self.state.read(name).map_err(failed)? else { return Ok(None) };
        let parsed: T = serde_json::from_slice(&content).map_err(|error| failed(error.into()))?;
        if version(&parsed) != VERSION {
            let problem = "it is of a version that this agent does not know";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        Ok(Some(parsed))
    }

    fn write(&self, name: &str, content: &impl Serialize) -> Result<(), (PathBuf, io::Error)> {
        serde_json::to_vec_pretty(content)
            .map_err(io::Error::from)
            .and_then(|content| self.state.write(name, &content))
            .map_err(|cause| (self.state.path(name), cause))
    }

    fn not_changed(&self, name: &str, cause: io::Error) -> ApplyError {
        ApplyError::NotWritten { path: self.state.path(name), cause, rolled_back: RolledBack::Nothing }
    }
}

const VERSION: u32 = 1;
const DIRECTORY: &str = "/var/lib/berth/applied";
const COPIES: &str = "/var/lib/berth/applied/former";
const MANIFEST: &str = "manifest.json";
const PENDING: &str = "pending.json";
