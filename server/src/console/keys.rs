//! The token file: one operator a line, `NAME TOKEN`. Made at the first start, for
//! its owner only; read again whenever it changes. In memory there are digests.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use berth_domain::identity::sha256;
use data_encoding::Specification;
use zeroize::Zeroizing;

use super::limits;
use crate::watched::{Stamps, Unreadable, read};

/// Why there are no operators.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is not there and cannot be made.
    #[error("making {}", path.display())]
    Make {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// A line says something else.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// Nobody may come in.
    #[error("{} names no operator; write a line NAME TOKEN, or remove the file to have one made", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// What is kept of a token: of 160 random bits, a plain digest tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyDigest([u8; 32]);

struct Key {
    name: String,
    digest: KeyDigest,
}

/// The operators of a console.
pub(super) struct Keys {
    path: PathBuf,
    current: Mutex<(Stamps, Vec<Key>)>,
}

impl Keys {
    /// Reads the file, and makes it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, KeysError> {
        if matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            make(path).map_err(|cause| KeysError::Make { path: path.to_owned(), cause })?;
        }
        let stamps = Stamps::of(&[path]);
        let keys = load(path)?;
        Ok(Self { path: path.to_owned(), current: Mutex::new((stamps, keys)) })
    }

    /// The operator who has this token. Takes the same time for every token.
    pub(super) fn whose(&self, token: &str) -> Option<(String, KeyDigest)> {
        let digest = KeyDigest(sha256(token.as_bytes()));
        self.with(|keys| {
            let mut found = None;
            for key in keys {
                if verify_slices_are_equal(&key.digest.0, &digest.0).is_ok() {
                    found = Some((key.name.clone(), digest.clone()));
                }
            }
            found
        })
    }

    /// Whether the operator still has it.
    pub(super) fn still_has(&self, name: &str, digest: &KeyDigest) -> bool {
        self.with(|keys| keys.iter().any(|key| key.name == name && key.digest == *digest))
    }

    fn with<T>(&self, use_it: impl FnOnce(&[Key]) -> T) -> T {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = Stamps::of(&[&self.path]);
        if current.0 != stamps {
            match load(&self.path) {
                Ok(keys) => *current = (stamps, keys),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(error = format!("{error:#}"), "the console keeps its last operators");
                    current.0 = stamps;
                }
            }
        }
        use_it(&current.1)
    }
}

/// A file with one operator, born readable by its owner only.
fn make(path: &Path) -> io::Result<()> {
    let mut bits = Zeroizing::new([0; 20]);
    aws_lc_rs::rand::fill(&mut *bits).map_err(|_| io::Error::other("the system gives no randomness"))?;
    let mut letters = Specification::new();
    letters.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    let letters = letters.encoding().map_err(io::Error::other)?;
    let line = Zeroizing::new(format!("operator {}\n", *Zeroizing::new(letters.encode(&*bits))));
    let next = path.with_extension("next");
    // One that a crash left behind.
    let _left = std::fs::remove_file(&next);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

fn load(path: &Path) -> Result<Vec<Key>, KeysError> {
    let text = read(path)?;
    if std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0) {
        tracing::warn!(path = %path.display(), "anybody on this machine may read the console's tokens; chmod 600");
    }
    let mut keys: Vec<Key> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let wrong =
            |problem| KeysError::Line { path: path.to_owned(), line: place.saturating_add(1), problem };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("a line is NAME TOKEN"));
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.len() > 64 || !name.chars().all(legal) {
            return Err(wrong("a name has 1 to 64 of a-z A-Z 0-9 - _ . @"));
        }
        if !limits::TOKEN_CHARACTERS.contains(&token.len()) || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(wrong(
                "a token has 32 to 256 characters, all of them random; openssl rand -hex 20 makes one",
            ));
        }
        if keys.len() == limits::OPERATORS {
            return Err(wrong("there may be 256 operators at most"));
        }
        keys.push(Key { name: name.to_owned(), digest: KeyDigest(sha256(token.as_bytes())) });
    }
    if keys.is_empty() {
        return Err(KeysError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_token_that_only_its_owner_reads() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("console.tokens");
        Keys::open(&path).expect("it is made");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).expect("readable");
        let (name, token) = text.trim().split_once(' ').expect("NAME TOKEN");
        assert_eq!((name, token.len()), ("operator", 32));
        let again = Keys::open(&path).expect("the same");
        assert_eq!(again.whose(token).map(|(name, _)| name), Some("operator".to_owned()));
        assert!(again.whose(&token.to_uppercase()).is_none());
        assert!(again.whose("").is_none());
    }

    #[test]
    fn a_line_that_is_none_is_named_and_weak_tokens_are_not_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("console.tokens");
        for (text, wanted) in [
            ("# nobody\n", "names no operator"),
            ("alice\n", ":1: a line is NAME TOKEN"),
            ("\nalice secret\n", ":2: a token has 32 to 256"),
            ("al/ice aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", ":1: a name has"),
        ] {
            std::fs::write(&path, text).expect("a file");
            let refused = Keys::open(&path).err().expect("it is wrong").to_string();
            assert!(refused.contains(wanted), "{refused}");
        }
    }

    #[test]
    fn a_file_that_was_spoilt_leaves_the_operators_as_they_were() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("console.tokens");
        let token = "a".repeat(40);
        std::fs::write(&path, format!("alice {token}\n")).expect("a file");
        let keys = Keys::open(&path).expect("alice");
        std::fs::write(&path, "nonsense\n").expect("a file");
        assert!(keys.whose(&token).is_some());
    }
}
