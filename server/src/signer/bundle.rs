//! The key that signs bundles: Ed25519, beside the CA that endorses it once. It is
//! not the CA's own, for two reasons: bundles can be made where the CA's key is not,
//! and Ed25519 gives the same manifest the same signature. It cannot issue
//! certificates, and a CA that is replaced takes its word for the key away.

use std::io;
use std::path::{Path, PathBuf};

use berth_domain::bundle::{ENDORSED, SIGNED, Signature};
use berth_domain::identity::SpkiHash;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::directory::{Directory, Readers};
use super::local::LocalSigner;

/// The key, in the CA's directory; PKCS#8 PEM, readable by its owner alone.
const KEY_FILE: &str = "bundle.key";

/// The CA's word for it, in the same directory; JSON.
const ENDORSEMENT_FILE: &str = "bundle.json";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum BundleKeyError {
    /// The directory or a file cannot be used.
    #[error("using the bundle key in {path}")]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// No CA has endorsed it yet.
    #[error(
        "the bundle key in {path} was not endorsed by the cluster's CA yet: give the CA once with --ca-certificate and --ca-key"
    )]
    NotEndorsed {
        /// Where.
        path: PathBuf,
    },
    /// The key cannot be made, read or used.
    #[error("making, reading or using the bundle key")]
    Key(#[from] rcgen::Error),
}

/// The key. It has no Debug: it is a secret.
pub struct BundleKey {
    key: KeyPair,
    endorsement: Endorsement,
}

/// The CA's word for the key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Endorsement {
    authority: SpkiHash,
    /// Of the key that it is for.
    key: SpkiHash,
    #[serde(with = "hexadecimal")]
    signature: Vec<u8>,
}

impl BundleKey {
    /// Loads the key in `directory`, or makes one there. `ca` endorses it where it has
    /// not yet; without a CA, an earlier endorsement counts. Blocks.
    ///
    /// # Errors
    /// The directory or files cannot be used, or nobody has endorsed the key.
    pub fn open_or_create(directory: &Path, ca: Option<&LocalSigner>) -> Result<Self, BundleKeyError> {
        let wrong = |cause| BundleKeyError::File { path: directory.to_owned(), cause };
        let entered = Directory::enter(directory).map_err(wrong)?;
        let key = match entered.read(KEY_FILE, Readers::Owner).map_err(wrong)? {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
                let pem = Zeroizing::new(key.serialize_pem());
                entered.write(KEY_FILE, pem.as_bytes(), Readers::Owner).map_err(wrong)?;
                key
            }
        };
        let own = SpkiHash::of(&key.subject_public_key_info());
        let known = entered.read(ENDORSEMENT_FILE, Readers::Anyone).map_err(wrong)?;
        let known = known.and_then(|text| serde_json::from_str::<Endorsement>(&text).ok());
        let known =
            known.filter(|known| known.key == own && ca.is_none_or(|ca| ca.ca_pin() == known.authority));
        let endorsement = match (known, ca) {
            (Some(known), _) => known,
            (None, None) => return Err(BundleKeyError::NotEndorsed { path: directory.to_owned() }),
            (None, Some(ca)) => {
                let signature = ca.endorse(&[ENDORSED, key.der_bytes()].concat())?;
                let endorsement = Endorsement { authority: ca.ca_pin(), key: own, signature };
                let text = serde_json::to_vec_pretty(&endorsement).map_err(|error| wrong(error.into()))?;
                entered.write(ENDORSEMENT_FILE, &text, Readers::Anyone).map_err(wrong)?;
                endorsement
            }
        };
        Ok(Self { key, endorsement })
    }

    /// Signs a manifest.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn sign(&self, manifest: &[u8]) -> Result<Signature, BundleKeyError> {
        Ok(Signature {
            key: self.key.der_bytes().to_vec(),
            authority: self.endorsement.authority,
            endorsement: self.endorsement.signature.clone(),
            signature: self.key.sign(&[SIGNED, manifest].concat())?,
        })
    }
}

mod hexadecimal {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        HEXLOWER.encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
