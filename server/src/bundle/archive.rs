//! A bundle as it lies on disk: an archive (POSIX tar) of `manifest.json`,
//! `signature.json` and `blobs/sha256/DIGEST`, or a directory of the same files. It is
//! read where it lies; only the list of it is held in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use berth_domain::bundle::{Entry, LARGEST_MANIFEST, MOST_ENTRIES, Manifest, Signature, Signed};
use berth_domain::identity::{Digest, Digesting};

use super::limits::BundleLimits;

/// The manifest's name.
pub(super) const MANIFEST: &str = "manifest.json";

/// The signature's name.
pub(super) const SIGNATURE: &str = "signature.json";

/// Where blobs are, each by its digest.
pub(super) const BLOBS: &str = "blobs/sha256/";

/// A bundle that can be read. Nothing of it is believed yet.
pub struct Archive {
    signed: Signed,
    blobs: BTreeMap<Digest, Blob>,
}

/// Where a blob's bytes are.
struct Blob {
    file: BlobFile,
    begins: u64,
    size: u64,
}

enum BlobFile {
    /// In the archive, which stays open: one that takes its place is another.
    Archive(std::sync::Arc<File>),
    /// By itself.
    Alone(PathBuf),
}

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system refused, or it is no archive.
    #[error("reading the bundle {path}")]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file of the list is not there.
    #[error("the bundle {path} has no {name}: it is no bundle, or was cut short; make it anew")]
    Missing {
        /// Where.
        path: PathBuf,
        /// Which file.
        name: String,
    },
    /// There is something that no bundle has.
    #[error("the bundle {path} has {name:?}, which no bundle has; make it anew")]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// The signature's file is none.
    #[error("the bundle {path} has a signature that cannot be read")]
    Signature {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// A blob is not what its name says.
    #[error("{entry} of the bundle is damaged: it has {found}, and the manifest says {wanted}; make it anew")]
    Damaged {
        /// Place and name.
        entry: String,
        /// Size or digest.
        found: String,
        /// Size or digest.
        wanted: String,
    },
}

impl Archive {
    /// Opens an archive, or a directory with the same files.
    ///
    /// # Errors
    /// Says what cannot be read, is missing or does not belong there.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let unreadable = |cause| ArchiveError::Unreadable { path: path.to_owned(), cause };
        if std::fs::metadata(path).map_err(unreadable)?.is_dir() { directory(path) } else { file(path) }
    }

    /// The manifest and its signature.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Holds the blobs against a manifest: each is there, with its size.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn complete(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        for entry in &manifest.entries {
            let found = self.blobs.get(&entry.sha256).map(|blob| blob.size);
            if found != Some(entry.size) {
                let found = found.map_or_else(|| "nothing".to_owned(), |size| format!("{size} bytes"));
                return Err(damaged(entry, found, format!("{} bytes", entry.size)));
            }
        }
        Ok(())
    }

    /// The same with every byte of every blob.
    ///
    /// # Errors
    /// Names the first that is damaged.
    pub fn verify(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        self.complete(manifest)?;
        for entry in &manifest.entries {
            let (mut digesting, mut offset) = (Digesting::default(), 0);
            while offset < entry.size {
                let chunk = self.read(entry.sha256, offset, BundleLimits::CHUNK).map_err(|cause| {
                    damaged(entry, format!("unreadable bytes ({cause})"), entry.sha256.to_string())
                })?;
                digesting.add(&chunk);
                offset = offset.saturating_add(chunk.len() as u64);
            }
            let found = digesting.digest();
            if found != entry.sha256 {
                return Err(damaged(entry, found.to_string(), entry.sha256.to_string()));
            }
        }
        Ok(())
    }

    /// A blob's size, if it is here.
    #[must_use]
    pub fn size(&self, blob: Digest) -> Option<u64> {
        self.blobs.get(&blob).map(|blob| blob.size)
    }

    /// Bytes of a blob from an offset on: `most` of them, or as many as are left; none
    /// at its end. Blocks for the disk.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    pub fn read(&self, blob: Digest, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let blob = self.blobs.get(&blob).ok_or(io::ErrorKind::NotFound)?;
        let left = usize::try_from(blob.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(most)];
        let from = blob.begins.saturating_add(offset);
        match &blob.file {
            BlobFile::Archive(file) => file.read_exact_at(&mut bytes, from)?,
            BlobFile::Alone(path) => File::open(path)?.read_exact_at(&mut bytes, from)?,
        }
        Ok(bytes)
    }
}

