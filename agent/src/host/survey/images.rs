//! Images that lie beside the node's state, as tar files in the OCI layout, until the
//! runtime runs and takes them in.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::read;

/// Where a bundle, or a person, puts them.
pub(in crate::host) const IMAGES: &str = "/var/lib/berth/images";

/// The tar files below a root, by name.
pub(in crate::host) fn archives(root: &Path) -> Vec<PathBuf> {
    let directory = read::below(root, IMAGES);
    let names = read::names(&directory).into_iter().filter(|name| name.ends_with(".tar"));
    names.map(|name| directory.join(name)).collect()
}

/// The name of the image that every pod begins with: that of the archive whose own
/// name begins with `pause`.
pub(super) fn pause(root: &Path) -> Option<String> {
    let is_pause =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pause"));
    archives(root).iter().find(is_pause).and_then(|path| name(path))
}

/// The name of an archive's first image (image-spec, `index.json`).
fn name(archive: &Path) -> Option<String> {
    let index: Value = serde_json::from_slice(&member(archive, "index.json")?).ok()?;
    let annotations = index.get("manifests")?.get(0)?.get("annotations")?;
    let named = |key: &str| annotations.get(key).and_then(Value::as_str).filter(|name| name.contains('/'));
    let name = named("io.containerd.image.name").or_else(|| named("org.opencontainers.image.ref.name"))?;
    // It goes into a configuration file, in quotes.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    name.chars().all(is_plain).then(|| name.to_owned())
}

/// A small file of a tar archive (POSIX ustar: headers of 512 bytes, contents padded
/// to as much).
fn member(archive: &Path, wanted: &str) -> Option<Vec<u8>> {
    let mut file = File::open(archive).ok()?;
    for _ in 0..MOST_MEMBERS {
        let mut header = [0_u8; 512];
        file.read_exact(&mut header).ok()?;
        let name = text(header.get(..100)?);
        if name.is_empty() {
            return None;
        }
        let size = u64::from_str_radix(&text(header.get(124..136)?), 8).ok()?;
        if name.trim_start_matches("./") == wanted {
            let mut content = Vec::new();
            (size <= LONGEST_MEMBER).then_some(())?;
            file.take(size).read_to_end(&mut content).ok()?;
            return Some(content);
        }
        file.seek(SeekFrom::Current(i64::try_from(size.checked_next_multiple_of(512)?).ok()?)).ok()?;
    }
    None
}

fn text(field: &[u8]) -> String {
    let ended = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..ended).unwrap_or_default()).trim().to_owned()
}

const MOST_MEMBERS: usize = 4096;
const LONGEST_MEMBER: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tar archive with these files.
    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in files {
            let mut header = [0_u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            out.extend_from_slice(&header);
            out.extend_from_slice(content.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    #[test]
    fn the_pause_image_is_known_by_what_its_archive_calls_it() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(pause(root.path()), None);
        let images = root.path().join("var/lib/berth/images");
        fs::create_dir_all(&images).expect("directories");
        let index = r#"{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"1","io.containerd.image.name":"localhost/berth/pause:1"}}]}"#;
        fs::write(images.join("app.tar"), tar(&[("index.json", "{}")])).expect("a file");
        fs::write(images.join("pause.tar"), tar(&[("oci-layout", "{}"), ("./index.json", index)]))
            .expect("a file");
        assert_eq!(pause(root.path()).as_deref(), Some("localhost/berth/pause:1"));
        assert_eq!(archives(root.path()).len(), 2);
        let quoted = index.replace("pause:1", "pause'1");
        fs::write(images.join("pause.tar"), tar(&[("index.json", &quoted)])).expect("a file");
        assert_eq!(pause(root.path()), None, "no name of an image");
    }

    #[test]
    fn what_is_no_archive_has_no_name() {
        let root = tempfile::tempdir().expect("a directory");
        let images = root.path().join("var/lib/berth/images");
        fs::create_dir_all(&images).expect("directories");
        for content in [&b""[..], b"short", &[b'x'; 2048], &[0; 1024]] {
            fs::write(images.join("pause.tar"), content).expect("a file");
            assert_eq!(pause(root.path()), None);
        }
    }
}
