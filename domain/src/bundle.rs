//! A bundle of node software: what a machine needs to become a node, as files known
//! by their digests, listed in a manifest that the cluster's Berth key has signed.
//! docs/bundle.md tells of the archive around it.

mod manifest;
mod signature;

pub use manifest::{
    Entry, FORMAT, FileName, LARGEST_BLOB, LARGEST_BUNDLE, LARGEST_MANIFEST, LONGEST_FILE_NAME, LONGEST_TEXT,
    MOST_ENTRIES, MOST_REFERENCES, Manifest, ManifestProblem, NotAFileName, Place,
};
pub use signature::{
    Bundle, BundleProblem, ENDORSED, LARGEST_ENDORSEMENT, SIGNATURE_BYTES, SIGNED, SIGNING_KEY_BYTES,
    Signature, Signed,
};

use crate::identity::Digest;

/// The most bytes of a file in one message.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// What an agent asks of a bundle: one blob, from some byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The bundle that lists it: the digest of its manifest.
    pub bundle: Digest,
    /// The blob.
    pub blob: Digest,
    /// Bytes of it that are there already.
    pub offset: u64,
}
