//! Whether a bundle is the cluster's own. The CA that machines trust on the line
//! endorses a key of its own for bundles, once; that key signs manifests. So the CA's
//! key is not needed where bundles are made, an endorsement stands beside it as long
//! as the CA does, and the same manifest gets the same signature (Ed25519, RFC 8032).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::manifest::{Manifest, ManifestProblem};
use crate::identity::{Digest, SpkiHash};

/// What stands before a manifest's bytes where they are signed: no signature over
/// anything else can be taken for one over a manifest.
pub const SIGNED: &[u8] = b"berth bundle manifest 1\0";

/// What stands before the bundle key where a CA endorses it. It cannot be taken for a
/// certificate: those begin with 0x30 (X.690 section 8.9).
pub const ENDORSED: &[u8] = b"berth bundle key 1\0";

/// Bytes of an Ed25519 public key.
pub const SIGNING_KEY_BYTES: usize = 32;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The longest signature of a CA, in bytes: RSA with 8192 bits.
pub const LARGEST_ENDORSEMENT: usize = 1024;

/// The signature over a manifest, and what makes its key the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// The key that has signed the manifest: Ed25519, [`SIGNING_KEY_BYTES`].
    #[serde(with = "base64")]
    pub key: Vec<u8>,
    /// The CA that has endorsed the key.
    pub authority: SpkiHash,
    /// Its signature over [`ENDORSED`] and the key, as it signs certificates.
    #[serde(with = "base64")]
    pub endorsement: Vec<u8>,
    /// The key's signature over [`SIGNED`] and the manifest, [`SIGNATURE_BYTES`].
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

/// A manifest as it was received: nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its bytes, exactly as they were signed.
    pub manifest: Vec<u8>,
    /// Over them.
    pub signature: Signature,
}

impl Signed {
    /// What names the bundle: the digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Evidence that a bundle is the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    digest: Digest,
    manifest: Manifest,
}

/// Why a bundle is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleProblem {
    /// It is not the one that was asked for.
    #[error("it is the bundle {found}, and {wanted} was asked for")]
    Another {
        /// Its digest.
        found: Digest,
        /// The digest asked for.
        wanted: Digest,
    },
    /// The CA that it names is none that is trusted.
    #[error("its key is endorsed by the CA {}, and {} trusted", found.to_pin(), those_trusted(.trusted))]
    Stranger {
        /// The CA that it names.
        found: SpkiHash,
        /// The CAs that are trusted.
        trusted: Vec<SpkiHash>,
    },
    /// The CA has not endorsed the key.
    #[error("the CA {} has not endorsed its key", authority.to_pin())]
    NotEndorsed {
        /// The CA.
        authority: SpkiHash,
    },
    /// The key has not signed the manifest.
    #[error("its signature is not over its manifest: one of them was changed")]
    Changed,
    /// The manifest breaks its bounds.
    #[error(transparent)]
    Manifest(#[from] ManifestProblem),
}

fn those_trusted(keys: &[SpkiHash]) -> String {
    match keys {
        [] => "none is".to_owned(),
        [one] => format!("{} is", one.to_pin()),
        many => many.iter().map(SpkiHash::to_pin).collect::<Vec<_>>().join(", ") + " are",
    }
}

impl Bundle {
    /// Believes a manifest whose signature holds. `authorities` are the trusted CAs'
    /// keys, DER SubjectPublicKeyInfo; only bytes that were authenticated are read
    /// (SECURITY R9).
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verified(signed: &Signed, authorities: &[Vec<u8>]) -> Result<Self, BundleProblem> {
        let Signature { key, authority, endorsement, signature } = &signed.signature;
        let hashes: Vec<SpkiHash> = authorities.iter().map(|spki| SpkiHash::of(spki)).collect();
        let known = hashes.iter().zip(authorities).find(|(hash, _)| *hash == authority);
        let Some((_, spki)) = known else {
            return Err(BundleProblem::Stranger { found: *authority, trusted: hashes });
        };
        if !has_endorsed(spki, key, endorsement) {
            return Err(BundleProblem::NotEndorsed { authority: *authority });
        }
        let message = [SIGNED, &signed.manifest].concat();
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, signature)
            .map_err(|_| BundleProblem::Changed)?;
        Ok(Self { digest: signed.digest(), manifest: Manifest::parse(&signed.manifest)? })
    }

    /// The same, if it is the one that was asked for.
    ///
    /// # Errors
    /// Why it is not believed, or that it is another.
    pub fn asked_for(
        wanted: Digest,
        signed: &Signed,
        authorities: &[Vec<u8>],
    ) -> Result<Self, BundleProblem> {
        let found = signed.digest();
        if found != wanted {
            return Err(BundleProblem::Another { found, wanted });
        }
        Self::verified(signed, authorities)
    }

    /// What names it: the digest of its manifest.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What is in it.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// The algorithm is the one that fits the CA's key: nothing that came with the bundle
