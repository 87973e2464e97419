//! What stands before each change to the disk: nothing, except in tests, which
//! fail or stop at the n-th change.

use std::io;
use std::path::Path;

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A new file, link or directory.
    Create,
    /// A mode.
    Mode,
    /// An owner.
    Owner,
    /// Content.
    Write,
    /// Content made durable.
    Sync,
    /// A new file or link in its place.
    Rename,
    /// Something taken away.
    Remove,
    /// Names made durable.
    SyncDirectory,
}

/// Is asked before each change.
pub(crate) trait Gate: Send + Sync {
    /// Lets the change at `path` happen, or says why not.
    fn pass(&self, operation: Operation, path: &Path) -> io::Result<()>;
}

/// Lets everything happen.
pub(crate) struct Free;

impl Gate for Free {
    fn pass(&self, _: Operation, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Gates that fail.

    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How the n-th change ends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// It fails, and what comes after works.
        Fails(i32),
        /// It and all that come after fail: the disk is full, or gone.
        Stays(i32),
        /// The process is dead: nothing more happens.
        Crash,
    }

    /// Counts changes, notes them, and strikes at one.
    pub(crate) struct Striking {
        at: usize,
        fault: Fault,
        count: AtomicUsize,
        /// All changes that were let through.
        pub(crate) seen: Mutex<Vec<(Operation, PathBuf)>>,
    }

    impl Striking {
        /// Strikes at the change numbered `at`, counted from 0.
        pub(crate) fn new(at: usize, fault: Fault) -> Self {
            Self { at, fault, count: AtomicUsize::new(0), seen: Mutex::new(Vec::new()) }
        }

        /// Whether it has struck.
        pub(crate) fn struck(&self) -> bool {
            self.count.load(Ordering::SeqCst) > self.at
        }
    }

    impl Gate for Striking {
        fn pass(&self, operation: Operation, path: &Path) -> io::Result<()> {
            let number = self.count.fetch_add(1, Ordering::SeqCst);
            let fails = match self.fault {
                Fault::Fails(errno) => (number == self.at).then_some(errno),
                Fault::Stays(errno) => (number >= self.at).then_some(errno),
                // EIO: what a caller does with it cannot reach the disk any more.
                Fault::Crash => (number >= self.at).then_some(5),
            };
            if let Some(errno) = fails {
                return Err(io::Error::from_raw_os_error(errno));
            }
            self.seen.lock().expect("no panic holds it").push((operation, path.to_owned()));
            Ok(())
        }
    }
}
