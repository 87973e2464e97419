//! Bundles of node software on connection 2.

use berth_domain::bundle::{
    CHUNK_BYTES, LARGEST_ENDORSEMENT, LARGEST_MANIFEST, SIGNATURE_BYTES, SIGNING_KEY_BYTES, Signature,
    Signed, Wanted,
};
use berth_domain::identity::{Digest, SpkiHash};

use crate::bounds::{Field, Malformed, Problem};
use crate::join::v1;

/// A question for a bundle.
#[must_use]
pub fn describe_to_wire(bundle: Digest) -> v1::DescribeRequest {
    v1::DescribeRequest { bundle_sha256: bundle.0.to_vec() }
}

/// Which bundle was asked for.
///
/// # Errors
/// The field that breaks its bounds.
pub fn describe_from_wire(wire: &v1::DescribeRequest) -> Result<Digest, Malformed> {
    Ok(Digest(Field("DescribeRequest", "bundle_sha256").array(&wire.bundle_sha256)?))
}

/// A bundle's manifest, for the wire.
#[must_use]
pub fn signed_to_wire(signed: Signed) -> v1::DescribeResponse {
    let Signature { key, authority, endorsement, signature } = signed.signature;
    v1::DescribeResponse {
        manifest: signed.manifest,
        signing_key: key,
        authority_sha256: authority.0.to_vec(),
        endorsement,
        signature,
    }
}

/// A bundle's manifest, not verified yet.
///
/// # Errors
/// The field that breaks its bounds.
pub fn signed_from_wire(wire: v1::DescribeResponse) -> Result<Signed, Malformed> {
    let field = |name| Field("DescribeResponse", name);
    Ok(Signed {
        manifest: field("manifest").bytes(wire.manifest, LARGEST_MANIFEST)?,
        signature: Signature {
            key: field("signing_key").array::<SIGNING_KEY_BYTES>(&wire.signing_key)?.to_vec(),
            authority: SpkiHash(field("authority_sha256").array(&wire.authority_sha256)?),
            endorsement: field("endorsement").bytes(wire.endorsement, LARGEST_ENDORSEMENT)?,
            signature: field("signature").array::<SIGNATURE_BYTES>(&wire.signature)?.to_vec(),
        },
    })
}

/// A question for a file.
#[must_use]
pub fn wanted_to_wire(wanted: &Wanted) -> v1::FetchRequest {
    v1::FetchRequest {
        bundle_sha256: wanted.bundle.0.to_vec(),
        blob_sha256: wanted.blob.0.to_vec(),
        offset: wanted.offset,
    }
}

/// Which file was asked for.
///
/// # Errors
/// The field that breaks its bounds.
pub fn wanted_from_wire(wire: &v1::FetchRequest) -> Result<Wanted, Malformed> {
    Ok(Wanted {
        bundle: Digest(Field("FetchRequest", "bundle_sha256").array(&wire.bundle_sha256)?),
        blob: Digest(Field("FetchRequest", "blob_sha256").array(&wire.blob_sha256)?),
        offset: wire.offset,
    })
}

/// The next bytes of a file, for the wire.
#[must_use]
pub const fn chunk_to_wire(data: Vec<u8>) -> v1::FetchResponse {
    v1::FetchResponse { data }
}

/// The next bytes of a file. None at all would be a way to keep an agent busy.
///
/// # Errors
/// The field that breaks its bounds.
pub fn chunk_from_wire(wire: v1::FetchResponse) -> Result<Vec<u8>, Malformed> {
    let field = Field("FetchResponse", "data");
    if wire.data.is_empty() {
        return Err(field.malformed(Problem::Missing));
    }
    field.bytes(wire.data, CHUNK_BYTES)
}
