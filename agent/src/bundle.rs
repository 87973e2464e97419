//! The depot below the agent's own directory, by digest: `part` has what is still on
//! its way, `blobs` what was verified and made durable. What a crash leaves is either
//! a blob or the beginning of one.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use berth_domain::bundle::{LARGEST_MANIFEST, Signature, Signed};
use berth_domain::identity::{Digest, Digesting};

use crate::files::{State, Tree, pieces};
use crate::plan::{CACHE, cached};
use crate::ports::{Depot, DepotError, Draft, FileError, Stage};

/// The depot of a machine.
pub struct FileDepot {
    tree: Tree,
    state: State,
    blobs: State,
    parts: State,
}

impl FileDepot {
    /// The depot below a root.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn below(root: &Path) -> io::Result<Self> {
        Ok(Self::in_tree(Tree::open(root)?))
    }

    fn in_tree(tree: Tree) -> Self {
        let at = |directory: &str| State::at(tree.clone(), Path::new(CACHE).join(directory));
        Self { state: at(""), blobs: at("blobs"), parts: at("part"), tree }
    }

    /// Forgets all of it, the manifest too.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn forget(&self) -> Result<(), DepotError> {
        self.clear()?;
        for name in [SIGNATURE, MANIFEST] {
            self.state.remove(name).map_err(FileError::not_written(self.state.path(name)))?;
        }
        Ok(self.state.remove_if_empty().map_err(FileError::not_written(CACHE))?)
    }
}

impl Depot for FileDepot {
    fn kept(&self) -> Result<Option<Signed>, DepotError> {
        let read = |name: &str| self.state.read(name).map_err(FileError::not_read(self.state.path(name)));
        let (Some(manifest), Some(signature)) = (read(MANIFEST)?, read(SIGNATURE)?) else { return Ok(None) };
        // What cannot be read any more is asked for again.
        let signature = serde_json::from_slice::<Signature>(&signature).ok();
        let signature = signature.filter(|_| manifest.len() <= LARGEST_MANIFEST);
        Ok(signature.map(|signature| Signed { manifest: manifest.to_vec(), signature }))
    }

    fn keep(&self, signed: &Signed) -> Result<(), DepotError> {
        let write = |name: &str, content: &[u8]| {
            self.state.write(name, content).map_err(FileError::not_written(self.state.path(name)))
        };
        write(MANIFEST, &signed.manifest)?;
        let signature = serde_json::to_vec_pretty(&signed.signature).map_err(io::Error::from);
        write(SIGNATURE, &signature.map_err(FileError::not_written(self.state.path(SIGNATURE)))?)?;
        Ok(())
    }

    fn free(&self) -> Result<u64, DepotError> {
        let path = Path::new(CACHE);
        let free = self.state.prepare().and_then(|()| self.tree.free(path));
        Ok(free.map_err(FileError::not_read(path))?)
    }

    fn draft(&self, blob: Digest, size: u64) -> Result<Stage, DepotError> {
        let whole = cached(blob);
        // It was verified before it got its name; the disk may have changed it since.
        match self.tree.digest(&whole).map_err(FileError::not_read(&whole))? {
            Some(found) if found == (size, blob) => return Ok(Stage::Whole),
            Some(_) => self.tree.remove(&whole).map_err(FileError::not_written(&whole))?,
            None => {}
        }
        let path = self.parts.path(&blob.to_hex());
        self.blobs.prepare().map_err(FileError::not_written(&whole))?;
        self.parts.prepare().map_err(FileError::not_written(&path))?;
        let mut file = self.tree.append(&path).map_err(FileError::not_written(&path))?;
        let (mut offset, mut digesting) = (0, Digesting::default());
        pieces(&mut file, |piece| {
            offset += piece.len() as u64;
            digesting.add(piece);
            Ok(())
        })
        .map_err(FileError::not_read(&path))?;
        if offset > size {
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .map_err(FileError::not_written(&path))?;
            (offset, digesting) = (0, Digesting::default());
        }
        let tree = self.tree.clone();
        Ok(Stage::Part(Box::new(FileDraft { tree, file, path, blob, size, offset, digesting })))
    }

    fn clear(&self) -> Result<(), DepotError> {
        for state in [&self.parts, &self.blobs] {
            let none = state.path("");
            for name in state.names().map_err(FileError::not_written(&none))? {
                state.remove(&name).map_err(FileError::not_written(&state.path(&name)))?;
            }
            state.remove_if_empty().map_err(FileError::not_written(&none))?;
        }
        Ok(())
    }
}

struct FileDraft {
    tree: Tree,
    file: File,
    path: PathBuf,
    blob: Digest,
    size: u64,
    offset: u64,
    digesting: Digesting,
}

impl FileDraft {
    fn thrown_away(&self, found: String) -> DepotError {
        match self.tree.remove(&self.path) {
            Ok(()) => DepotError::Damaged { blob: self.blob, found },
            Err(cause) => FileError::not_written(&self.path)(cause).into(),
        }
    }
}

impl Draft for FileDraft {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), DepotError> {
        let next = self.offset.saturating_add(bytes.len() as u64);
        if next > self.size {
            return Err(self.thrown_away(format!("more than its {} bytes", self.size)));
        }
        self.file.write_all(bytes).map_err(FileError::not_written(&self.path))?;
        self.digesting.add(bytes);
        self.offset = next;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), DepotError> {
        let found = self.digesting.clone().digest();
        if self.offset != self.size || found != self.blob {
            return Err(self.thrown_away(format!("{} bytes and the SHA-256 {found}", self.offset)));
        }
        let whole = cached(self.blob);
        self.file.sync_all().map_err(FileError::not_written(&self.path))?;
        Ok(self.tree.rename(&self.path, &whole).map_err(FileError::not_written(&whole))?)
    }
}

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "signature.json";

#[cfg(any(test, feature = "doubles"))]
mod memory;
#[cfg(any(test, feature = "doubles"))]
pub use memory::{MemoryDepot, MemorySupplier};
