//! The doubles: a depot and a supplier in memory that work as the real ones do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use berth_domain::bundle::{CHUNK_BYTES, Signed, Wanted};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;

use crate::ports::server::LineError;
use crate::ports::{Delivery, Depot, DepotError, Draft, Stage, Supplier};

/// A depot in memory, shared by its clones.
#[derive(Clone, Default)]
pub struct MemoryDepot {
    inner: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    signed: Option<Signed>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    parts: BTreeMap<Digest, Vec<u8>>,
    /// Bytes that it has room for; `None`: enough.
    room: Option<u64>,
}

impl MemoryDepot {
    /// A blob that is whole.
    #[must_use]
    pub fn blob(&self, blob: Digest) -> Option<Vec<u8>> {
        self.inner().blobs.get(&blob).cloned()
    }

    /// Leaves room for so many bytes.
    pub fn leave_room(&self, bytes: Option<u64>) {
        self.inner().room = bytes;
    }

    fn inner(&self) -> MutexGuard<'_, Kept> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Depot for MemoryDepot {
    fn kept(&self) -> Result<Option<Signed>, DepotError> {
        Ok(self.inner().signed.clone())
    }

    fn keep(&self, signed: &Signed) -> Result<(), DepotError> {
        self.inner().signed = Some(signed.clone());
        Ok(())
    }

    fn free(&self) -> Result<u64, DepotError> {
        Ok(self.inner().room.unwrap_or(u64::MAX))
    }

    fn draft(&self, blob: Digest, size: u64) -> Result<Stage, DepotError> {
        let mut kept = self.inner();
        if kept.blobs.contains_key(&blob) {
            return Ok(Stage::Whole);
        }
        let part = kept.parts.entry(blob).or_default();
        if part.len() as u64 > size {
            part.clear();
        }
        let depot = self.clone();
        Ok(Stage::Part(Box::new(MemoryDraft { depot, blob, size })))
    }

    fn clear(&self) -> Result<(), DepotError> {
        let mut kept = self.inner();
        kept.blobs.clear();
        kept.parts.clear();
        Ok(())
    }
}

struct MemoryDraft {
    depot: MemoryDepot,
    blob: Digest,
    size: u64,
}

impl MemoryDraft {
    fn thrown_away(&self, found: String) -> DepotError {
        self.depot.inner().parts.remove(&self.blob);
        DepotError::Damaged { blob: self.blob, found }
    }
}

impl Draft for MemoryDraft {
    fn offset(&self) -> u64 {
        self.depot.inner().parts.get(&self.blob).map_or(0, |part| part.len() as u64)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), DepotError> {
        if self.offset().saturating_add(bytes.len() as u64) > self.size {
            return Err(self.thrown_away(format!("more than its {} bytes", self.size)));
        }
        self.depot.inner().parts.entry(self.blob).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), DepotError> {
        let part = self.depot.inner().parts.get(&self.blob).cloned().unwrap_or_default();
        if Digest::of(&part) != self.blob {
            return Err(self.thrown_away(format!("the SHA-256 {}", Digest::of(&part))));
        }
        let mut kept = self.depot.inner();
        kept.parts.remove(&self.blob);
        kept.blobs.insert(self.blob, part);
        Ok(())
    }
}

/// A supplier in memory, shared by its clones.
#[derive(Clone, Default)]
pub struct MemorySupplier {
    inner: Arc<Mutex<Stock>>,
}

#[derive(Default)]
struct Stock {
    signed: Option<Signed>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// The line is lost after so many chunks.
    chunks: Option<usize>,
    sent: u64,
}

impl MemorySupplier {
    /// Holds one bundle with its blobs; each is handed out under the name given.
    pub fn hold(&self, signed: Signed, blobs: impl IntoIterator<Item = (Digest, Vec<u8>)>) {
        let mut stock = self.inner();
        stock.signed = Some(signed);
        stock.blobs = blobs.into_iter().collect();
    }

    /// Lets the line be lost after so many chunks; `None`: never.
    pub fn cut_after(&self, chunks: Option<usize>) {
        self.inner().chunks = chunks;
    }

    /// Bytes that were handed out.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.inner().sent
    }

    fn inner(&self) -> MutexGuard<'_, Stock> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_held() -> LineError {
    LineError::Refused(Box::new(Diagnosis::new(Code::BundleMissing, Phase::Configuration)))
}

#[async_trait]
impl Supplier for MemorySupplier {
    async fn describe(&self, bundle: Digest) -> Result<Signed, LineError> {
        self.inner().signed.clone().filter(|signed| signed.digest() == bundle).ok_or_else(not_held)
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Box<dyn Delivery>, LineError> {
        let stock = self.inner();
        let is_held = stock.signed.as_ref().is_some_and(|signed| signed.digest() == wanted.bundle);
        let blob = stock.blobs.get(&wanted.blob).filter(|_| is_held).ok_or_else(not_held)?;
        let from = usize::try_from(wanted.offset).unwrap_or(usize::MAX).min(blob.len());
        let left = blob.get(from..).unwrap_or_default().to_vec();
        Ok(Box::new(MemoryDelivery { supplier: self.clone(), left, at: 0 }))
    }
}

struct MemoryDelivery {
    supplier: MemorySupplier,
    left: Vec<u8>,
    at: usize,
}

#[async_trait]
impl Delivery for MemoryDelivery {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let chunk = self.left.chunks(CHUNK_BYTES).nth(self.at).map(<[u8]>::to_vec);
        let mut stock = self.supplier.inner();
        if stock.chunks == Some(self.at) {
            return Err(LineError::Lost);
        }
        self.at = self.at.saturating_add(1);
        stock.sent = stock.sent.saturating_add(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
        Ok(chunk)
    }
}
