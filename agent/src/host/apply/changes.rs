//! From what is planned and what stands: what must change.

use std::io;
use std::path::{Path, PathBuf};

use berth_domain::identity::Digest;
use serde::{Deserialize, Serialize};

use super::record::Manifest;
use super::stand::{Stand, look};
use crate::files::{Tree, own_gid, own_uid};
use crate::plan::{Plan, Step};
use crate::ports::{ApplyError, RolledBack};

/// One path that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) before: Stand,
    pub(super) after: Stand,
}

/// The changes that make a plan stand, parents first. Changes nothing.
pub(super) fn changes(tree: &Tree, manifest: &Manifest, plan: &Plan) -> Result<Vec<Change>, ApplyError> {
    let mut changes = Vec::new();
    for step in &plan.steps {
        let of = |cause| not_written(step.path(), cause);
        if let Step::Retire { .. } = step {
            for path in retired(tree, manifest, step).map_err(of)? {
                let before = look(tree, &path).map_err(of)?;
                changes.push(Change { path, before, after: Stand::Absent });
            }
            continue;
        }
        above(tree, step.path(), &mut changes)?;
        let before = look(tree, step.path()).map_err(of)?;
        if let Some(after) = after(step, &before)? {
            match changes.iter_mut().find(|change: &&mut Change| change.path == step.path()) {
                // Planned twice: the later word counts, in the earlier place.
                Some(change) => change.after = after,
                None => changes.push(Change { path: step.path().to_owned(), before, after }),
            }
        }
    }
    Ok(changes)
}

/// The files and links that a retirement takes away: made by Berth, unchanged
/// since, and not to be kept.
pub(super) fn retired(tree: &Tree, manifest: &Manifest, step: &Step) -> io::Result<Vec<PathBuf>> {
    let Step::Retire { directory, prefix, keep } = step else { return Ok(Vec::new()) };
    let mut retired = Vec::new();
    for (path, entry) in &manifest.entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_meant = path.parent() == Some(directory)
            && name.starts_with(prefix.as_str())
            && !keep.iter().any(|kept| kept == name);
        let is_made =
            entry.before == Stand::Absent && matches!(entry.ours, Stand::File { .. } | Stand::Symlink { .. });
        if is_meant && is_made && look(tree, path)?.same(&entry.ours) {
            retired.push(path.clone());
        }
    }
    Ok(retired)
}

/// What will stand, if that is not what stands.
fn after(step: &Step, before: &Stand) -> Result<Option<Stand>, ApplyError> {
    let (uid, gid) = (own_uid(), own_gid());
    let (after, replaces) = match step {
        Step::Directory { mode, .. } => {
            if let Stand::Directory { mode: stands, .. } = before
                && stands & !mode == 0
            {
                return Ok(None);
            }
            let replaces = matches!(before, Stand::Absent | Stand::Directory { .. });
            let (uid, gid) = match before {
                Stand::Directory { uid, gid, .. } => (*uid, *gid),
                Stand::Absent | Stand::File { .. } | Stand::Symlink { .. } | Stand::Other { .. } => {
                    (uid, gid)
                }
            };
            (Stand::Directory { mode: *mode, uid, gid }, replaces)
        }
        Step::File { mode, content, .. } => {
            let content = Digest::of(content.bytes());
            (Stand::File { mode: *mode, uid, gid, content }, is_replaceable(before))
        }
        Step::Install { mode, digest, .. } => {
            (Stand::File { mode: *mode, uid, gid, content: *digest }, is_replaceable(before))
        }
        Step::Symlink { target, .. } => {
            (Stand::Symlink { target: target.clone(), uid, gid }, is_replaceable(before))
        }
        Step::Retire { .. } => return Ok(None),
    };
    if !replaces {
        return Err(ApplyError::InTheWay { path: step.path().to_owned(), kind: before.kind() });
    }
    Ok((!after.same(before)).then_some(after))
}

const fn is_replaceable(before: &Stand) -> bool {
    matches!(before, Stand::Absent | Stand::File { .. } | Stand::Symlink { .. })
}

/// The directories above a path that nobody has made or planned.
fn above(tree: &Tree, path: &Path, changes: &mut Vec<Change>) -> Result<(), ApplyError> {
    let Some(parent) = path.parent().filter(|parent| parent.parent().is_some()) else { return Ok(()) };
    if changes.iter().any(|change| change.path == parent) {
        return Ok(());
    }
    match look(tree, parent).map_err(|cause| not_written(path, cause))? {
        Stand::Absent => {
            above(tree, parent, changes)?;
            let after = Stand::Directory { mode: 0o755, uid: own_uid(), gid: own_gid() };
            changes.push(Change { path: parent.to_owned(), before: Stand::Absent, after });
            Ok(())
        }
        Stand::Directory { .. } => Ok(()),
        other @ (Stand::File { .. } | Stand::Symlink { .. } | Stand::Other { .. }) => {
            Err(ApplyError::InTheWay { path: parent.to_owned(), kind: other.kind() })
        }
    }
}

fn not_written(path: &Path, cause: io::Error) -> ApplyError {
    ApplyError::NotWritten { path: path.to_owned(), cause, rolled_back: RolledBack::Nothing }
}
