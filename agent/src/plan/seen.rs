//! What stands at a plan's paths: the other half of a diff.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_domain::identity::Digest;

/// What stands at a plan's paths now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// By path; a path that is not here was not looked at.
    pub found: BTreeMap<PathBuf, Found>,
    /// What the plan's retirements take away.
    pub retired: Vec<PathBuf>,
    /// What modules, settings and units are, by name: `loaded`, a value, `running`.
    /// Empty elsewhere than on the running system.
    pub live: BTreeMap<&'static str, String>,
    /// Whether the root is the running system.
    pub is_live: bool,
}

impl Seen {
    /// What stands at a path.
    #[must_use]
    pub fn at(&self, path: &Path) -> &Found {
        self.found.get(path).unwrap_or(&Found::Absent)
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// What is in it.
        body: Body,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: PathBuf,
    },
    /// Something that no plan replaces: a FIFO, a socket, a device.
    Other {
        /// What, with its article.
        kind: &'static str,
    },
    /// It cannot be looked at.
    Unreadable {
        /// What the system said.
        error: String,
    },
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The bytes.
    Open(Vec<u8>),
    /// Too much for memory.
    Large {
        /// In bytes.
        size: u64,
        /// Of the whole.
        digest: Digest,
    },
    /// A secret.
    Sealed {
        /// In bytes.
        size: usize,
        /// Of the whole: compared, never shown.
        digest: Digest,
        /// Of the part that is no secret.
        public: Digest,
    },
}

impl Body {
    /// The body of a file with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8], secret: bool) -> Self {
        if secret {
            Self::Sealed {
                size: bytes.len(),
                digest: Digest::of(bytes),
                public: Digest::of(&public_part(bytes)),
            }
        } else {
            Self::Open(bytes.to_vec())
        }
    }
}

/// The certificates of a PEM file.
fn public_part(bytes: &[u8]) -> Vec<u8> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(bytes);
    let mut public = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line == BEGIN;
        if inside {
            public.extend_from_slice(line.as_bytes());
            public.push(b'\n');
        }
        inside &= line != END;
    }
    public
}
