//! The one way to change files: below a root, without following any symbolic
//! link (SECURITY R25), each write whole or not at all, and no mode ever wider
//! than declared.

mod gate;
mod large;
mod state;
mod walk;

#[cfg(test)]
pub(crate) use gate::testing;
pub(crate) use gate::{Gate, Operation};
pub(crate) use large::pieces;
pub(crate) use state::State;

pub(crate) use crate::host::survey::STATE_DIRECTORY;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use zeroize::Zeroizing;

use self::gate::Free;
use self::walk::Walk;

/// The largest file that is read, in bytes.
pub(crate) const LARGEST_FILE: u64 = 16 << 20;

/// A directory, and what is reached from it.
#[derive(Clone)]
pub(crate) struct Tree {
    walk: Arc<Walk>,
    gate: Arc<dyn Gate>,
}

/// Who owns something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What a path names, the last component not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Absent,
    Directory { mode: u32, owner: Owner },
    File { mode: u32, owner: Owner },
    Symlink { target: PathBuf, owner: Owner },
    Other { kind: &'static str },
}

impl Tree {
    /// Opens the root. Links in the root's own path are the caller's affair.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        Self::with_gate(root, Arc::new(Free))
    }

    /// Opens the root with something that stands before each change.
    pub(crate) fn with_gate(root: &Path, gate: Arc<dyn Gate>) -> io::Result<Self> {
        Ok(Self { walk: Arc::new(Walk::from(root)?), gate })
    }

    /// What stands at a path.
    pub(crate) fn look(&self, path: &Path) -> io::Result<Entry> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Absent),
            Err(error) => return Err(error),
        };
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Entry::Absent),
            Err(errno) => return Err(errno.into()),
        };
        let (mode, owner) = (mode_of(&stat), Owner { uid: stat.st_uid, gid: stat.st_gid });
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Entry::Directory { mode, owner },
            FileType::RegularFile => Entry::File { mode, owner },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                Entry::Symlink { target: PathBuf::from(OsStr::from_bytes(target.as_bytes())), owner }
            }
            FileType::Fifo => Entry::Other { kind: "a FIFO" },
            FileType::Socket => Entry::Other { kind: "a socket" },
            FileType::CharacterDevice | FileType::BlockDevice => Entry::Other { kind: "a device" },
            FileType::Unknown => Entry::Other { kind: "something unknown" },
        })
    }

    /// The content of a regular file of at most [`LARGEST_FILE`] bytes; `None`
    /// where nothing is.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let size = file.metadata()?.len();
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB");
        if size > LARGEST_FILE {
            return Err(too_large());
        }
        // All of the room at once: a buffer that grows leaves copies of a secret behind.
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 64));
        file.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LARGEST_FILE {
            return Err(too_large());
        }
        Ok(Some(content))
    }

    /// Puts a file in the place of whatever file or link was there: written
    /// beside it, with its mode before its content, made durable, then renamed.
    pub(crate) fn write(
        &self,
        path: &Path,
        mode: u32,
        owner: Option<Owner>,
        content: &[u8],
    ) -> io::Result<()> {
        self.write_with(path, mode, owner, |file| file.write_all(content))
    }

    fn write_with(
        &self,
        path: &Path,
        mode: u32,
        owner: Option<Owner>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let beside = beside(name);
        let written = self.write_beside(&parent, &beside, path, mode, owner, fill).and_then(|()| {
            self.gate.pass(Operation::Rename, path)?;
            Ok(rustix::fs::renameat(&parent, beside.as_slice(), &parent, name)?)
        });
        self.settle(written, &parent, &beside, path)
    }

    /// Puts a symbolic link in the place of whatever file or link was there.
    pub(crate) fn link(&self, path: &Path, target: &Path, owner: Option<Owner>) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let beside = beside(name);
        let linked = self.clear(&parent, &beside, path).and_then(|()| {
            self.gate.pass(Operation::Create, path)?;
            rustix::fs::symlinkat(target, &parent, beside.as_slice())?;
            if let Some(Owner { uid, gid }) = owner {
                let stat = rustix::fs::statat(&parent, beside.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
                if (stat.st_uid, stat.st_gid) != (uid, gid) {
                    self.gate.pass(Operation::Owner, path)?;
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    rustix::fs::chownat(&parent, beside.as_slice(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            self.gate.pass(Operation::Rename, path)?;
            Ok(rustix::fs::renameat(&parent, beside.as_slice(), &parent, name)?)
        });
        self.settle(linked, &parent, &beside, path)
    }

    /// Makes a directory; that it is there already is an error.
    pub(crate) fn make_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.gate.pass(Operation::Create, path)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode & 0o700))?;
        self.set(path, mode, None)?;
        self.sync(&parent, path)
    }

    /// Makes a directory with all that lie above it and are not there yet.
    pub(crate) fn make_directories(&self, path: &Path, mode: u32) -> io::Result<()> {
        if self.look(path)? != Entry::Absent {
            return Ok(());
        }
        if let Some(above) = path.parent().filter(|above| above.parent().is_some()) {
            self.make_directories(above, 0o755)?;
        }
        self.make_directory(path, mode)
    }

    /// Sets mode and owner of a directory.
    pub(crate) fn set(&self, path: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let directory = self.walk.directory(path)?;
        let directory = readable(&directory)?;
        if let Some(owner) = owner {
            self.give(&directory, path, owner)?;
        }
        self.gate.pass(Operation::Mode, path)?;
        Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?)
    }

    /// Removes a file or link. That it is gone already is no error.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, AtFlags::empty())
    }

    /// Removes an empty directory. That it is gone already is no error.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, AtFlags::REMOVEDIR)
    }

    /// Removes what an interrupted write has left beside a path.
    pub(crate) fn remove_remains(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let beside = beside(name);
        match rustix::fs::statat(&parent, beside.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.clear(&parent, &beside, path),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Names in a directory, sorted; empty where there is none.
    pub(crate) fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let directory = match self.walk.directory(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        // Opened anew: the walk's own descriptors are good for finding things only.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&directory, ".", flags, Mode::empty())?;
        for entry in rustix::fs::Dir::new(readable)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names the root itself"));
        };
        Ok((self.walk.directory(parent)?, name))
    }

    fn write_beside(
        &self,
        parent: &OwnedFd,
        beside: &[u8],
        path: &Path,
        mode: u32,
        owner: Option<Owner>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.clear(parent, beside, path)?;
        self.gate.pass(Operation::Create, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, beside, flags, Mode::from_raw_mode(mode & 0o600))?;
        if let Some(owner) = owner {
            self.give(&file, path, owner)?;
        }
        self.gate.pass(Operation::Mode, path)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        self.gate.pass(Operation::Write, path)?;
        let mut file = File::from(file);
        fill(&mut file)?;
        self.gate.pass(Operation::Sync, path)?;
        file.sync_all()
    }

    /// Ends a write: durable when it was done, nothing left beside when not.
    fn settle(&self, done: io::Result<()>, parent: &OwnedFd, beside: &[u8], path: &Path) -> io::Result<()> {
        if done.is_err() {
            // The write's own failure is the one to tell of.
            let _ = self.clear(parent, beside, path);
        }
        done?;
        self.sync(parent, path)
    }

    /// Takes away what stands at the name beside, whoever put it there. A
    /// link there is removed, not followed.
    fn clear(&self, parent: &OwnedFd, beside: &[u8], path: &Path) -> io::Result<()> {
        self.gate.pass(Operation::Remove, path)?;
        match rustix::fs::unlinkat(parent, beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn give(&self, to: &OwnedFd, path: &Path, owner: Owner) -> io::Result<()> {
        let stat = rustix::fs::fstat(to)?;
        if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
            return Ok(());
        }
        self.gate.pass(Operation::Owner, path)?;
        Ok(rustix::fs::fchown(to, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?)
    }

    fn unlink(&self, path: &Path, flags: AtFlags) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.gate.pass(Operation::Remove, path)?;
        match rustix::fs::unlinkat(&parent, name, flags) {
            Ok(()) => self.sync(&parent, path),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        self.gate.pass(Operation::SyncDirectory, path)?;
        Ok(rustix::fs::fsync(readable(directory)?)?)
    }
}

/// The same directory once more: the descriptors of a walk only name it.
fn readable(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// The user that new files belong to.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The group that new files belong to, unless their directory says otherwise.
pub(crate) fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

fn mode_of(stat: &Stat) -> u32 {
    Mode::from_raw_mode(stat.st_mode).bits() & 0o7777
}

/// The name under which a file is written before it takes its own. It is always
/// the same, so that whoever comes after a crash finds it.
fn beside(name: &OsStr) -> Vec<u8> {
    [b".", name.as_bytes(), b".berth-new"].concat()
}

#[cfg(test)]
mod tests;
