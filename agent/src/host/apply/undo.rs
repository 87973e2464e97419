//! Puts back what stood before Berth came. Each path is put back by itself, and
//! one that is back already is passed over: after a crash or a failure the
//! same again goes on where it stopped.

use std::io;
use std::path::Path;

use super::record::{Entry, Record};
use super::stand::{Stand, look};
use crate::files::Tree;
use crate::ports::{ApplyError, Left, RolledBack, Undone};

/// Puts everything back, what lies deepest first, then forgets the record.
pub(super) fn undo(tree: &Tree, record: &Record) -> Result<Undone, ApplyError> {
    let manifest = record.manifest()?;
    let mut undone = Undone::default();
    for (path, entry) in manifest.entries.iter().rev() {
        let did = one(tree, record, path, entry).map_err(|cause| ApplyError::NotWritten {
            path: path.clone(),
            rolled_back: RolledBack::NotYet { path: path.clone(), cause: super::again(&cause) },
            cause,
        })?;
        match did {
            Did::Nothing => {}
            Did::Restored => undone.restored.push(path.clone()),
            Did::Removed => undone.removed.push(path.clone()),
            Did::Left(why) => undone.left.push(Left { path: path.clone(), why }),
        }
    }
    record.forget()?;
    Ok(undone)
}

/// What [`undo`] would do now.
pub(super) fn would_undo(tree: &Tree, record: &Record) -> Result<Undone, ApplyError> {
    let manifest = record.manifest()?;
    let mut would = Undone::default();
    for (path, entry) in manifest.entries.iter().rev() {
        let failed =
            |cause| ApplyError::NotWritten { path: path.clone(), cause, rolled_back: RolledBack::Nothing };
        let stands = match look(tree, path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                would.left.push(Left { path: path.clone(), why: CHANGED });
                continue;
            }
            other => other.map_err(failed)?,
        };
        let is_made = entry.before == Stand::Absent;
        if stands.same(&entry.before) {
            continue;
        }
        if is_made && matches!((&stands, &entry.ours), (Stand::Directory { .. }, Stand::Directory { .. })) {
            let names = tree.names(path).map_err(failed)?;
            if names.iter().all(|name| would.removed.contains(&path.join(name))) {
                would.removed.push(path.clone());
            } else {
                would.left.push(Left { path: path.clone(), why: NOT_EMPTY });
            }
        } else if !stands.same(&entry.ours) {
            would.left.push(Left { path: path.clone(), why: CHANGED });
        } else if is_made {
            would.removed.push(path.clone());
        } else {
            would.restored.push(path.clone());
        }
    }
    Ok(would)
}

enum Did {
    Nothing,
    Restored,
    Removed,
    Left(&'static str),
}

fn one(tree: &Tree, record: &Record, path: &Path, entry: &Entry) -> io::Result<Did> {
    let stands = match look(tree, path) {
        // A link in its path now: what is behind it was never Berth's.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Did::Left(CHANGED)),
        other => other?,
    };
    tree.remove_remains(path)?;
    if stands.same(&entry.before) {
        return Ok(Did::Nothing);
    }
    let is_made = entry.before == Stand::Absent;
    if is_made && matches!((&stands, &entry.ours), (Stand::Directory { .. }, Stand::Directory { .. })) {
        // Its mode may have been changed by the kubelet; what counts is that it is empty.
        return match tree.remove_directory(path) {
            Ok(()) => Ok(Did::Removed),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Did::Left(NOT_EMPTY)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(Did::Left(MOUNTED)),
            Err(error) => Err(error),
        };
    }
    if !stands.same(&entry.ours) {
        return Ok(Did::Left(CHANGED));
    }
    record.restore(tree, path, &stands, &entry.before)?;
    Ok(if is_made { Did::Removed } else { Did::Restored })
}

const CHANGED: &str = "somebody else has changed it since";
const NOT_EMPTY: &str = "it holds files that are not Berth's";
const MOUNTED: &str = "something is mounted there";
