//! Makes a bundle's archive. The same files give the same bytes: nothing of the
//! machine, the user or the hour goes in, and the signature (Ed25519) is the same for
//! the same manifest.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_domain::bundle::{Entry, FORMAT, Manifest, ManifestProblem, Signature, Signed};
use berth_domain::identity::{Digest, Digesting};

use super::archive::{BLOBS, MANIFEST, SIGNATURE};
use super::sources::{self, Ingredient, header};

pub use super::sources::{Asked, SourceError};

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something cannot go into it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It would break a bound.
    #[error(transparent)]
    Manifest(#[from] ManifestProblem),
    /// The key did not sign.
    #[error("signing the manifest")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The archive cannot be written.
    #[error("writing {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file was written while it was read.
    #[error("{path} changed while it was read: make the bundle again once it is finished")]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// Makes the bundle of what was asked for at `to`, whole or not at all, and gives back
/// what was signed. Blocks.
///
/// # Errors
/// Says what cannot go in, or cannot be written.
pub fn create<E>(
    asked: &Asked,
    to: &Path,
    sign: impl FnOnce(&[u8]) -> Result<Signature, E>,
) -> Result<Signed, CreateError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let ingredients = sources::gather(asked)?;
    let entries = ingredients.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let manifest = Manifest { format: FORMAT, entries }.to_bytes()?;
    let signature = sign(&manifest).map_err(|cause| CreateError::Sign(Box::new(cause)))?;
    let signed = Signed { manifest, signature };
    let draft = draft(to);
    let written = write(&signed, &ingredients, &draft).and_then(|()| {
        std::fs::rename(&draft, to).map_err(|cause| CreateError::Write { path: to.to_owned(), cause })
    });
    if written.is_err() {
        // The failure itself is the one to tell of.
        let _ = std::fs::remove_file(&draft);
    }
    written.map(|()| signed)
}

fn draft(to: &Path) -> PathBuf {
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    to.with_file_name(format!(".{name}.berth-new"))
}

fn entry(from: &Ingredient) -> Result<Entry, SourceError> {
    let (size, sha256) = measured(from)?;
    Ok(Entry {
        place: from.place,
        name: from.name.clone(),
        architecture: from.architecture,
        version: from.version.clone(),
        license: from.license.clone(),
        references: from.references.clone(),
        size,
        sha256,
    })
}

fn measured(from: &Ingredient) -> Result<(u64, Digest), SourceError> {
    let mut meter = Meter { to: io::sink(), size: 0, digesting: Digesting::default() };
    from.source
        .pour(&mut meter)
        .map_err(|cause| SourceError::Unreadable { path: from.source.path().to_owned(), cause })?;
    Ok((meter.size, meter.digesting.digest()))
}

fn write(signed: &Signed, ingredients: &[Ingredient], draft: &Path) -> Result<(), CreateError> {
    let failed = |cause| CreateError::Write { path: draft.to_owned(), cause };
    let signature = serde_json::to_vec_pretty(&signed.signature).map_err(|error| failed(error.into()))?;
    // What an interrupted attempt has left is nobody's.
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).open(draft).map_err(failed)?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    for (name, bytes) in [(MANIFEST, &signed.manifest), (SIGNATURE, &signature)] {
        tar.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice()).map_err(failed)?;
    }
    let manifest = Manifest::parse(&signed.manifest)?;
    let blobs: BTreeMap<Digest, (&Entry, &Ingredient)> =
        manifest.entries.iter().zip(ingredients).map(|(entry, from)| (entry.sha256, (entry, from))).collect();
    for (digest, (entry, from)) in blobs {
        blob(tar.get_mut(), digest, entry, from, failed)?;
    }
    let file =
        tar.into_inner().and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
    file.and_then(|file: File| file.sync_all()).map_err(failed)
}

/// A blob straight into the archive: what it is made of may be an archive in the making.
fn blob(
    to: &mut io::BufWriter<File>,
    digest: Digest,
    entry: &Entry,
    from: &Ingredient,
    failed: impl Fn(io::Error) -> CreateError,
) -> Result<(), CreateError> {
    let mut header = header(entry.size);
    header.set_path(format!("{BLOBS}{digest}")).map_err(&failed)?;
    header.set_cksum();
    to.write_all(header.as_bytes()).map_err(&failed)?;
    let mut meter = Meter { to: &mut *to, size: 0, digesting: Digesting::default() };
    from.source.pour(&mut meter).map_err(&failed)?;
    if (meter.size, meter.digesting.digest()) != (entry.size, digest) {
        return Err(CreateError::Changed { path: from.source.path().to_owned() });
    }
    let padding = entry.size.next_multiple_of(BLOCK).saturating_sub(entry.size);
    to.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)]).map_err(&failed)
}

/// Bytes of tar's blocks.
const BLOCK: u64 = 512;

/// Counts and digests what passes.
struct Meter<W> {
    to: W,
    size: u64,
    digesting: Digesting,
}

impl<W: Write> Write for Meter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        let passed = bytes.get(..written).unwrap_or_default();
        self.digesting.add(passed);
        self.size = self.size.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
