//! Files that others replace while the server runs: certificates, keys, the inventory of
//! nodes. Mounted Secrets and ConfigMaps are swapped by a symlink above the file, so what
//! is compared is the file that a path leads to.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);

/// The largest file that is read: chains and bundles are much smaller.
const LARGEST: u64 = 256 * 1024;

/// Looks every few seconds until `end`. A slow disk holds up nobody's line.
pub async fn look_until(end: CancellationToken, look: impl Fn() + Send + Sync + 'static) {
    let look = Arc::new(look);
    while tokio::time::timeout(LOOK, end.cancelled()).await.is_err() {
        let look = Arc::clone(&look);
        // One that panics has said so, and would again.
        if tokio::task::spawn_blocking(move || look()).await.is_err() {
            return;
        }
    }
}

/// What the paths lead to at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(Vec<Option<Stamp>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamps {
    /// Looks; a file that is not there is a state like any other.
    #[must_use]
    pub fn of(paths: &[&Path]) -> Self {
        Self(paths.iter().map(|path| stamp(path)).collect())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        changed: (found.mtime(), found.mtime_nsec()),
    })
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}")]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

impl Unreadable {
    /// Whether no file is there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.cause.kind() == std::io::ErrorKind::NotFound
    }
}

/// A text file of reasonable size; wiped when dropped, as it may be a key.
///
/// # Errors
/// It cannot be read, is no text, or is no file.
pub fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, Unreadable> {
    read_at_most(path, LARGEST)
}

/// The same with a bound of its own, in bytes.
///
/// # Errors
/// As [`read`].
pub fn read_at_most(path: &Path, most: u64) -> Result<zeroize::Zeroizing<String>, Unreadable> {
    let wrong = |cause| Unreadable { path: path.to_owned(), cause };
    let size = std::fs::metadata(path).map_err(wrong)?;
    if !size.is_file() || size.len() > most {
        return Err(wrong(std::io::ErrorKind::InvalidInput.into()));
    }
    std::fs::read_to_string(path).map(zeroize::Zeroizing::new).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_of_a_link_above_the_file_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            std::fs::create_dir(at(version)).expect("a directory");
            std::fs::write(at(version).join("tls.crt"), version).expect("a file");
        }
        std::os::unix::fs::symlink("v1", at("..data")).expect("a link");
        std::os::unix::fs::symlink("..data/tls.crt", at("tls.crt")).expect("a link");
        let path = at("tls.crt");
        let before = Stamps::of(&[&path]);
        assert_eq!(before, Stamps::of(&[&path]));
        std::os::unix::fs::symlink("v2", at("..next")).expect("a link");
        std::fs::rename(at("..next"), at("..data")).expect("swapped");
        assert_ne!(before, Stamps::of(&[&path]));
        assert_eq!(read(&path).expect("a file").as_str(), "v2");
        std::fs::remove_file(at("..data")).expect("gone");
        assert_ne!(before, Stamps::of(&[&path]));
        assert!(read(&path).is_err() && read(directory.path()).is_err());
    }
}
