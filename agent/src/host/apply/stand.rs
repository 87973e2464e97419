//! What stands at a path, as it is recorded: enough to tell whether somebody
//! has changed it, and to put it back.

use std::io;
use std::path::{Path, PathBuf};

use berth_domain::identity::Digest;
use serde::{Deserialize, Serialize};

use super::changes::Change;
use crate::files::{Entry, Owner, Tree};

/// What stands at a path. The content of a file is kept apart, by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(super) enum Stand {
    Absent,
    Directory {
        mode: u32,
        uid: u32,
        gid: u32,
    },
    File {
        mode: u32,
        uid: u32,
        gid: u32,
        content: Digest,
    },
    Symlink {
        target: PathBuf,
        uid: u32,
        gid: u32,
    },
    /// A FIFO, a socket, a device: never put anywhere.
    #[serde(skip)]
    Other {
        #[serde(skip)]
        what: &'static str,
    },
}

impl Stand {
    /// Whether the two are the same but for the group, which a directory may
    /// decide for what is made in it.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Directory { mode, uid, .. }, Self::Directory { mode: other, uid: other_uid, .. }) => {
                (mode, uid) == (other, other_uid)
            }
            (
                Self::File { mode, uid, content, .. },
                Self::File { mode: other, uid: other_uid, content: other_content, .. },
            ) => (mode, uid, content) == (other, other_uid, other_content),
            (Self::Symlink { target, uid, .. }, Self::Symlink { target: other, uid: other_uid, .. }) => {
                (target, uid) == (other, other_uid)
            }
            (
                Self::Absent
                | Self::Directory { .. }
                | Self::File { .. }
                | Self::Symlink { .. }
                | Self::Other { .. },
                _,
            ) => false,
        }
    }

    /// What it is, with its article, where that stands in the way of a plan.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::Directory { .. } => "a directory",
            Self::File { .. } => "a file",
            Self::Symlink { .. } => "a symbolic link",
            Self::Other { what } => what,
        }
    }
}

/// What stands at a path.
pub(super) fn look(tree: &Tree, path: &Path) -> io::Result<Stand> {
    Ok(match tree.look(path)? {
        Entry::Absent => Stand::Absent,
        Entry::Directory { mode, owner: Owner { uid, gid } } => Stand::Directory { mode, uid, gid },
        Entry::File { mode, owner: Owner { uid, gid } } => {
            let (_, content) = tree.digest(path)?.unwrap_or_else(|| (0, Digest::of(&[])));
            Stand::File { mode, uid, gid, content }
        }
        Entry::Symlink { target, owner: Owner { uid, gid } } => Stand::Symlink { target, uid, gid },
        Entry::Other { kind } => Stand::Other { what: kind },
    })
}

/// Makes a change. `content` is a file's.
pub(super) fn put(tree: &Tree, change: &Change, content: &[u8]) -> io::Result<()> {
    let path = &change.path;
    match &change.after {
        Stand::Absent => tree.remove(path),
        Stand::Directory { mode, .. } => match change.before {
            Stand::Absent => tree.make_directory(path, *mode),
            Stand::Directory { .. } | Stand::File { .. } | Stand::Symlink { .. } | Stand::Other { .. } => {
                tree.set(path, *mode, None)
            }
        },
        Stand::File { mode, .. } => tree.write(path, *mode, None, content),
        Stand::Symlink { target, .. } => tree.link(path, target, None),
        // No plan asks for one.
        Stand::Other { .. } => Ok(()),
    }
}

/// Puts back what stood at a path. `copied` is where a file's content was kept.
pub(super) fn put_back(
    tree: &Tree,
    path: &Path,
    stands: &Stand,
    before: &Stand,
    copied: impl FnOnce(Digest) -> PathBuf,
) -> io::Result<()> {
    match before {
        Stand::Absent => match stands {
            Stand::Directory { .. } => match tree.remove_directory(path) {
                // Somebody has put something there since: it is theirs now.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                other => other,
            },
            Stand::Absent | Stand::File { .. } | Stand::Symlink { .. } | Stand::Other { .. } => {
                tree.remove(path)
            }
        },
        Stand::Directory { mode, uid, gid } => {
            if *stands == Stand::Absent {
                tree.make_directory(path, *mode)?;
            }
            tree.set(path, *mode, Some(Owner { uid: *uid, gid: *gid }))
        }
        Stand::File { mode, uid, gid, content } => {
            tree.copy(&copied(*content), path, *mode, Some(Owner { uid: *uid, gid: *gid }), *content)
        }
        Stand::Symlink { target, uid, gid } => tree.link(path, target, Some(Owner { uid: *uid, gid: *gid })),
        Stand::Other { .. } => Ok(()),
    }
}
