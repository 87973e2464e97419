//! The journal as a file, and in memory.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{STATE_DIRECTORY, State, Tree};
use crate::ports::{FileError, Journal, JournalEntry, Loaded};

/// The journal in the agent's state directory.
pub struct FileJournal {
    state: State,
}

impl FileJournal {
    /// The journal below a root: in `var/lib/berth` there.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn below(root: &Path) -> io::Result<Self> {
        Ok(Self { state: State::at(Tree::open(root)?, STATE_DIRECTORY) })
    }

    /// Removes the journal, and one that was set aside. What is not there is
    /// forgotten already.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        self.state.remove(CORRUPT)?;
        self.state.remove(FILE)
    }

    fn file(&self) -> PathBuf {
        self.state.path(FILE)
    }
}

impl Journal for FileJournal {
    fn load(&self) -> Result<Loaded, FileError> {
        let not_read = || FileError::not_read(self.file());
        let Some(content) = self.state.read(FILE).map_err(not_read())? else { return Ok(Loaded::default()) };
        if let Some(entry) = parse(&content) {
            return Ok(Loaded { entry, set_aside: None });
        }
        self.state.write(CORRUPT, &content).and_then(|()| self.state.remove(FILE)).map_err(not_read())?;
        Ok(Loaded { entry: JournalEntry::default(), set_aside: Some(self.state.path(CORRUPT)) })
    }

    fn save(&self, entry: &JournalEntry) -> Result<(), FileError> {
        let written = Written { version: VERSION, entry: entry.clone() };
        serde_json::to_vec_pretty(&written)
            .map_err(io::Error::from)
            .and_then(|content| self.state.write(FILE, &content))
            .map_err(FileError::not_written(self.file()))
    }
}

/// The entry in its file.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(flatten)]
    entry: JournalEntry,
}

fn parse(content: &[u8]) -> Option<JournalEntry> {
    let written: Written = serde_json::from_slice(content).ok()?;
    (written.version == VERSION).then_some(written.entry)
}

const VERSION: u32 = 1;
const FILE: &str = "journal.json";
const CORRUPT: &str = "journal.json.corrupt";

#[cfg(any(test, feature = "doubles"))]
pub use memory::MemoryJournal;

#[cfg(any(test, feature = "doubles"))]
mod memory {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, PoisonError};

    use crate::ports::{FileError, Journal, JournalEntry, Loaded};

    /// A journal that lasts as long as its last clone.
    #[derive(Clone, Default)]
    pub struct MemoryJournal {
        content: Arc<Mutex<Vec<u8>>>,
    }

    impl MemoryJournal {
        /// Overwrites what is kept, as a failing disk would.
        pub fn damage(&self, content: &[u8]) {
            *self.content.lock().unwrap_or_else(PoisonError::into_inner) = content.to_vec();
        }
    }

    impl Journal for MemoryJournal {
        fn load(&self) -> Result<Loaded, FileError> {
            let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
            if content.is_empty() {
                return Ok(Loaded::default());
            }
            if let Some(entry) = super::parse(&content) {
                return Ok(Loaded { entry, set_aside: None });
            }
            content.clear();
            let set_aside = Some(PathBuf::from("journal.json.corrupt"));
            Ok(Loaded { entry: JournalEntry::default(), set_aside })
        }

        fn save(&self, entry: &JournalEntry) -> Result<(), FileError> {
            let written = super::Written { version: super::VERSION, entry: entry.clone() };
            let content = serde_json::to_vec(&written)
                .map_err(|cause| FileError::not_written("memory")(cause.into()))?;
            *self.content.lock().unwrap_or_else(PoisonError::into_inner) = content;
            Ok(())
        }
    }
}
