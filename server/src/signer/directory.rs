//! A directory with secrets: entered one process at a time, its files written
//! whole, for their owner alone, and never through a link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use zeroize::Zeroizing;

/// Who may read a file.
#[derive(Clone, Copy)]
pub(super) enum Readers {
    /// Its owner alone (0600); refused when anyone else may.
    Owner,
    /// Anyone (0644).
    Anyone,
}

/// The directory while this process has it for itself.
pub(super) struct Directory {
    directory: OwnedFd,
    /// Unlocked when closed.
    _lock: OwnedFd,
}

impl Directory {
    /// Makes it for its owner alone if it is not there, and waits until no
    /// other process is in it.
    pub(super) fn enter(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&directory, LOCK, flags, OWNER_ALONE)?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { directory, _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE)
                }
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// A file's content, wiped when dropped; `None` if it is not there.
    pub(super) fn read(&self, name: &str, readers: Readers) -> io::Result<Option<Zeroizing<String>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(cause.into()),
        };
        let found = rustix::fs::fstat(&file)?;
        let others = Mode::from_raw_mode(found.st_mode) & (Mode::RWXG | Mode::RWXO);
        match readers {
            Readers::Owner if !others.is_empty() => return Err(Unsafe.into()),
            Readers::Owner | Readers::Anyone => {}
        }
        // Sized once: a buffer that grows leaves copies of a secret behind.
        let mut content = Zeroizing::new(String::with_capacity(LARGEST));
        let read = file.take(u64::try_from(LARGEST).unwrap_or(u64::MAX)).read_to_string(&mut content)?;
        if read == LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(content)) }
    }

    /// Writes a file that is either there as a whole, durably, or not at all.
    pub(super) fn write(&self, name: &str, content: &[u8], readers: Readers) -> io::Result<()> {
        let draft = format!("{name}.new");
        // What a crash left behind; nobody else is in the directory.
        match rustix::fs::unlinkat(&self.directory, &draft, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(cause) => return Err(cause.into()),
        }
        let mode = match readers {
            Readers::Owner => OWNER_ALONE,
            Readers::Anyone => OWNER_ALONE | Mode::RGRP | Mode::ROTH,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.directory, &draft, flags, mode)?);
        file.write_all(content)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.directory, &draft, &self.directory, name)?;
        rustix::fs::fsync(&self.directory)?;
        Ok(())
    }
}

/// Others than the owner may read or write the file.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("others than its owner may read or write it: chmod 600 it, and think whether it was copied")]
struct Unsafe;

impl From<Unsafe> for io::Error {
    fn from(cause: Unsafe) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, cause)
    }
}

const LOCK: &str = "lock";
const OWNER_ALONE: Mode = Mode::RUSR.union(Mode::WUSR);
const LARGEST: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
