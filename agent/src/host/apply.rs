//! Applies plans to the files below a root: all of a plan or nothing of it, and
//! everything back on `undo`. The order of writes is the whole secret: what
//! stood there is copied first, then the intent is recorded, then files change,
//! then the record becomes the new manifest. Whatever a crash cuts off is
//! rolled back by the next `apply` or `undo`.

mod changes;
mod record;
mod stand;
mod undo;

use std::io;
use std::path::Path;

use berth_domain::timestamp::Timestamp;

use self::changes::{Change, retired};
use self::record::{Manifest, Pending, Record};
use self::stand::{Stand, look, put};
use crate::files::{Entry, STATE_DIRECTORY, Tree};
use crate::plan::{Body, Found, Plan, Seen, Step};
use crate::ports::{Applied, ApplyError, RolledBack, Undone};

/// The files below a root.
#[derive(Clone)]
pub struct Files {
    tree: Tree,
    record: Record,
}

impl Files {
    /// The files below `root`.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn below(root: &Path) -> io::Result<Self> {
        Ok(Self::in_tree(Tree::open(root)?))
    }

    fn in_tree(tree: Tree) -> Self {
        Self { record: Record::of(&tree), tree }
    }

    /// The tree that they lie in.
    pub(in crate::host) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What stands at the plan's paths.
    #[must_use]
    pub fn see(&self, plan: &Plan) -> Seen {
        let mut seen = Seen::default();
        let manifest = self.record.manifest().unwrap_or_default();
        for step in &plan.steps {
            match step {
                Step::Retire { .. } => {
                    // What cannot be looked at is not taken away either.
                    seen.retired.extend(retired(&self.tree, &manifest, step).unwrap_or_default());
                }
                Step::File { path, secret, .. } => {
                    seen.found.insert(path.clone(), self.found(path, *secret));
                }
                Step::Install { path, .. } => {
                    seen.found.insert(path.clone(), self.found_large(path));
                }
                Step::Directory { path, .. } | Step::Symlink { path, .. } => {
                    seen.found.insert(path.clone(), self.found(path, false));
                }
            }
        }
        seen
    }

    /// Makes everything stand as planned, or leaves all as it was.
    ///
    /// # Errors
    /// As the port says.
    pub fn apply(&self, plan: &Plan, now: Timestamp) -> Result<Applied, ApplyError> {
        self.recover()?;
        let manifest = self.record.manifest()?;
        let mut changes = changes::changes(&self.tree, &manifest, plan)?;
        if changes.iter().any(|change| Path::new(STATE_DIRECTORY).starts_with(&change.path)) {
            // The record lies below some of the same directories: they are made
            // for it, before the plan, and are not the plan's to undo.
            self.record.prepare()?;
            changes = changes::changes(&self.tree, &manifest, plan)?;
        }
        let changed: Vec<_> = changes.iter().map(|change| change.path.clone()).collect();
        let kept = plan.steps.iter().filter(|step| !changed.iter().any(|path| path == step.path())).count();
        if changes.is_empty() {
            return Ok(Applied { changed, kept, live: Vec::new() });
        }
        let next = manifest.after(&changes, now);
        let pending = Pending::new(&next, changes);
        // Nothing but copies and the intent: a failure here has changed nothing.
        self.record.begin(&self.tree, &pending)?;
        self.commit(&pending, plan, &next).map_err(|failure| self.give_up(&pending, failure))?;
        self.record.tidy(&next);
        Ok(Applied { changed, kept, live: Vec::new() })
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// As the port says.
    pub fn undo(&self) -> Result<Undone, ApplyError> {
        self.recover()?;
        undo::undo(&self.tree, &self.record)
    }

    /// What [`Files::undo`] would do now. Changes nothing.
    ///
    /// # Errors
    /// The record or a path cannot be looked at.
    pub fn would_undo(&self) -> Result<Undone, ApplyError> {
        undo::would_undo(&self.tree, &self.record)
    }

    /// Files and links that Berth has put below the root, or was about to. Empty
    /// where the record cannot be read.
    #[must_use]
    pub fn owned(&self) -> Vec<std::path::PathBuf> {
        let is_file = |stand: &Stand| matches!(stand, Stand::File { .. } | Stand::Symlink { .. });
        let manifest = self.record.manifest().unwrap_or_default();
        let applied =
            manifest.entries.into_iter().filter(|(_, entry)| is_file(&entry.ours)).map(|(path, _)| path);
        let changes = self.record.pending().ok().flatten().map(|pending| pending.changes).unwrap_or_default();
        let pending = changes.into_iter().filter(|change| is_file(&change.after)).map(|change| change.path);
        applied.chain(pending).collect()
    }

    /// Ends what a crash has cut off: a plan whose manifest was written stands,
    /// another is rolled back.
    fn recover(&self) -> Result<(), ApplyError> {
        let Some(pending) = self.record.pending()? else { return Ok(()) };
        let manifest = self.record.manifest()?;
        if manifest.serial < pending.serial {
            self.roll_back(&pending).map_err(|(path, cause)| ApplyError::NotWritten {
                path: path.clone(),
                rolled_back: RolledBack::NotYet { path, cause: again(&cause) },
                cause,
            })?;
        }
        self.record.end()?;
        self.record.tidy(&manifest);
        Ok(())
    }

    fn commit(&self, pending: &Pending, plan: &Plan, next: &Manifest) -> Result<(), Failure> {
        for (done, change) in pending.changes.iter().enumerate() {
            let step = plan.steps.iter().rfind(|step| step.path() == change.path);
            let put = match step {
                Some(Step::Install { from, mode, digest, .. }) => {
                    // Where only its mode or owner is another, it is its own source.
                    let is_fetched = matches!(self.tree.look(from), Ok(Entry::File { .. }));
                    let from = if is_fetched { from } else { &change.path };
                    self.tree.install(from, &change.path, *mode, *digest)
                }
                Some(Step::File { content, .. }) => put(&self.tree, change, content.bytes()),
                Some(Step::Directory { .. } | Step::Symlink { .. } | Step::Retire { .. }) | None => {
                    put(&self.tree, change, &[])
                }
            };
            put.map_err(|cause| Failure { path: change.path.clone(), cause, done })?;
        }
        let done = pending.changes.len();
        if let Err((path, cause)) = self.record.save(next) {
            // Where only making it durable failed, the manifest is there and the
            // plan stands: a power cut brings all of the old back, or nothing of it.
            let stands = self.record.manifest().is_ok_and(|manifest| manifest.serial == next.serial);
            return if stands { Ok(()) } else { Err(Failure { path, cause, done }) };
        }
        // From here on the plan stands; an intent that stays is ended by the next start.
        let _ = self.record.end();
        Ok(())
    }

    fn give_up(&self, pending: &Pending, failure: Failure) -> ApplyError {
        let Failure { path, cause, done } = failure;
        let rolled_back = match self.roll_back(pending) {
            Ok(()) => match self.record.end() {
                Ok(()) if done == 0 => RolledBack::Nothing,
                // Rolling back twice is the same as once.
                Ok(()) | Err(_) => RolledBack::All(done),
            },
            Err((path, cause)) => RolledBack::NotYet { path, cause },
        };
        ApplyError::NotWritten { path, cause, rolled_back }
    }

    /// Puts back what stood before the changes, last one first.
    fn roll_back(&self, pending: &Pending) -> Result<(), (std::path::PathBuf, io::Error)> {
        for change in pending.changes.iter().rev() {
            self.put_back(change).map_err(|cause| (change.path.clone(), cause))?;
        }
        Ok(())
    }

    fn put_back(&self, change: &Change) -> io::Result<()> {
        self.tree.remove_remains(&change.path)?;
        let stands = look(&self.tree, &change.path)?;
        if stands.same(&change.before) {
            return Ok(());
        }
        self.record.restore(&self.tree, &change.path, &stands, &change.before)
    }

    /// The same for what may be too much for memory.
    fn found_large(&self, path: &Path) -> Found {
        let entry = self.tree.look(path);
        match (entry, self.tree.digest(path)) {
            (Ok(Entry::File { mode, .. }), Ok(Some((size, digest)))) => {
                Found::File { mode, body: Body::Large { size, digest } }
            }
            (_, _) => self.found(path, false),
        }
    }

    fn found(&self, path: &Path, secret: bool) -> Found {
        let found = || {
            Ok(match look(&self.tree, path)? {
                Stand::Absent => Found::Absent,
                Stand::Directory { mode, .. } => Found::Directory { mode },
                Stand::File { mode, .. } => {
                    let content = self.tree.read(path)?.unwrap_or_default();
                    Found::File { mode, body: Body::of(&content, secret) }
                }
                Stand::Symlink { target, .. } => Found::Symlink { target },
                Stand::Other { what } => Found::Other { kind: what },
            })
        };
        found().unwrap_or_else(|error: io::Error| Found::Unreadable { error: error.to_string() })
    }
}

/// Where a commit failed, and how many changes stood by then.
struct Failure {
    path: std::path::PathBuf,
    cause: io::Error,
    done: usize,
}

fn again(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests;
