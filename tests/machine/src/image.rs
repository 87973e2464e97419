//! An image of one layer, as an archive of an OCI image layout: what
//! `ctr images import` takes. The same files give the same bytes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::process::{command, succeed};
use crate::wanted::PATIENCE;

/// What an image is made of.
pub(crate) struct Image<'a> {
    /// The whole name, with registry and tag.
    pub(crate) name: &'a str,
    /// The command line it starts with.
    pub(crate) entrypoint: &'a [&'a str],
    /// The folder of its files.
    pub(crate) files: &'a Path,
}

/// Writes it. OCI image specification 1.1, layout and configuration.
pub(crate) fn write(image: &Image<'_>, archive: &Path) -> Result<()> {
    let layout = tempfile::Builder::new().prefix("berth-image-").tempdir().context("making a folder")?;
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).context("making an image's folder")?;
    let layer = layout.path().join("layer");
    tar(image.files, &layer)?;
    let content = fs::read(&layer).context("reading an image's layer")?;
    fs::remove_file(&layer).context("moving an image's layer")?;
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", &content)?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": image.entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.get("digest")]},
    });
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let content = json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer]});
    let mut entry = blob(&blobs, manifest, content.to_string().as_bytes())?;
    let tag = image.name.rsplit(':').next().unwrap_or_default();
    let names = json!({"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag});
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".to_owned(), names);
    }
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    for (name, text) in [
        ("index.json", index.to_string()),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string()),
    ] {
        fs::write(layout.path().join(name), text).with_context(|| format!("writing {name} of an image"))?;
    }
    tar(layout.path(), archive)
}

/// Keeps a blob by its digest; its descriptor.
fn blob(blobs: &Path, kind: &str, content: &[u8]) -> Result<Value> {
    let hash = HEXLOWER.encode(digest(&SHA256, content).as_ref());
    fs::write(blobs.join(&hash), content).context("writing a blob of an image")?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{hash}"), "size": content.len()}))
}

/// The files in the order of their names, owned by root, of no time.
fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let mut tar = command("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--file",
    ]);
    succeed(
        {
            tar.arg(archive).arg("--directory").arg(folder).arg(".");
            tar
        },
        PATIENCE,
    )?;
    Ok(())
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
