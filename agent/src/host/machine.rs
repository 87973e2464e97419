//! The machine that the agent runs on: surveyed live, changed below a root.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;

use super::apply::Files;
use super::kernel::Kernel;
use super::survey::{self, Roots, Versions};
use crate::plan::{Installed, Plan, Seen};
use crate::ports::{Applied, ApplyError, Host, Undone};

/// The adapter of the `Host` port.
#[derive(Clone)]
pub struct Machine {
    roots: Roots,
    files: Files,
    kernel: Kernel,
    versions: Arc<Versions>,
}

impl Machine {
    /// The machine, with files applied below `root`.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn at(root: &Path) -> io::Result<Self> {
        let (roots, files) = (Roots::machine(root), Files::below(root)?);
        let kernel = Kernel::new(files.tree(), &roots.proc, root == Path::new("/"));
        Ok(Self { roots, files, kernel, versions: Arc::default() })
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
        survey::complete(&self.roots, &self.versions).await
    }

    fn installed(&self) -> Installed {
        let owned = self.files.owned();
        survey::installed(&self.roots, &|path| owned.iter().any(|own| own == path))
    }

    fn see(&self, plan: &Plan) -> Seen {
        let mut seen = self.files.see(plan);
        let stands = |live| Some((live, self.kernel.stands(live)?));
        seen.live = plan.live.iter().filter_map(stands).map(|(live, is)| (live.name(), is)).collect();
        seen.is_live = self.roots.host == Path::new("/");
        seen
    }

    fn apply(&self, plan: &Plan, now: Timestamp) -> Result<Applied, ApplyError> {
        let mut applied = self.files.apply(plan, now)?;
        applied.live = self.kernel.apply(plan)?;
        Ok(applied)
    }

    fn undo(&self, _: Timestamp) -> Result<Undone, ApplyError> {
        let mut undone = self.files.undo()?;
        self.kernel.undo(&mut undone)?;
        Ok(undone)
    }
}
