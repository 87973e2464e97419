//! The machine that the agent runs on: surveyed live, changed below a root.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;

use super::apply::Files;
use super::survey::{self, Roots};
use crate::plan::{Plan, Seen};
use crate::ports::{Applied, ApplyError, Host, Undone};

/// The adapter of the `Host` port.
#[derive(Clone)]
pub struct Machine {
    roots: Roots,
    files: Files,
}

impl Machine {
    /// The machine, with files applied below `root`.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn at(root: &Path) -> io::Result<Self> {
        Ok(Self { roots: Roots::machine(root), files: Files::below(root)? })
    }

    /// The files below its root.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }
}

#[async_trait]
impl Host for Machine {
    async fn survey(&self) -> HostFacts {
        survey::complete(&self.roots).await
    }

    fn see(&self, plan: &Plan) -> Seen {
        self.files.see(plan)
    }

    fn apply(&self, plan: &Plan, now: Timestamp) -> Result<Applied, ApplyError> {
        self.files.apply(plan, now)
    }

    fn undo(&self, _: Timestamp) -> Result<Undone, ApplyError> {
        self.files.undo()
    }
}
