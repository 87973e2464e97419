//! How to sign in to the console: its page is in a container that has nothing to look
//! into a file with.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Says where the page is and what to sign in with.
pub(crate) fn tell(tokens: &Path, page: &str) -> Result<()> {
    let text = fs::read_to_string(tokens).with_context(|| format!("reading {}", tokens.display()))?;
    let token = text.split_whitespace().nth(1);
    let token = token.with_context(|| format!("{} has no operator", tokens.display()))?;
    println!("The console:  {page}\nSign in with: {token}");
    Ok(())
}

/// Writes a file that only its owner may read.
pub(crate) fn keep(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
