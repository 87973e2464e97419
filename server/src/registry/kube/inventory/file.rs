//! The inventory's file, read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_program::config::FileError;

use super::{Inventory, Wrong};
use crate::registry::kube::Reserved;
use crate::watched::{Stamps, Unreadable, read_at_most};

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// It says something that is not understood.
    #[error(transparent)]
    NotUnderstood(#[from] FileError),
    /// Entries that cannot be.
    #[error("{}: {wrong}", path.display())]
    Entries {
        /// Which file.
        path: PathBuf,
        /// What is wrong, field by field, and what would be right.
        wrong: Wrong,
    },
}

/// The inventory of a server.
#[derive(Debug)]
pub struct InventoryFile {
    path: PathBuf,
    reserved: Reserved,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Stamps,
    now: Arc<Inventory>,
    /// Why what lies there is not in force.
    trouble: Option<Arc<str>>,
}

impl InventoryFile {
    /// The inventory of this file. One that cannot be used keeps no server from
    /// serving: only nodes that need it wait, and say so. Blocks for the disk.
    #[must_use]
    pub fn open(path: PathBuf, reserved: Reserved) -> Self {
        let state = State { seen: Stamps::of(&[&path]), now: Arc::default(), trouble: None };
        let opened = Self { path, reserved, state: Mutex::new(state) };
        opened.take(&mut opened.state());
        opened
    }

    /// Reads the file again if it was changed. One that cannot be used leaves the last
    /// inventory in force, and is told once. Blocks for the disk.
    pub fn look(&self) {
        let stamps = Stamps::of(&[&self.path]);
        let mut state = self.state();
        if state.seen != stamps {
            state.seen = stamps;
            self.take(&mut state);
        }
    }

    /// What is in force, and why it is not what the file says, if that is so.
    pub(in crate::registry::kube) fn now(&self) -> (Arc<Inventory>, Option<Arc<str>>) {
        let state = self.state();
        (Arc::clone(&state.now), state.trouble.clone())
    }

    fn take(&self, state: &mut State) {
        let path = self.path.display();
        match load(&self.path, &self.reserved) {
            Ok(Some(next)) => {
                tracing::info!(%path, nodes = next.nodes, "the inventory of nodes was read");
                (state.now, state.trouble) = (Arc::new(next), None);
            }
            Ok(None) => {
                tracing::info!(%path, "there is no inventory of nodes");
                (state.now, state.trouble) = (Arc::default(), None);
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(%error, "the inventory of nodes cannot be used; the last one stays in force");
                state.trouble = Some(error.into());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies at a path; nothing, where no file is: an optional ConfigMap that nobody has
/// made, or that was taken back.
///
/// # Errors
/// There is a file, and it cannot be used.
pub(crate) fn load(path: &Path, reserved: &Reserved) -> Result<Option<Inventory>, InventoryError> {
    match read_at_most(path, LARGEST) {
        Ok(text) => Inventory::read(&text, path, reserved).map(Some),
        Err(unreadable) if unreadable.is_absent() => Ok(None),
        Err(unreadable) => Err(unreadable.into()),
    }
}

/// The largest file, in bytes: what a ConfigMap may hold, some ten thousand nodes.
const LARGEST: u64 = 1 << 20;
