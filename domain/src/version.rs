//! Versions of Kubernetes, and which kubelets an API server may have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of Kubernetes as its programs print it: `v1.36.3`, perhaps with what a
/// distributor adds (`v1.36.3-eks-1+abc`). At most [`KubernetesVersion::LONGEST`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubernetesVersion {
    text: String,
    minor: u32,
}

/// A text is no version of Kubernetes 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no version of Kubernetes, such as v1.36.3")]
pub struct NotAVersion;

/// Why an API server should not have a kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// The kubelet is of a later minor version.
    Newer,
    /// It is more than [`KubernetesVersion::OLDEST_KUBELET`] minor versions older.
    TooOld,
}

impl KubernetesVersion {
    /// The longest text, in bytes.
    pub const LONGEST: usize = 64;

    /// How many minor versions a kubelet may be behind its API server (Kubernetes version
    /// skew policy, "kubelet").
    pub const OLDEST_KUBELET: u32 = 3;

    /// The second number of the version.
    #[must_use]
    pub const fn minor(&self) -> u32 {
        self.minor
    }

    /// What is wrong with a kubelet of that version for an API server of this one.
    #[must_use]
    pub const fn skew_of(&self, kubelet: &Self) -> Option<Skew> {
        if kubelet.minor > self.minor {
            Some(Skew::Newer)
        } else if self.minor - kubelet.minor > Self::OLDEST_KUBELET {
            Some(Skew::TooOld)
        } else {
            None
        }
    }
}

impl FromStr for KubernetesVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let printable = text.len() <= Self::LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut parts = text.strip_prefix("v1.").filter(|_| printable).ok_or(NotAVersion)?.splitn(2, '.');
        let (Some(minor), Some(patch)) = (parts.next(), parts.next()) else { return Err(NotAVersion) };
        let is_number = minor.bytes().all(|byte| byte.is_ascii_digit());
        match minor.parse() {
            Ok(minor) if is_number && patch.starts_with(|first: char| first.is_ascii_digit()) => {
                Ok(Self { text: text.to_owned(), minor })
            }
            _ => Err(NotAVersion),
        }
    }
}

impl TryFrom<String> for KubernetesVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<KubernetesVersion> for String {
    fn from(version: KubernetesVersion) -> Self {
        version.text
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> KubernetesVersion {
        text.parse().expect("a version")
    }

    #[test]
    fn versions_are_read_as_programs_print_them() {
        for text in ["v1.36.3", "v1.9.0-alpha.1", "v1.36.3-eks-1+abc", "v1.36.0-rc.0.12+1f2e"] {
            assert_eq!(version(text).to_string(), text);
        }
        let long = format!("v1.36.3-{}", "a".repeat(KubernetesVersion::LONGEST));
        for text in ["", "1.36.3", "v2.0.0", "v1.36", "v1..3", "v1.+6.3", "v1.36.x", "v1.36.3\n", &long] {
            assert_eq!(text.parse::<KubernetesVersion>(), Err(NotAVersion), "{text:?}");
        }
        assert!("v1.99999999999.0".parse::<KubernetesVersion>().is_err());
    }

    #[test]
    fn a_kubelet_may_be_as_new_as_its_api_server_and_three_minor_versions_older() {
        let server = version("v1.36.0");
        for (kubelet, skew) in [
            ("v1.37.0-alpha.1", Some(Skew::Newer)),
            ("v1.36.9", None),
            ("v1.33.0", None),
            ("v1.32.9", Some(Skew::TooOld)),
        ] {
            assert_eq!(server.skew_of(&version(kubelet)), skew, "{kubelet}");
        }
        assert_eq!(version("v1.2.0").skew_of(&version("v1.0.0")), None);
    }
}