fn damaged(entry: &Entry, found: String, wanted: String) -> ArchiveError {
    ArchiveError::Damaged { entry: format!("{}/{}", entry.place, entry.name), found, wanted }
}

fn file(path: &Path) -> Result<Archive, ArchiveError> {
    let unreadable = |cause| ArchiveError::Unreadable { path: path.to_owned(), cause };
    let file = std::sync::Arc::new(File::open(path).map_err(unreadable)?);
    let mut tar = tar::Archive::new(&*file);
    let (mut manifest, mut signature, mut blobs) = (None, None, BTreeMap::new());
    // Two files that are no blobs; and one more, to find what does not belong there.
    let most = MOST_ENTRIES.saturating_add(3);
    for entry in tar.entries_with_seek().map_err(unreadable)?.take(most) {
        let mut entry = entry.map_err(unreadable)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        let mut whole = |most: u64| {
            let mut bytes = Vec::new();
            entry.by_ref().take(most).read_to_end(&mut bytes).map(|_| bytes)
        };
        match name.as_str() {
            MANIFEST => manifest = Some(whole(LARGEST_MANIFEST as u64 + 1).map_err(unreadable)?),
            SIGNATURE => signature = Some(whole(BundleLimits::LARGEST_SIGNATURE).map_err(unreadable)?),
            other => {
                let begins = entry.raw_file_position();
                let digest = other.strip_prefix(BLOBS).and_then(|hex| hex.parse().ok());
                let foreign = || ArchiveError::Foreign { path: path.to_owned(), name: name.clone() };
                let digest: Digest = digest.ok_or_else(foreign)?;
                let file = BlobFile::Archive(std::sync::Arc::clone(&file));
                blobs.insert(digest, Blob { file, begins, size });
            }
        }
    }
    made(path, manifest, signature, blobs)
}

fn directory(path: &Path) -> Result<Archive, ArchiveError> {
    let unreadable = |cause| ArchiveError::Unreadable { path: path.to_owned(), cause };
    let whole = |name: &str, most: u64| {
        let mut bytes = Vec::new();
        match File::open(path.join(name)) {
            Ok(file) => file.take(most).read_to_end(&mut bytes).map(|_| Some(bytes)).map_err(unreadable),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    };
    let manifest = whole(MANIFEST, LARGEST_MANIFEST as u64 + 1)?;
    let signature = whole(SIGNATURE, BundleLimits::LARGEST_SIGNATURE)?;
    let mut blobs = BTreeMap::new();
    for found in std::fs::read_dir(path.join(BLOBS)).map_err(unreadable)? {
        let found = found.map_err(unreadable)?;
        // What else lies there is nobody's to have.
        let Some(digest) = found.file_name().to_str().and_then(|hex| hex.parse::<Digest>().ok()) else {
            continue;
        };
        let size = found.metadata().map_err(unreadable)?.len();
        blobs.insert(digest, Blob { file: BlobFile::Alone(found.path()), begins: 0, size });
    }
    made(path, manifest, signature, blobs)
}

fn made(
    path: &Path,
    manifest: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
    blobs: BTreeMap<Digest, Blob>,
) -> Result<Archive, ArchiveError> {
    let missing = |name: &str| ArchiveError::Missing { path: path.to_owned(), name: name.to_owned() };
    let manifest = manifest.ok_or_else(|| missing(MANIFEST))?;
    let signature = signature.ok_or_else(|| missing(SIGNATURE))?;
    let signature: Signature = serde_json::from_slice(&signature)
        .map_err(|cause| ArchiveError::Signature { path: path.to_owned(), cause })?;
    Ok(Archive { signed: Signed { manifest, signature }, blobs })
}
