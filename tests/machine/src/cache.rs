//! What is made once and kept outside of any clone: a folder for each recipe, so
//! that another recipe never finds the results of this one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use berth_kubernetes::berth_cache;
use data_encoding::HEXLOWER;

/// The folder of a recipe's results, held against others who would make the same.
pub(crate) struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// The folder `NAME-HASH` of a recipe.
    pub(crate) fn place(name: &str, recipe: &str) -> Result<PathBuf> {
        let hash = HEXLOWER.encode(digest(&SHA256, recipe.as_bytes()).as_ref());
        let name = format!("{name}-{}", hash.get(..12).unwrap_or(&hash));
        Ok(berth_cache()?.join("machine").join(name))
    }

    /// The same, once nobody else works in it.
    pub(crate) fn open(name: &str, recipe: &str) -> Result<Self> {
        let folder = Self::place(name, recipe)?;
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        // A second one waits here, and then finds the work done.
        let lock = File::create(folder.join(".lock")).context("making the lock of the machines' cache")?;
        lock.lock().context("waiting for another who makes the same")?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A result, if need be made beside its place and renamed: what is half made is
    /// never found. `say` gets a line before and behind.
    pub(crate) fn step(
        &self,
        name: &str,
        say: &mut dyn FnMut(&str),
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let done = self.folder.join(name);
        if done.exists() {
            return Ok(());
        }
        let began = Instant::now();
        say(&format!("making the {name} of bare machines, once: some minutes"));
        let unfinished = self.folder.join(format!("{name}.new"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("removing {}", unfinished.display()))?;
        }
        make(&unfinished)?;
        fs::rename(&unfinished, &done).with_context(|| format!("putting {name} into its place"))?;
        say(&format!("made the {name} in {} s", began.elapsed().as_secs()));
        Ok(())
    }
}
