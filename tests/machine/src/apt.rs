//! Debian packages by the apt of this machine, with lists of our own beside its
//! own: nothing is installed, and its state stays as it was.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{command, succeed};
use crate::wanted::PATIENCE;

/// One suite of Debian, with lists in a folder of its own.
pub(crate) struct Suite {
    name: &'static str,
    folder: PathBuf,
}

impl Suite {
    /// Fetches the lists of a suite.
    pub(crate) fn listed(name: &'static str, folder: &Path) -> Result<Self> {
        for below in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(below);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let suite = Self { name, folder: folder.to_owned() };
        let keep = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        keep("sources.list", source(name)?)?;
        let folder = folder.display();
        keep(
            "apt.conf",
            format!(
                "Dir::Etc::sourcelist \"{folder}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
                 Dir::State::lists \"{folder}/lists\";\nDir::Cache \"{folder}/cache\";\n\
                 Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
            ),
        )?;
        suite.apt(&["update", "--quiet"])?;
        Ok(suite)
    }

    /// Unpacks packages, each into a folder of its name below `into`.
    pub(crate) fn unpacked(&self, packages: &[&str], into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        for package in packages {
            let folder = self.folder.join("packages").join(package);
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let mut apt = command("apt-get");
            apt.env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(&folder);
            apt.args(["download", "--quiet", &format!("{package}/{}", self.name)]);
            succeed(apt, PATIENCE).with_context(|| format!("fetching the Debian package {package}"))?;
            for entry in fs::read_dir(&folder).context("looking at what apt fetched")? {
                let mut dpkg = command("dpkg-deb");
                dpkg.arg("--extract").arg(entry.context("looking at what apt fetched")?.path());
                succeed(
                    {
                        dpkg.arg(into.join(package));
                        dpkg
                    },
                    PATIENCE,
                )?;
            }
        }
        Ok(())
    }

    fn apt(&self, arguments: &[&str]) -> Result<String> {
        let mut apt = command("apt-get");
        apt.env("APT_CONFIG", self.folder.join("apt.conf")).args(arguments);
        succeed(apt, PATIENCE)
    }
}

/// A line of sources.list for a suite, of the mirror that this machine's own apt uses.
pub(crate) fn source(suite: &str) -> Result<String> {
    Ok(format!("deb [signed-by={KEYRING}] {} {suite} main", mirror()?))
}

/// The mirror of Debian among the sources of this machine's apt.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let more = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(more.map(|entry| entry.path()));
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let found = texts.filter_map(|text| mirror_in(&text)).next();
    found
        .context("no mirror of Debian among the sources of apt; to mend: name one in /etc/apt/sources.list.d")
}

/// The first address in a file of sources that is Debian's main archive.
fn mirror_in(sources: &str) -> Option<String> {
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    let address = |word: &&str| word.contains("://") && word.trim_end_matches('/').ends_with("/debian");
    words.map(|word| word.trim_end_matches('/')).find(|word| address(word)).map(str::to_owned)
}

/// The keys that sign Debian's archives: package debian-archive-keyring.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_sources() {
        let lines = "# deb http://old.example/debian x main\ndeb [arch=amd64] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(lines).as_deref(), Some("http://mirror.example/debian"));
        let stanza = "Types: deb\nURIs: https://mirror.example/pub/debian\nSuites: trixie\n";
        assert_eq!(mirror_in(stanza).as_deref(), Some("https://mirror.example/pub/debian"));
        assert_eq!(mirror_in("deb http://mirror.example/debian-security x main\n"), None);
    }
}
