//! The list of what is in a bundle, within its bounds.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::facts::Arch;
use crate::identity::Digest;

/// The version of the manifest's form that this code reads and writes.
pub const FORMAT: u32 = 1;

/// The largest manifest, in bytes of JSON: it travels in one message.
pub const LARGEST_MANIFEST: usize = 128 * 1024;

/// The most entries of one manifest.
pub const MOST_ENTRIES: usize = 256;

/// The largest file of a bundle, in bytes: 4 GiB.
pub const LARGEST_BLOB: u64 = 4 << 30;

/// All files of a bundle together, in bytes: 16 GiB.
pub const LARGEST_BUNDLE: u64 = 16 << 30;

/// The longest file name, in bytes.
pub const LONGEST_FILE_NAME: usize = 128;

/// The longest version, licence or image reference, in bytes.
pub const LONGEST_TEXT: usize = 256;

/// The most references of one image.
pub const MOST_REFERENCES: usize = 16;

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// In the order of place, name, architecture.
    pub entries: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Where on the machine it goes.
    pub place: Place,
    /// Its name there.
    pub name: FileName,
    /// The machines that it is for; absent where it is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Arch>,
    /// The version, as its maker writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its licence, an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What an image is called, such as `registry.k8s.io/pause:3.10`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// In bytes.
    pub size: u64,
    /// Of its bytes: what it is fetched and kept by.
    pub sha256: Digest,
}

/// Where on a machine a file goes. Which directory that is, the agent decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Among the programs: kubelet, containerd, runc.
    Program,
    /// Among the CNI plugins.
    Cni,
    /// Among the units of systemd.
    Unit,
    /// Imported by the container runtime: an archive of an OCI layout, or of `docker save`.
    Image,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::Program, Self::Cni, Self::Unit, Self::Image];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Cni => "cni",
            Self::Unit => "unit",
            Self::Image => "image",
        }
    }

    /// Permission bits of a file there.
    #[must_use]
    pub const fn mode(self) -> u32 {
        match self {
            Self::Program | Self::Cni => 0o755,
            Self::Unit | Self::Image => 0o644,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A file's name: one component of a path, nothing hidden, nothing that a shell or
/// a terminal takes for more. `@` is there for systemd's template units.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// The text is no file name of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no file name: letters, digits, '.', '_', '+', '@' and '-', at most {LONGEST_FILE_NAME}, beginning with a letter or digit"
)]
pub struct NotAFileName(String);

impl FileName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = NotAFileName;

    fn from_str(text: &str) -> Result<Self, NotAFileName> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '@' | '-');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= LONGEST_FILE_NAME && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotAFileName(text.chars().take(LONGEST_FILE_NAME).collect()))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for FileName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestProblem {
    /// It is larger than its bound.
    #[error("the manifest has {found} bytes, at most {LARGEST_MANIFEST} are allowed")]
    TooLarge {
        /// Its bytes.
        found: usize,
    },
    /// It is no JSON of this form.
    #[error("the manifest cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// It is of a later form.
    #[error("the manifest is of format {found}; this version reads {FORMAT}")]
    Format {
        /// As it says.
        found: u32,
    },
    /// One of its counts or sizes is over its bound.
    #[error("{what} has {found}, at most {most} are allowed")]
    TooMuch {
        /// What is counted.
        what: String,
        /// What was found.
        found: u64,
        /// What is allowed.
        most: u64,
    },
    /// A text that cannot stand on a line.
    #[error("{field} of {name} is longer than {LONGEST_TEXT} bytes, or has characters that do not print")]
    Text {
        /// The field.
        field: &'static str,
        /// The entry.
        name: FileName,
    },
    /// Two files for one place.
    #[error("{place}/{name} is listed twice for the same machines")]
    Twice {
        /// Where it goes.
        place: Place,
        /// Its name there.
        name: FileName,
    },
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// The bound that it breaks, or why it cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestProblem> {
        if bytes.len() > LARGEST_MANIFEST {
            return Err(ManifestProblem::TooLarge { found: bytes.len() });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestProblem::Unreadable)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Its bytes, to be signed: the same for the same entries.
    ///
    /// # Errors
    /// It breaks a bound.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestProblem> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ManifestProblem::Unreadable)?;
        bytes.push(b'\n');
        if bytes.len() > LARGEST_MANIFEST {
            return Err(ManifestProblem::TooLarge { found: bytes.len() });
        }
        Ok(bytes)
    }

    /// What a machine of this architecture takes of it.
    pub fn of(&self, architecture: Arch) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.architecture.is_none_or(|of| of == architecture))
    }

    /// The architectures that it has programs for, each once.
    #[must_use]
    pub fn architectures(&self) -> Vec<Arch> {
        let has = |of: &Arch| {
            let is_program = |entry: &&Entry| entry.place == Place::Program;
            self.entries.iter().filter(is_program).any(|entry| entry.architecture == Some(*of))
        };
        Arch::ALL.into_iter().filter(has).collect()
    }

    /// The entry with this digest.
    #[must_use]
    pub fn blob(&self, digest: Digest) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.sha256 == digest)
    }

    fn check(&self) -> Result<(), ManifestProblem> {
        if self.format != FORMAT {
            return Err(ManifestProblem::Format { found: self.format });
        }
        within("the manifest's list of entries", self.entries.len() as u64, MOST_ENTRIES as u64)?;
        let mut seen = BTreeSet::new();
        let mut all: u64 = 0;
        for entry in &self.entries {
            entry.check()?;
            all = all.saturating_add(entry.size);
            // A file for all machines and one for some of them would be two on those.
            let machines = [entry.architecture.map_or("", Arch::as_str), ""];
            let clashes = |of: &str| seen.contains(&(entry.place, entry.name.clone(), of.to_owned()));
            let for_some = entry.architecture.is_none() && Arch::ALL.iter().any(|of| clashes(of.as_str()));
            if machines.into_iter().any(clashes) || for_some {
                return Err(ManifestProblem::Twice { place: entry.place, name: entry.name.clone() });
            }
            seen.insert((entry.place, entry.name.clone(), machines[0].to_owned()));
        }
        within("the bundle", all, LARGEST_BUNDLE)
    }
}

