//! Where the machine's token comes from: read once, bounded, wiped from memory
//! and, where it lay in a file, from the disk once it has been used.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::token::{JoinToken, LONGEST_TOKEN, NotAToken};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::join::TokenSource;

/// The name of the systemd credential (`LoadCredential=join-token:...`).
pub const CREDENTIAL: &str = "join-token";

/// Where systemd looks for a credential that a unit names without a path
/// (systemd.exec(5)), as far as it lies there as it is; what is encrypted can be read on
/// this machine alone, and stays.
const STORES: [&str; 3] = ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"];

/// Where a token lies.
#[derive(Clone)]
pub enum Place {
    /// In a file, which is wiped and removed once the token has been used.
    File(PathBuf),
    /// On standard input: one line.
    StandardInput,
    /// Behind an open file descriptor: one line.
    Descriptor(u32),
    /// Among the systemd credentials of this directory ([`CREDENTIAL`]); the file that
    /// systemd took it from is wiped and removed once the token has been used.
    Credential(PathBuf),
    /// On the command line, where every user of the machine has seen it.
    Argument(Zeroizing<String>),
    /// Nowhere.
    Nowhere,
}

impl Place {
    /// The place that `--token-file` names: `-` is standard input.
    #[must_use]
    pub fn named(path: PathBuf) -> Self {
        if path == Path::new("-") { Self::StandardInput } else { Self::File(path) }
    }
}

/// The token that this process was given.
pub struct GivenToken {
    place: Place,
    /// What was read: an input that is not a file can be read once only.
    read: Mutex<Option<Text>>,
}

/// A token's text: bounded, and wiped when dropped.
type Text = Zeroizing<Vec<u8>>;

impl GivenToken {
    /// The token at a place. Nothing is read yet.
    #[must_use]
    pub const fn at(place: Place) -> Self {
        Self { place, read: Mutex::new(None) }
    }

    /// What a person should know of how the token was given, as one sentence.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match &self.place {
            Place::Argument(_) => Some(
                "the token stands on the command line, where every user of this machine can read it; \
                 use --token-file"
                    .to_owned(),
            ),
            Place::File(path) => {
                let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
                let path = path.display();
                (mode & 0o077 != 0).then(|| {
                    format!(
                        "the token file {path} can be read by other users (mode {mode:04o}): chmod 600 {path}"
                    )
                })
            }
            Place::StandardInput | Place::Descriptor(_) | Place::Credential(_) | Place::Nowhere => None,
        }
    }

    fn read(&self) -> Result<Text, Diagnosis> {
        let (text, name) = match &self.place {
            Place::File(path) => (opened(path).and_then(first_line), path.display().to_string()),
            Place::Credential(directory) => {
                let path = directory.join(CREDENTIAL);
                (opened(&path).and_then(first_line), path.display().to_string())
            }
            Place::StandardInput => {
                // Not through the standard library's buffer, which nobody wipes.
                let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
                (input.and_then(first_line), "standard input".to_owned())
            }
            Place::Descriptor(number) => {
                let path = format!("/dev/fd/{number}");
                (File::open(&path).and_then(first_line), format!("file descriptor {number}"))
            }
            Place::Argument(text) => (Ok(Zeroizing::new(text.as_bytes().to_vec())), String::new()),
            Place::Nowhere => return Err(missing()),
        };
        text.map_err(|cause| missing().with("problem", format!("reading {name}: {cause}")))
    }

    fn held(&self) -> MutexGuard<'_, Option<Text>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for GivenToken {
    fn token(&self) -> Result<JoinToken, Diagnosis> {
        let mut held = self.held();
        let text = match held.take() {
            Some(text) => text,
            None => self.read()?,
        };
        let token = parsed(&text);
        *held = Some(text);
        token.map_err(|problem| {
            Diagnosis::new(Code::TokenMalformed, Phase::Authentication).with("problem", problem)
        })
    }

    /// Wipes the text in memory. A file is overwritten and removed too, if it
    /// is a regular file that holds a token and nothing else: whatever else
    /// the path names by now is not the agent's to remove.
    fn forget(&self) -> Result<(), Diagnosis> {
        self.held().take();
        match &self.place {
            Place::File(path) => wipe(path).map_err(|cause| {
                Diagnosis::new(Code::FileNotWritten, Phase::Authorization)
                    .with("path", path.display())
                    .with("error", cause)
                    .with("rolledBack", "nothing: the used token still lies there")
            }),
            Place::Credential(directory) => {
                forget_in_stores(&directory.join(CREDENTIAL), &STORES.map(Path::new));
                Ok(())
            }
            Place::StandardInput | Place::Descriptor(_) | Place::Argument(_) | Place::Nowhere => Ok(()),
        }
    }
}

