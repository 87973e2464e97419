//! What an image's archive says of itself: its names and its architecture. An OCI
//! layout (image-spec, image-layout.md), unpacked or as tar, or what `docker save`
//! writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use berth_domain::facts::Arch;
use serde_json::Value;

/// The largest document of an image that is read, in bytes (OCI registries take
/// manifests of 4 MiB).
const LARGEST_DOCUMENT: u64 = 4 << 20;

/// The most files of an image's archive that are looked at.
const MOST_FILES: usize = 16_384;

/// What an image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) references: Vec<String>,
    /// `None` where it has several, or says nothing.
    pub(super) architecture: Option<Arch>,
}

/// The documents of an image.
enum Documents {
    Directory(PathBuf),
    Tar { file: File, places: BTreeMap<String, (u64, u64)> },
}

/// Whether a directory is an OCI layout.
pub(super) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// Reads what an image says of itself.
pub(super) fn read(path: &Path) -> io::Result<Image> {
    let documents = Documents::of(path)?;
    let image = match documents.json("index.json")? {
        Some(index) => layout(&documents, &index)?,
        None => match documents.json("manifest.json")? {
            Some(list) => saved(&documents, &list)?,
            None => {
                let what =
                    "it is neither an OCI layout (index.json) nor an archive of docker save (manifest.json)";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        },
    };
    Ok(image)
}

fn layout(documents: &Documents, index: &Value) -> io::Result<Image> {
    let (mut references, mut architectures) = (Vec::new(), Vec::new());
    for manifest in list(index, "manifests") {
        let annotation = |name: &str| manifest.get("annotations")?.get(name)?.as_str();
        // containerd's own annotation has the full name; the other may be a tag alone.
        let name = annotation("io.containerd.image.name").or_else(|| {
            annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']))
        });
        references.extend(name.map(str::to_owned));
        let said = manifest.get("platform").and_then(|platform| platform.get("architecture")?.as_str());
        match said {
            Some(word) => architectures.push(word.to_owned()),
            None => {
                let config = documents
                    .blob(manifest)?
                    .and_then(|manifest| documents.blob(manifest.get("config")?).ok().flatten());
                architectures.extend(architecture(config.as_ref()));
            }
        }
    }
    Ok(Image { references: distinct(references), architecture: only(&architectures) })
}

fn saved(documents: &Documents, images: &Value) -> io::Result<Image> {
    let (mut references, mut architectures) = (Vec::new(), Vec::new());
    for image in images.as_array().into_iter().flatten() {
        references.extend(list(image, "RepoTags").filter_map(|tag| tag.as_str().map(str::to_owned)));
        if let Some(config) = image.get("Config").and_then(Value::as_str) {
            architectures.extend(architecture(documents.json(config)?.as_ref()));
        }
    }
    Ok(Image { references: distinct(references), architecture: only(&architectures) })
}

fn architecture(config: Option<&Value>) -> Option<String> {
    config?.get("architecture")?.as_str().map(str::to_owned)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn distinct(mut references: Vec<String>) -> Vec<String> {
    references.sort();
    references.dedup();
    references
}

/// The one architecture that all of them are for.
fn only(words: &[String]) -> Option<Arch> {
    let first = words.first()?;
    let same = words.iter().all(|word| word == first);
    same.then(|| Arch::ALL.into_iter().find(|arch| arch.as_str() == first)).flatten()
}

impl Documents {
    fn of(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path)?;
        let mut places = BTreeMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek()?.take(MOST_FILES) {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            places.insert(name, (entry.raw_file_position(), entry.size()));
        }
        Ok(Self::Tar { file, places })
    }

    fn json(&self, name: &str) -> io::Result<Option<Value>> {
        let bytes = match self {
            Self::Directory(path) => match File::open(path.join(name)) {
                Ok(file) => {
                    let mut bytes = Vec::new();
                    file.take(LARGEST_DOCUMENT).read_to_end(&mut bytes)?;
                    bytes
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
            Self::Tar { file, places } => {
                let Some((begins, size)) = places.get(name) else { return Ok(None) };
                let size = usize::try_from((*size).min(LARGEST_DOCUMENT)).unwrap_or(0);
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, *begins)?;
                bytes
            }
        };
        serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
    }

    /// The JSON blob that a descriptor names.
    fn blob(&self, descriptor: &Value) -> io::Result<Option<Value>> {
        let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()));
        match hex {
            Some(hex) => self.json(&format!("blobs/sha256/{hex}")),
            None => Ok(None),
        }
    }
}