impl Entry {
    fn check(&self) -> Result<(), ManifestProblem> {
        within(&format!("{}/{}", self.place, self.name), self.size, LARGEST_BLOB)?;
        within(
            &format!("references of {}", self.name),
            self.references.len() as u64,
            MOST_REFERENCES as u64,
        )?;
        let texts = [("version", self.version.as_deref()), ("license", self.license.as_deref())];
        let texts = texts.into_iter().filter_map(|(field, text)| Some((field, text?)));
        for (field, text) in texts.chain(self.references.iter().map(|text| ("references", text.as_str()))) {
            if text.is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
                return Err(ManifestProblem::Text { field, name: self.name.clone() });
            }
        }
        Ok(())
    }
}

fn within(what: &str, found: u64, most: u64) -> Result<(), ManifestProblem> {
    if found > most {
        return Err(ManifestProblem::TooMuch { what: what.to_owned(), found, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(place: Place, name: &str, architecture: Option<Arch>) -> Entry {
        Entry {
            place,
            name: name.parse().expect("a name"),
            architecture,
            version: Some("v1.36.1".to_owned()),
            license: Some("Apache-2.0".to_owned()),
            references: Vec::new(),
            size: 7,
            sha256: Digest::of(name.as_bytes()),
        }
    }

    fn manifest(entries: Vec<Entry>) -> Manifest {
        Manifest { format: FORMAT, entries }
    }

    #[test]
    fn a_manifest_survives_its_bytes_and_gives_a_machine_its_own() {
        let both = manifest(vec![
            entry(Place::Program, "kubelet", Some(Arch::Amd64)),
            entry(Place::Program, "kubelet", Some(Arch::Arm64)),
            entry(Place::Unit, "kubelet.service", None),
        ]);
        let bytes = both.to_bytes().expect("within its bounds");
        assert_eq!(Manifest::parse(&bytes).expect("it was just written"), both);
        assert_eq!(bytes, both.to_bytes().expect("again"), "the same bytes every time");
        assert_eq!(both.architectures(), [Arch::Amd64, Arch::Arm64]);
        let names: Vec<_> = both.of(Arch::Arm64).map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["kubelet", "kubelet.service"]);
        assert_eq!(both.of(Arch::Riscv64).count(), 1);
    }

    #[test]
    fn what_breaks_a_bound_is_named() {
        let twice = |first, second| {
            manifest(vec![entry(Place::Cni, "bridge", first), entry(Place::Cni, "bridge", second)])
        };
        let large = Entry { size: LARGEST_BLOB + 1, ..entry(Place::Image, "pause.tar", None) };
        let wide = Entry { version: Some("1\u{1b}[2J".to_owned()), ..entry(Place::Image, "pause.tar", None) };
        let full =
            (0..5).map(|n| Entry { size: LARGEST_BLOB, ..entry(Place::Image, &format!("i{n}"), None) });
        let many = (0..=MOST_ENTRIES).map(|n| entry(Place::Cni, &format!("p{n}"), None));
        for (wrong, said) in [
            (twice(Some(Arch::Amd64), Some(Arch::Amd64)), "cni/bridge is listed twice"),
            (twice(None, Some(Arch::Amd64)), "cni/bridge is listed twice"),
            (twice(Some(Arch::Amd64), None), "cni/bridge is listed twice"),
            (manifest(vec![large]), "image/pause.tar has 4294967297, at most 4294967296 are allowed"),
            (manifest(vec![wide]), "version of pause.tar"),
            (manifest(full.collect()), "the bundle has"),
            (manifest(many.collect()), "the manifest's list of entries has 257"),
            (Manifest { format: 2, entries: Vec::new() }, "format 2"),
        ] {
            let bytes = serde_json::to_vec(&wrong).expect("JSON");
            let refused = Manifest::parse(&bytes).expect_err(said).to_string();
            assert!(refused.contains(said), "{refused}");
        }
        let long = vec![b' '; LARGEST_MANIFEST + 1];
        assert!(matches!(Manifest::parse(&long), Err(ManifestProblem::TooLarge { .. })));
    }

    #[test]
    fn a_name_is_one_component_of_a_path() {
        for good in ["kubelet", "containerd-shim-runc-v2", "getty@.service", "pause_3.10.tar"] {
            assert_eq!(good.parse::<FileName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a b", "a\0", "-rf", &"x".repeat(129)] {
            assert!(bad.parse::<FileName>().is_err(), "{bad:?}");
        }
    }
}
