//! What programs say of their version, remembered while this process lives: a join that
//! waits looks every few seconds, and to run a kubelet takes more CPU than all the rest
//! of a look. A file that is replaced is asked anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The last answer, and of which file.
#[derive(Debug, Default)]
pub struct Versions(Mutex<Option<(Identity, String)>>);

/// A program's file. Whatever writes to it or takes its place changes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Versions {
    /// What the program at a path says, by `ask` where this file was not asked before. No
    /// answer is not remembered.
    pub(super) async fn of(
        &self,
        program: &Path,
        ask: impl Future<Output = Option<String>>,
    ) -> Option<String> {
        // Before it is asked: what takes its place meanwhile has another identity.
        let identity = identity(program)?;
        if let Some((of, version)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && *of == identity
        {
            return Some(version.clone());
        }
        let version = ask.await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((identity, version.clone()));
        Some(version)
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some(Identity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}