/// Wipes and removes the file from which systemd took a credential, where that is a file
/// with the same token; the credential itself goes with the service. What cannot be
/// removed is told: the token in it is spent, and the join is none the worse.
fn forget_in_stores(credential: &Path, stores: &[&Path]) {
    let read = |path: &Path| opened(path).and_then(first_line);
    let Ok(used) = read(credential) else { return };
    for store in stores {
        let path = store.join(CREDENTIAL);
        let is_the_same = |text: &Text| {
            verify_slices_are_equal(text.trim_ascii(), used.trim_ascii()).is_ok() && parsed(text).is_ok()
        };
        if read(&path).is_ok_and(|text| is_the_same(&text))
            && let Err(error) = wipe(&path)
        {
            tracing::warn!(%error, path = %path.display(), "the used token still lies there");
        }
    }
}

fn missing() -> Diagnosis {
    Diagnosis::new(Code::TokenMissing, Phase::Authentication)
}

/// Parses a text that may have white space around it.
fn parsed(text: &Text) -> Result<JoinToken, NotAToken> {
    std::str::from_utf8(text).map_err(|_| NotAToken::Version)?.trim().parse()
}

/// Opens a file for reading; a FIFO that nobody writes to does not hold the agent.
fn opened(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    // A shell's <(...) is a FIFO with a writer: there, wait for the text.
    if !file.metadata()?.is_file() {
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// Reads up to the end of the first line that is not empty, or of the input;
/// of a longer line no more than shows that it is too long.
fn first_line(mut input: File) -> io::Result<Text> {
    const MOST: usize = LONGEST_TOKEN + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(MOST));
    let mut chunk = Zeroizing::new([0; MOST]);
    while text.len() < MOST {
        let room = chunk.get_mut(..MOST - text.len()).unwrap_or_default();
        let count = match input.read(room) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        text.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let is_line = !text.trim_ascii().is_empty() && text.trim_ascii_start().contains(&b'\n');
        if count == 0 || is_line {
            break;
        }
    }
    Ok(text)
}

/// Overwrites and removes a file that holds a token. One that is gone is wiped.
fn wipe(path: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let mut file = match File::options().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if !metadata.is_file() || size > LONGEST_TOKEN {
        return Ok(());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TOKEN));
    (&mut file).take(LONGEST_TOKEN as u64).read_to_end(&mut text)?;
    if parsed(&text).is_err() {
        return Ok(());
    }
    file.rewind()?;
    file.write_all(&vec![b' '; size])?;
    file.sync_all()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use berth_domain::identity::SpkiHash;
    use berth_domain::token::MINT_ENTROPY;

    use super::*;

    fn text() -> String {
        let token = JoinToken::mint(&Zeroizing::new([7; MINT_ENTROPY]), SpkiHash::of(b"ca"));
        token.to_text().to_string()
    }

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, content).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its own");
        (directory, path)
    }

    #[test]
    fn a_token_in_a_file_is_read_and_gone_after_use() {
        let (_directory, path) = file(&format!("\n{}\n", text()));
        let link = path.with_file_name("hard-link");
        std::fs::hard_link(&path, &link).expect("writable");
        let given = GivenToken::at(Place::named(path.clone()));
        assert_eq!(given.token().expect("a token").id.as_str().len(), 10);
        assert_eq!(given.warning(), None);
        given.forget().expect("removable");
        given.forget().expect("a second time is no error");
        assert!(!path.exists());
        let left = std::fs::read_to_string(link).expect("there");
        assert!(left.trim().is_empty(), "the content was overwritten before the name was removed");
        assert_eq!(given.token().err().map(|why| why.code()), Some(Code::TokenMissing));
    }

    #[test]
    fn a_bootstrap_token_of_kubeadm_is_a_token_too() {
        let (_directory, path) = file("u7k2pw.x91mqz40bhc8ydre\n");
        let given = GivenToken::at(Place::named(path.clone()));
        let token = given.token().expect("a token");
        assert_eq!((token.id.as_str(), token.pin), ("u7k2pw", None));
        given.forget().expect("removable");
        assert!(!path.exists());
        let sample = GivenToken::at(Place::Argument(Zeroizing::new("abcdef.0123456789abcdef".to_owned())));
        let why = sample.token().err().expect("everybody knows it");
        assert_eq!(why.code(), Code::TokenMalformed);
        assert!(why.cause().contains("manual") && !why.cause().contains("0123"), "{}", why.cause());
        assert!(why.mend().contains("berth1.") && why.mend().contains("kubeadm"), "{}", why.mend());
    }

    #[test]
    fn what_is_no_token_is_neither_repeated_nor_removed() {
        let secret = "hunter2hunter2hunter2";
        let (_directory, path) = file(secret);
        let given = GivenToken::at(Place::File(path.clone()));
        let why = given.token().err().expect("no token");
        assert_eq!(why.code(), Code::TokenMalformed);
        assert!(!format!("{why:?} {} {}", why.cause(), why.mend()).contains("hunter2"));
        given.forget().expect("nothing to do");
        assert_eq!(std::fs::read_to_string(path).expect("there"), secret);
    }

    #[test]
    fn a_link_in_the_token_s_place_does_not_lead_to_another_file() {
        let (directory, path) = file(&text());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("writable");
        let given = GivenToken::at(Place::File(link));
        assert!(given.token().is_ok());
        assert_eq!(given.forget().err().map(|why| why.code()), Some(Code::FileNotWritten));
        assert_eq!(std::fs::read_to_string(path).expect("there"), text());
    }

    #[test]
    fn no_more_than_a_token_is_read() {
        let (_directory, path) = file(&"a".repeat(1 << 20));
        let why = GivenToken::at(Place::File(path)).token().err().expect("too long");
        assert_eq!(why.value("problem"), Some("it has 257 characters, not 110"));
    }

    #[test]
    fn a_descriptor_is_read_once_and_remembered() {
        use std::os::fd::AsRawFd as _;
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(format!("{}\n", text()).as_bytes()).expect("room");
        let number = u32::try_from(reader.as_raw_fd()).expect("a descriptor");
        let given = GivenToken::at(Place::Descriptor(number));
        // The writer stays open: the line's end is enough.
        assert!(given.token().is_ok() && given.token().is_ok());
    }

    #[test]
    fn a_systemd_credential_is_found_by_its_name_and_left_to_systemd() {
        let (directory, path) = file(&text());
        let credential = directory.path().join(CREDENTIAL);
        std::fs::rename(path, &credential).expect("writable");
        let given = GivenToken::at(Place::Credential(directory.path().to_owned()));
        assert!(given.token().is_ok());
        given.forget().expect("nothing to do");
        assert!(credential.exists());
        let nowhere = GivenToken::at(Place::Credential(directory.path().join("none")));
        let why = nowhere.token().err().expect("no token");
        assert_eq!(why.code(), Code::TokenMissing);
        assert!(why.cause().contains("No such file"), "{}", why.cause());
    }

    #[test]
    fn what_systemd_took_the_credential_from_goes_if_it_is_the_same_token() {
        let (_given, path) = file(&text());
        let stores = tempfile::tempdir().expect("a directory");
        let (own, other) = (stores.path().join("own"), stores.path().join("other"));
        for (store, content) in [(&own, text()), (&other, "u7k2pw.x91mqz40bhc8ydre".to_owned())] {
            std::fs::create_dir(store).expect("writable");
            std::fs::write(store.join(CREDENTIAL), content).expect("writable");
        }
        forget_in_stores(&path, &[&own, &other, Path::new("/nowhere")]);
        assert!(path.exists(), "the credential is systemd's");
        assert!(!own.join(CREDENTIAL).exists());
        assert!(other.join(CREDENTIAL).exists(), "another token is not this join's");
    }

    #[test]
    fn a_token_that_others_can_read_is_warned_of() {
        let (_directory, path) = file(&text());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("its own");
        let warning = GivenToken::at(Place::File(path)).warning().expect("a warning");
        assert!(warning.contains("mode 0644") && warning.contains("chmod 600"), "{warning}");
        let argument = GivenToken::at(Place::Argument(Zeroizing::new(text())));
        let warning = argument.warning().expect("a warning");
        assert!(!warning.contains(&text()), "{warning}");
        assert!(argument.token().is_ok());
    }
}
