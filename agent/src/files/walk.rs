//! From the root to a directory, no symbolic link followed: in one step where
//! the kernel can (openat2, Linux 5.6), component by component elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The root, and how paths are walked from it.
pub(super) struct Walk {
    root: OwnedFd,
    /// Whether the kernel lacks openat2, or a sandbox forbids it.
    step_by_step: AtomicBool,
}

impl Walk {
    /// Opens the root.
    pub(super) fn from(root: &Path) -> io::Result<Self> {
        let root =
            rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, step_by_step: AtomicBool::new(false) })
    }

    /// Walks component by component from now on.
    #[cfg(test)]
    pub(super) fn without_openat2(&self) {
        self.step_by_step.store(true, Ordering::Relaxed);
    }

    /// Opens a directory below the root, for use as the start of further calls.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = relative(path)?;
        if !self.step_by_step.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let start = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            match rustix::fs::openat2(&self.root, start, DIRECTORY, Mode::empty(), resolve) {
                Err(Errno::NOSYS | Errno::PERM) => self.step_by_step.store(true, Ordering::Relaxed),
                Ok(directory) => return Ok(directory),
                Err(errno) => return Err(told(errno)),
            }
        }
        let mut at = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for name in path.components() {
            at = rustix::fs::openat(&at, name.as_os_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                .map_err(told)?;
        }
        Ok(at)
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An absolute path as seen from the root.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut components = path.components();
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "it is no absolute path without `..`");
    if components.next() != Some(Component::RootDir) {
        return Err(refused());
    }
    components
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            Component::CurDir | Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                Err(refused())
            }
        })
        .collect()
}

/// The kernel's two words for a link that is not followed, in plain ones.
fn told(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::NotADirectory,
            "a part of its path is a symbolic link or no directory, and Berth follows no links there",
        ),
        other => other.into(),
    }
}