/// chooses it. A key fits one of them only.
fn has_endorsed(spki: &[u8], key: &[u8], endorsement: &[u8]) -> bool {
    let message = [ENDORSED, key].concat();
    let algorithms: [&'static dyn VerificationAlgorithm; 4] =
        [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &ED25519, &RSA_PKCS1_2048_8192_SHA256];
    let is_legal = key.len() == SIGNING_KEY_BYTES && endorsement.len() <= LARGEST_ENDORSEMENT;
    is_legal
        && algorithms
            .into_iter()
            .any(|algorithm| UnparsedPublicKey::new(algorithm, spki).verify(&message, endorsement).is_ok())
}

mod base64 {
    use super::{BASE64, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        BASE64.encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _,
    };

    use super::*;

    struct Ca {
        key: EcdsaKeyPair,
        spki: Vec<u8>,
    }

    fn ca(algorithm: &'static EcdsaSigningAlgorithm) -> Ca {
        let key = EcdsaKeyPair::generate(algorithm).expect("a key");
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("DER");
        let spki = der.as_ref().to_vec();
        Ca { key, spki }
    }

    fn signed(ca: &Ca, seed: u8, manifest: &[u8]) -> Signed {
        let own = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let key = own.public_key().as_ref().to_vec();
        let endorsed = [ENDORSED, &key].concat();
        Signed {
            manifest: manifest.to_vec(),
            signature: Signature {
                authority: SpkiHash::of(&ca.spki),
                endorsement: ca.key.sign(&SystemRandom::new(), &endorsed).expect("signed").as_ref().to_vec(),
                signature: own.sign(&[SIGNED, manifest].concat()).as_ref().to_vec(),
                key,
            },
        }
    }

    const EMPTY: &[u8] = br#"{"format":1,"entries":[]}"#;

    #[test]
    fn a_bundle_of_an_endorsed_key_is_believed() {
        for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
            let ca = ca(algorithm);
            let signed = signed(&ca, 1, EMPTY);
            let others = [self::ca(algorithm).spki, ca.spki];
            let bundle = Bundle::asked_for(Digest::of(EMPTY), &signed, &others).expect("believed");
            assert_eq!((bundle.digest(), bundle.manifest().entries.len()), (Digest::of(EMPTY), 0));
            let text = serde_json::to_string(&signed.signature).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Signature>(&text).expect("it was just written"),
                signed.signature
            );
        }
    }

    #[test]
    fn each_way_to_be_false_has_its_word() {
        let (own, other) = (ca(&ECDSA_P256_SHA256_ASN1_SIGNING), ca(&ECDSA_P256_SHA256_ASN1_SIGNING));
        let trusted = [own.spki.clone()];
        let good = signed(&own, 1, EMPTY);
        let verify = |signed: &Signed| Bundle::verified(signed, &trusted);
        assert!(verify(&good).is_ok());
        let anothers = signed(&other, 1, EMPTY);
        assert!(matches!(verify(&anothers), Err(BundleProblem::Stranger { .. })));
        // Another key with the good one's endorsement, or a CA that never saw it.
        let mut swapped = signed(&other, 2, EMPTY);
        swapped.signature.authority = good.signature.authority;
        assert!(matches!(verify(&swapped), Err(BundleProblem::NotEndorsed { .. })));
        swapped.signature.endorsement.clone_from(&good.signature.endorsement);
        assert!(matches!(verify(&swapped), Err(BundleProblem::NotEndorsed { .. })));
        for at in 0..EMPTY.len() {
            let mut changed = good.clone();
            changed.manifest[at] ^= 1;
            assert!(matches!(verify(&changed), Err(BundleProblem::Changed)), "byte {at}");
        }
        let mut short = good.clone();
        short.signature.signature.truncate(63);
        assert!(matches!(verify(&short), Err(BundleProblem::Changed)));
        let mut keyless = good.clone();
        keyless.signature.key.clear();
        assert!(matches!(verify(&keyless), Err(BundleProblem::NotEndorsed { .. })));
        let wanted = Digest::of(b"another");
        let refused = Bundle::asked_for(wanted, &good, &trusted);
        assert!(matches!(refused, Err(BundleProblem::Another { .. })));
        let nonsense = signed(&own, 1, b"no manifest");
        assert!(matches!(verify(&nonsense), Err(BundleProblem::Manifest(_))));
    }
}
