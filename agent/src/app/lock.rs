//! One agent per root: an advisory lock on a file of the state directory,
//! which the kernel releases however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::files::Tree;
use crate::host::survey::STATE_DIRECTORY;

/// The right to change what is below a root. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// The lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another process has it.
    #[error("another berth-agent{} works on {}; wait for it, or stop it: systemctl stop berth-agent", pid(.holder), root.display())]
    Held {
        /// The root.
        root: PathBuf,
        /// The other's process id, if it could write it.
        holder: Option<u32>,
    },
    /// The lock file could not be made or read.
    #[error("taking the lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

fn pid(holder: &Option<u32>) -> String {
    holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl Lock {
    /// Takes the lock of `root`, making the state directory if need be.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be made.
    pub(super) fn take(root: &Path) -> Result<Self, LockError> {
        let directory = state_directory(root);
        let path = directory.join("lock");
        let failed = |cause| LockError::Io { path: path.clone(), cause };
        let tree = Tree::open(root).map_err(failed)?;
        tree.make_directories(Path::new(STATE_DIRECTORY), 0o700).map_err(failed)?;
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(LockError::Held { root: root.to_owned(), holder: written_pid(&mut file) });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            if is_at(&file, &path) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Self { file, path });
            }
            // A reset removed the file between opening and locking.
        }
    }

    /// The process that has the lock of `root`, if one has. Changes nothing.
    #[must_use]
    pub(super) fn holder(root: &Path) -> Option<u32> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(state_directory(root).join("lock"))
            .ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => written_pid(&mut file),
            Ok(()) | Err(_) => None,
        }
    }

    /// Removes the lock file, and the state directory if that was all in it.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        drop(self.file);
        if let Some(directory) = self.path.parent() {
            match std::fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where the agent keeps its state below a root.
#[must_use]
pub(super) fn state_directory(root: &Path) -> PathBuf {
    root.join(STATE_DIRECTORY.trim_start_matches('/'))
}

fn written_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_do_not_work_on_one_root() {
        let root = tempfile::tempdir().expect("a directory");
        let lock = Lock::take(root.path()).expect("free");
        let refused = Lock::take(root.path()).expect_err("held");
        assert!(matches!(&refused, LockError::Held { holder, .. } if *holder == Some(std::process::id())));
        assert!(refused.to_string().contains(&format!("(pid {})", std::process::id())), "{refused}");
        assert_eq!(Lock::holder(root.path()), Some(std::process::id()));
        drop(lock);
        assert_eq!(Lock::holder(root.path()), None);
        Lock::take(root.path()).expect("free again");
    }

    #[test]
    fn a_removed_lock_leaves_no_directory_behind_and_can_be_taken_again() {
        let root = tempfile::tempdir().expect("a directory");
        Lock::take(root.path()).expect("free").remove().expect("its own");
        assert!(!state_directory(root.path()).exists());
        Lock::take(root.path()).expect("free again");
    }

    #[test]
    fn a_symlink_in_the_lock_s_place_is_not_followed() {
        let root = tempfile::tempdir().expect("a directory");
        let victim = root.path().join("victim");
        std::fs::write(&victim, "keep").expect("writable");
        std::fs::create_dir_all(state_directory(root.path())).expect("writable");
        std::os::unix::fs::symlink(&victim, state_directory(root.path()).join("lock")).expect("writable");
        assert!(matches!(Lock::take(root.path()), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(victim).expect("there"), "keep");
    }
}
