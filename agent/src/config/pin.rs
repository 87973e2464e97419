//! A CA pin in kubeadm's form: `sha256:` and the hexadecimal SHA-256 of the
//! CA's public key (DER SubjectPublicKeyInfo).

use std::fmt;
use std::str::FromStr;

use berth_domain::identity::SpkiHash;
use serde::{Deserialize, Deserializer};

/// A CA that the server may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub SpkiHash);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// The text is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is sha256: and 64 hexadecimal digits, as `berth-server token create` prints it")]
pub struct NotAPin;

impl FromStr for Pin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(NotAPin)?;
        digits.parse().map(Self).map_err(|_| NotAPin)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
