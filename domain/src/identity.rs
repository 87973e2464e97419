//! Who a machine is, and who a node is: two different questions (DESIGN 4).

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{NodeName, PoolName};

/// A SHA-256 digest of something that the type's name says.
macro_rules! digests {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Takes a digest off the wire.
            ///
            /// # Errors
            /// It is not 32 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, NotADigest> {
                bytes.try_into().map(Self).map_err(|_| NotADigest { found: bytes.len() })
            }

            /// The digest of these bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(sha256(bytes))
            }

            /// Lower-case hexadecimal, 64 characters.
            #[must_use]
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.to_hex())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.to_hex())
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotADigest;

            fn from_str(text: &str) -> Result<Self, NotADigest> {
                let bytes = HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .map_err(|_| NotADigest { found: text.len() / 2 })?;
                Self::from_slice(&bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

digests! {
    /// SHA-256 of a DER SubjectPublicKeyInfo: what a pin names, and what a
    /// token's use is reserved for.
    SpkiHash;
    /// SHA-256 of a machine key's SubjectPublicKeyInfo: the machine's identity,
    /// which outlives node names and certificates.
    MachineId;
    /// SHA-256 of a file's or message's bytes.
    Digest;
}

impl SpkiHash {
    /// The pin as kubeadm writes it: `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn to_pin(&self) -> String {
        format!("sha256:{}", self.to_hex())
    }

    /// Reads a pin in kubeadm's syntax.
    ///
    /// # Errors
    /// No `sha256:` in front, or no 64 hexadecimal digits behind it.
    pub fn from_pin(text: &str) -> Result<Self, NotAPin> {
        let digits = text.strip_prefix("sha256:").ok_or(NotAPin)?;
        digits.parse().map_err(|_| NotAPin)
    }
}

/// The text is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pin is `sha256:` and 64 hexadecimal digits: the SHA-256 of the CA's public key (SubjectPublicKeyInfo)"
)]
pub struct NotAPin;

/// The bytes are no SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest has 32 bytes, not {found}")]
pub struct NotADigest {
    /// Bytes found.
    pub found: usize,
}

/// Who a node is once policy has decided: what its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeIdentity {
    /// The node's name; the certificate's common name is `system:node:NAME`.
    pub name: NodeName,
    /// The pool whose profile it gets.
    pub pool: PoolName,
}

impl NodeIdentity {
    /// The common name's prefix (Kubernetes node authorizer).
    pub const COMMON_NAME_PREFIX: &'static str = "system:node:";

    /// The one organisation (Kubernetes node authorizer).
    pub const ORGANIZATION: &'static str = "system:nodes";
}

/// A digest of bytes that come in pieces.
#[derive(Clone)]
pub struct Digesting(aws_lc_rs::digest::Context);

impl Default for Digesting {
    fn default() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Digesting {
    /// Takes the next piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn digest(self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Digest(out)
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_kubeadms() {
        let hash = SpkiHash::of(b"key");
        assert_eq!(SpkiHash::from_pin(&hash.to_pin()), Ok(hash));
        assert_eq!(SpkiHash::from_pin(&hash.to_hex()), Err(NotAPin));
        assert_eq!(SpkiHash::from_pin("sha256:12"), Err(NotAPin));
    }
}
