//! How a change of the host ended.

use std::fmt;
use std::io;
use std::path::PathBuf;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;

/// A plan stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was made, replaced or removed, in the plan's order.
    pub changed: Vec<PathBuf>,
    /// How many steps stood already.
    pub kept: usize,
    /// Names of the modules that were loaded and the settings that were set.
    pub live: Vec<String>,
}

/// Everything is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// What stood there before, and stands there again.
    pub restored: Vec<PathBuf>,
    /// What Berth had made, and is gone.
    pub removed: Vec<PathBuf>,
    /// Units that were stopped.
    pub stopped: Vec<String>,
    /// What was left alone.
    pub left: Vec<Left>,
}

impl Undone {
    /// This, then what was undone after it.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.restored.extend(next.restored);
        self.removed.extend(next.removed);
        self.stopped.extend(next.stopped);
        self.left.extend(next.left);
        self
    }
}

/// Something that `undo` left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where.
    pub path: PathBuf,
    /// Why, as the end of a sentence that begins with the path.
    pub why: &'static str,
}

/// How far a failed change was rolled back.
#[derive(Debug)]
pub enum RolledBack {
    /// Nothing had been changed.
    Nothing,
    /// All that had been changed: so many paths.
    All(usize),
    /// Not yet; the agent's next start does it.
    NotYet {
        /// What could not be put back.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing, because nothing had been changed"),
            Self::All(1) => f.write_str("all of it (1 path)"),
            Self::All(count) => write!(f, "all of it ({count} paths)"),
            Self::NotYet { path, cause } => {
                write!(f, "not yet, because of {} ({cause}); the agent's next start does it", path.display())
            }
        }
    }
}

/// Why the host was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The system refused.
    #[error("writing {}", path.display())]
    NotWritten {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
        /// What became of the rest.
        rolled_back: RolledBack,
    },
    /// Something stands there that no plan replaces.
    #[error("{} is {kind}", path.display())]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// A kernel module could not be loaded.
    #[error("loading the kernel module {name}")]
    Module {
        /// Its name.
        name: &'static str,
        /// Where it would be seen.
        path: PathBuf,
        /// What modprobe said.
        #[source]
        cause: io::Error,
    },
    /// A kernel setting could not be set.
    #[error("setting {name} to {wanted}: it is {found}")]
    Setting {
        /// Its name.
        name: String,
        /// Where it is set.
        path: PathBuf,
        /// What it is, and why it stays so.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The agent's own record of its changes cannot be read: without it, what
    /// stood there before would be forgotten.
    #[error("the record of changes {} cannot be read", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: io::Error,
    },
}

impl ApplyError {
    /// The path that stood in the way.
    #[must_use]
    pub const fn path(&self) -> &PathBuf {
        match self {
            Self::NotWritten { path, .. }
            | Self::InTheWay { path, .. }
            | Self::Module { path, .. }
            | Self::Setting { path, .. }
            | Self::Record { path, .. } => path,
        }
    }

    /// Whether all files stand, and the running kernel alone is not as planned.
    #[must_use]
    pub const fn is_of_the_kernel(&self) -> bool {
        matches!(self, Self::Module { .. } | Self::Setting { .. })
    }

    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        let error = match &self {
            Self::Module { name, cause, .. } => {
                return Diagnosis::new(Code::KernelModuleMissing, phase)
                    .with("module", name)
                    .with("error", cause);
            }
            Self::Setting { name, found, wanted, .. } => {
                return Diagnosis::new(Code::SysctlWrong, phase)
                    .with("sysctl", name)
                    .with("found", found)
                    .with("wanted", wanted);
            }
            Self::NotWritten { cause, .. } => cause.to_string(),
            Self::InTheWay { kind, .. } => format!("it is {kind}"),
            Self::Record { cause, .. } => format!("the record of changes cannot be read: {cause}"),
        };
        let rolled_back = match &self {
            Self::NotWritten { rolled_back, .. } => rolled_back.to_string(),
            Self::InTheWay { .. } | Self::Module { .. } | Self::Setting { .. } | Self::Record { .. } => {
                RolledBack::Nothing.to_string()
            }
        };
        Diagnosis::new(Code::FileNotWritten, phase)
            .with("path", self.path().display())
            .with("error", error)
            .with("rolledBack", rolled_back)
    }
}
