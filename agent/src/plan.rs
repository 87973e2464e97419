//! What a join changes on the host, as data: made purely from facts and
//! profile, shown as a diff, applied by the `Host` port.

mod bundle;
mod certificate;
mod diff;
mod distribution;
mod expected;
mod host;
mod installed;
mod kubelet;
mod live;
mod network;
mod node;
mod runtime;
mod seen;
mod units;

pub use bundle::{CACHE, Layout, cached, software};
pub use certificate::certificate;
pub use diff::{Action, Change, Style, changes, diff};
pub use distribution::{Distribution, Software};
pub use expected::{Expected, expected};
pub use host::host;
pub use installed::{Binaries, Installed, Unit};
pub use kubelet::FLAGS;
pub use live::Live;
pub use network::{BRIDGE, network};
pub use node::{ProfileProblem, node};
pub use runtime::{CNI_CONFIGURATION, PAUSE_IMAGE, SOCKET, runtime};
pub use seen::{Body, Found, Seen};
pub(crate) use units::WANTS;
pub use units::{AGENT, CONTAINERD, KUBELET, service};

use std::fmt;
use std::path::{Path, PathBuf};

use berth_domain::identity::Digest;
use zeroize::Zeroizing;

/// An ordered list of what shall stand where, and what shall run then. Paths are
/// absolute, below the root that the plan is applied to, without `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What shall be, parents before children.
    pub steps: Vec<Step>,
    /// What shall be so on the running system once the steps stand.
    pub live: Vec<Live>,
}

/// One thing that shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A directory. One that is there keeps a mode that allows no more than this.
    Directory {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// All of it.
        content: Content,
        /// Whether it holds a private key, which is never shown.
        secret: bool,
    },
    /// A file too large for memory, which the agent has fetched and verified.
    Install {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// In bytes.
        size: u64,
        /// Of its content.
        digest: Digest,
        /// The file with that content; it is not looked at where the content stands
        /// already.
        from: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        path: PathBuf,
        /// What it points to, as written.
        target: PathBuf,
    },
    /// Of the files and links in a directory that Berth itself has made and
    /// whose names begin in a certain way, only some stay.
    Retire {
        /// The directory.
        directory: PathBuf,
        /// How the names begin.
        prefix: String,
        /// Names that stay.
        keep: Vec<String>,
    },
}

impl Step {
    /// The path that it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. }
            | Self::File { path, .. }
            | Self::Install { path, .. }
            | Self::Symlink { path, .. } => path,
            Self::Retire { directory, .. } => directory,
        }
    }
}

impl Plan {
    /// This plan, then another.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self.live.extend(next.live);
        self
    }

    /// The units that shall run.
    pub fn units(&self) -> impl Iterator<Item = &Live> {
        self.live.iter().filter(|live| matches!(live, Live::Unit { .. }))
    }
}

/// The bytes of a file, which may be secret: shown by size only, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Zeroizing<Vec<u8>>);

impl Content {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }
}

impl From<Zeroizing<Vec<u8>>> for Content {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How a file begins that the agent itself has written, not a bundle.
pub(crate) const WRITTEN: &str = "# Written by berth-agent";

/// The first line of every file whose format has comments.
fn provenance(cluster: Option<&str>) -> String {
    match cluster {
        Some(cluster) => {
            format!("{WRITTEN} for cluster {cluster}; berth-agent reset removes it.\n")
        }
        None => format!("{WRITTEN}; berth-agent reset removes it.\n"),
    }
}

fn directory(path: &str, mode: u32) -> Step {
    Step::Directory { path: path.into(), mode }
}

fn file(path: &str, text: String) -> Step {
    Step::File { path: path.into(), mode: 0o644, content: text.into(), secret: false }
}

#[cfg(test)]
mod tests;
