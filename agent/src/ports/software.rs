//! The ports of node software: the server that hands it out, and the depot where it is
//! kept until it stands.

use async_trait::async_trait;
use berth_domain::bundle::{Signed, Wanted};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;

use super::file::FileError;
use super::server::LineError;

/// The server's bundles, over connection 2.
#[async_trait]
pub trait Supplier: Send + Sync {
    /// What is in a bundle; nothing of it is verified yet.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn describe(&self, bundle: Digest) -> Result<Signed, LineError>;

    /// Begins to take a blob, from an offset on.
    ///
    /// # Errors
    /// The server refuses, or the line is lost.
    async fn fetch(&self, wanted: &Wanted) -> Result<Box<dyn Delivery>, LineError>;
}

/// A blob on its way.
#[async_trait]
pub trait Delivery: Send {
    /// The next bytes, never none; `None` at the end, which may be too early.
    ///
    /// # Errors
    /// The server refuses, is silent or says nonsense, or the line is lost.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError>;
}

/// Where software is kept, by digest, until it stands. Blocks for the disk.
pub trait Depot: Send + Sync {
    /// The manifest that was kept last; it is to be verified anew.
    ///
    /// # Errors
    /// It is there and cannot be read.
    fn kept(&self) -> Result<Option<Signed>, DepotError>;

    /// Keeps a manifest in place of the last one.
    ///
    /// # Errors
    /// It cannot be written.
    fn keep(&self, signed: &Signed) -> Result<(), DepotError>;

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// The system does not say.
    fn free(&self) -> Result<u64, DepotError>;

    /// Goes on with a blob of so many bytes where it was cut off. A blob that is here
    /// as a whole has the right digest.
    ///
    /// # Errors
    /// It cannot be read or written.
    fn draft(&self, blob: Digest, size: u64) -> Result<Stage, DepotError>;

    /// Forgets all blobs, whole or not: they stand where they belong.
    ///
    /// # Errors
    /// One cannot be removed.
    fn clear(&self) -> Result<(), DepotError>;
}

/// How far a blob has come.
pub enum Stage {
    /// It is here.
    Whole,
    /// It can be written on.
    Part(Box<dyn Draft>),
}

/// A blob that is not whole yet. What was added outlives a crash of the agent.
pub trait Draft: Send {
    /// Bytes that are here: where to go on.
    fn offset(&self) -> u64;

    /// Adds the next bytes.
    ///
    /// # Errors
    /// They are more than belong there, or cannot be written.
    fn add(&mut self, bytes: &[u8]) -> Result<(), DepotError>;

    /// Makes it whole, durably. One with another digest is thrown away.
    ///
    /// # Errors
    /// Its digest is another, or it cannot be written.
    fn finish(self: Box<Self>) -> Result<(), DepotError>;
}

/// The depot did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A blob is not what its name says.
    #[error("the file {blob} arrived with {found}")]
    Damaged {
        /// The digest that it should have.
        blob: Digest,
        /// What it has.
        found: String,
    },
}

impl DepotError {
    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        match self {
            Self::File(error) => error.into_diagnosis(phase),
            Self::Damaged { .. } => Diagnosis::new(Code::BundleDamaged, phase).with("problem", self),
        }
    }
}
