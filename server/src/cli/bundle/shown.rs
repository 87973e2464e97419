//! A bundle as text and as JSON.

use berth_domain::bundle::{Entry, Manifest, Signed};
use berth_domain::facts::Arch;
use serde_json::{Value, json};

use crate::cli::output::{or_dash, table};

/// How far a bundle was looked at.
#[derive(Clone, Copy)]
pub(super) enum Standing {
    /// It was made just now.
    Made,
    /// Nothing was checked.
    NotVerified,
    /// Signature and bytes hold.
    Verified,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotVerified => "not verified",
            Self::Verified => "verified",
        }
    }
}

/// For programs; its fields stay.
pub(super) fn value(signed: &Signed, manifest: &Manifest, standing: Standing) -> Value {
    json!({
        "bundle": signed.digest(),
        "standing": standing.word(),
        "authority": signed.signature.authority.to_pin(),
        "architectures": manifest.architectures(),
        "bytes": bytes(manifest),
        "manifest": manifest,
    })
}

/// For people.
pub(super) fn text(signed: &Signed, manifest: &Manifest, standing: Standing) -> String {
    let names = ["PLACE", "NAME", "ARCH", "VERSION", "LICENSE", "SIZE", "SHA256"];
    let rows = manifest.entries.iter().map(row).collect();
    let architectures: Vec<&str> = manifest.architectures().into_iter().map(Arch::as_str).collect();
    format!(
        "bundle     {}\nstanding   {}\nauthority  {}\nfor        {}\nbytes      {}\n\n{}",
        signed.digest(),
        standing.word(),
        signed.signature.authority.to_pin(),
        or_dash(architectures.join(", ")),
        bytes(manifest),
        table(&names, rows, true),
    )
}

fn row(entry: &Entry) -> Vec<String> {
    let digest = entry.sha256.to_hex();
    vec![
        entry.place.to_string(),
        entry.name.to_string(),
        entry.architecture.map_or_else(|| "any".to_owned(), |of| of.to_string()),
        or_dash(entry.version.as_deref().unwrap_or_default()),
        or_dash(entry.license.as_deref().unwrap_or_default()),
        entry.size.to_string(),
        digest.get(..12).unwrap_or_default().to_owned(),
    ]
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.entries.iter().map(|entry| entry.size).sum()
}
