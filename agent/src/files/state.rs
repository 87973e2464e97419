//! The agent's own directory below the root: 0700, its files 0600.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Entry, Tree, own_uid};
use crate::host::survey::STATE_DIRECTORY;

/// The directory that holds what the agent must remember.
#[derive(Clone)]
pub(crate) struct State {
    tree: Tree,
    directory: PathBuf,
}

impl State {
    /// The directory at `directory`: [`STATE_DIRECTORY`] or one below it. It is
    /// made when something is first written.
    pub(crate) fn at(tree: Tree, directory: impl Into<PathBuf>) -> Self {
        Self { tree, directory: directory.into() }
    }

    /// The path of a file in it, from the tree's root.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The content of a file; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.tree.read(&self.path(name))
    }

    /// Replaces a file in one step; it is durable when this returns.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.prepare()?;
        self.tree.write(&self.path(name), 0o600, None, content)
    }

    /// Removes a file. That it is gone already is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.tree.remove(&self.path(name))
    }

    /// Names in the directory, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        self.tree.names(&self.directory)
    }

    /// Removes the directory if it is empty.
    pub(crate) fn remove_if_empty(&self) -> io::Result<()> {
        match self.tree.remove_directory(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        }
    }

    /// Makes the directory and those of the agent above it.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let own: Vec<&Path> =
            self.directory.ancestors().take_while(|path| path.starts_with(STATE_DIRECTORY)).collect();
        own.iter().rev().try_for_each(|directory| prepare(&self.tree, directory))
    }
}

/// Makes one of the agent's directories, or closes it where it is open to others.
fn prepare(tree: &Tree, directory: &Path) -> io::Result<()> {
    match tree.look(directory)? {
        Entry::Absent => tree.make_directories(directory, 0o700),
        Entry::Directory { mode, owner } if owner.uid == own_uid() => {
            if mode & 0o077 != 0 {
                tree.set(directory, 0o700, None)?;
            }
            Ok(())
        }
        Entry::Directory { .. } => Err(refused(directory, "it belongs to another user")),
        Entry::File { .. } | Entry::Symlink { .. } | Entry::Other { .. } => {
            Err(refused(directory, "it is no directory"))
        }
    }
}

fn refused(directory: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {why}", directory.display()))
}
