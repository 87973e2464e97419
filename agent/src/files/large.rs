//! Files that are never whole in memory: digested, copied and linked in pieces.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use berth_domain::identity::{Digest, Digesting};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{Operation, Owner, Tree, beside};

/// Bytes of one piece.
const PIECE: usize = 64 * 1024;

impl Tree {
    /// Opens a regular file to be read; `None` where nothing is.
    pub(crate) fn open_file(&self, path: &Path) -> io::Result<Option<File>> {
        // Without NONBLOCK a FIFO put there in between would hold the agent for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = self
            .parent(path)
            .and_then(|(parent, name)| Ok(rustix::fs::openat(&parent, name, flags, Mode::empty())?));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Some(File::from(file)))
    }

    /// Size and digest of a regular file's content; `None` where nothing is.
    pub(crate) fn digest(&self, path: &Path) -> io::Result<Option<(u64, Digest)>> {
        let Some(mut file) = self.open_file(path)? else { return Ok(None) };
        let (mut size, mut digesting) = (0, Digesting::default());
        pieces(&mut file, |piece| {
            size += piece.len() as u64;
            digesting.add(piece);
            Ok(())
        })?;
        Ok(Some((size, digesting.digest())))
    }

    /// Puts a copy of a file in the place of whatever file or link was there, as
    /// [`Tree::write`] does. Its content must have this digest.
    pub(crate) fn copy(
        &self,
        from: &Path,
        to: &Path,
        mode: u32,
        owner: Option<Owner>,
        digest: Digest,
    ) -> io::Result<()> {
        let mut source = self.open_file(from)?.ok_or(io::ErrorKind::NotFound)?;
        self.write_with(to, mode, owner, |file| {
            let mut digesting = Digesting::default();
            pieces(&mut source, |piece| {
                digesting.add(piece);
                file.write_all(piece)
            })?;
            if digesting.digest() == digest {
                return Ok(());
            }
            let what = format!("{} is not what it was when it was looked at", from.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        })
    }

    /// Puts a file of the agent's own in the place of whatever file or link was there,
    /// by a second name for it: no byte is copied. Where the two lie on different file
    /// systems, or theirs knows no second names, it is copied.
    pub(crate) fn install(&self, from: &Path, to: &Path, mode: u32, digest: Digest) -> io::Result<()> {
        // One that has a second name already belongs there: the two would be one file.
        let (parent, name) = self.parent(from)?;
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink > 1 {
            return self.copy(from, to, mode, None, digest);
        }
        match self.link_file(from, to, mode) {
            Err(error) if is_no_place_for_links(&error) => self.copy(from, to, mode, None, digest),
            other => other,
        }
    }

    fn link_file(&self, from: &Path, to: &Path, mode: u32) -> io::Result<()> {
        let (source, source_name) = self.parent(from)?;
        let (parent, name) = self.parent(to)?;
        let beside = beside(name);
        let linked = self.clear(&parent, &beside, to).and_then(|()| {
            self.gate.pass(Operation::Create, to)?;
            rustix::fs::linkat(&source, source_name, &parent, beside.as_slice(), AtFlags::empty())?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&parent, beside.as_slice(), flags, Mode::empty())?;
            self.gate.pass(Operation::Mode, to)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            self.gate.pass(Operation::Sync, to)?;
            rustix::fs::fsync(&file)?;
            self.gate.pass(Operation::Rename, to)?;
            rustix::fs::renameat(&parent, beside.as_slice(), &parent, name)?;
            // rename(2): of two names for one file, both stay.
            match rustix::fs::unlinkat(&parent, beside.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        });
        self.settle(linked, &parent, &beside, to)
    }

    /// Opens a file of the agent's own to be written on from its end, or makes it
    /// (0600). It is no part of any plan: what is there may be cut short.
    pub(crate) fn append(&self, path: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        self.gate.pass(Operation::Create, path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file of one name"));
        }
        Ok(File::from(file))
    }

    /// Gives a file of the agent's own its final name, durably.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((source, source_name), (parent, name)) = (self.parent(from)?, self.parent(to)?);
        self.gate.pass(Operation::Rename, to)?;
        rustix::fs::renameat(&source, source_name, &parent, name)?;
        self.sync(&parent, to)
    }

    /// Bytes that an unprivileged user could still write where this directory is.
    pub(crate) fn free(&self, directory: &Path) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(super::readable(&self.walk.directory(directory)?)?)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Reads to the end, piece by piece. A piece may be part of a secret.
pub(crate) fn pieces(from: &mut File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = Zeroizing::new(vec![0; PIECE]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// EXDEV, and what file systems without links say; EPERM also where the kernel protects
/// links (proc(5), protected_hardlinks).
fn is_no_place_for_links(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::MLINK))
}
