//! Images that came with the node, taken in by containerd once it runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::host::{program, survey};

/// How long one may take: the largest have some hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes in the archives that are not known yet, and names those that were taken, each
/// with its size and time: another under the same name is another. Blocks.
pub(super) fn take_in(known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    for archive in survey::archives(Path::new("/")) {
        let (path, Ok(metadata)) = (archive.display().to_string(), fs::metadata(&archive)) else { continue };
        let name = format!("{path} {} {}", metadata.size(), metadata.mtime());
        if known.contains(&name) {
            continue;
        }
        // Without ctr nothing else reads such a file: it comes with containerd.
        match program::run("ctr", &["--namespace", "k8s.io", "images", "import", &path], PATIENCE) {
            Ok(_) => drop(taken.insert(name)),
            Err(error) => tracing::warn!(%error, %path, "the runtime did not take the image in"),
        }
    }
    taken
}
