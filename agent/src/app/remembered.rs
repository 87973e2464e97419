//! Which server the machine has joined, so that `run`, `leave` and `status`
//! need not be told again.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Endpoint;
use crate::files::{State, Tree};
use crate::host::survey::STATE_DIRECTORY;

/// The server of the last join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remembered {
    /// Where it is: `HOST:PORT`.
    pub(super) server: Endpoint,
    /// The name in its certificate, where that is not the host above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_name: Option<String>,
}

impl Remembered {
    /// What was kept below a root; `None` where nothing can be read, for then
    /// it has to be told again.
    pub(super) fn load(root: &Path) -> Option<Self> {
        let content = state(root).ok()?.read(FILE).ok()??;
        serde_json::from_slice(&content).ok()
    }

    /// Keeps it; it is durable when this returns.
    pub(super) fn save(&self, root: &Path) -> io::Result<()> {
        if Self::load(root).as_ref() == Some(self) {
            return Ok(());
        }
        state(root)?.write(FILE, &serde_json::to_vec(self)?)
    }

    /// Forgets it.
    pub(super) fn forget(root: &Path) -> io::Result<()> {
        state(root)?.remove(FILE)
    }
}

fn state(root: &Path) -> io::Result<State> {
    Ok(State::at(Tree::open(root)?, STATE_DIRECTORY))
}

const FILE: &str = "server.json";
