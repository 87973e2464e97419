//! The Unix socket: made so that nobody but its owner can ever connect, and never
//! taken from a server that answers on it.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The longest path of a socket, in bytes (unix(7): `sun_path` with its final zero).
const LONGEST_PATH: usize = 107;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another server answers on it.
    #[error("another server answers on {}; give this one a socket of its own with adminSocket", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there, which may be dear to somebody.
    #[error("{} is no socket; move it away, or name another adminSocket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// A socket's path is short.
    #[error("{} has {} bytes and a socket's path at most {LONGEST_PATH}; name a shorter adminSocket", path.display(), path.as_os_str().len())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused a step.
    #[error("{step} for {}", path.display())]
    System {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// A listening socket at its place, mode 0600. Its file goes when this is dropped,
/// unless another server has put its own there.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The socket's file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Whoever cannot connect finds out by itself.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket, and its directory (0700) where there is none. A socket that a
/// crash left behind is replaced.
pub(super) fn bind(path: &Path) -> Result<Socket, BindError> {
    let failed = |step| move |cause| BindError::System { step, path: path.to_owned(), cause };
    // Two servers that start at the same time look and act one after the other.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("making the directory"))?;
    let gate = File::open(directory).map_err(failed("opening the directory"))?;
    flock(&gate, FlockOperation::LockExclusive)
        .map_err(|error| failed("locking the directory")(error.into()))?;
    look(path)?;

    // Born in a directory that only we may enter: there is no moment in which
    // somebody else could connect before the mode is set.
    let nursery = directory.join(format!(".{}", std::process::id()));
    let born = nursery.join("s");
    if path.as_os_str().len().max(born.as_os_str().len()) > LONGEST_PATH {
        return Err(BindError::TooLong { path: path.to_owned() });
    }
    // One of a killed process with our id.
    let _left = std::fs::remove_dir_all(&nursery);
    DirBuilder::new().mode(0o700).create(&nursery).map_err(failed("making a private directory"))?;
    let made = make(&born, path).map_err(|(step, cause)| failed(step)(cause));
    std::fs::remove_dir_all(&nursery).map_err(failed("removing the private directory"))?;
    made
}

/// What lies at the path may be replaced: nothing, or a socket on which nobody answers.
fn look(path: &Path) -> Result<(), BindError> {
    let failed = |step| move |cause| BindError::System { step, path: path.to_owned(), cause };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking what is there")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed("asking whether a server answers")(error)),
    }
}

fn make(born: &Path, path: &Path) -> Result<Socket, (&'static str, io::Error)> {
    let step = |step: &'static str| move |cause| (step, cause);
    let listener = UnixListener::bind(born).map_err(step("binding"))?;
    std::fs::set_permissions(born, Permissions::from_mode(0o600)).map_err(step("setting the mode"))?;
    listener.set_nonblocking(true).map_err(step("making it non-blocking"))?;
    let inode = std::fs::symlink_metadata(born).map_err(step("looking at the socket"))?.ino();
    std::fs::rename(born, path).map_err(step("putting it in its place"))?;
    Ok(Socket { listener, file: SocketFile { path: path.to_owned(), inode } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn only_the_owner_may_open_it_and_it_goes_with_its_server() {
        let directory = directory();
        let path = directory.path().join("new/admin.sock");
        let socket = bind(&path).expect("a free place");
        let mode = |path: &Path| std::fs::symlink_metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&directory.path().join("new")), 0o700);
        let lies_there = std::fs::read_dir(directory.path().join("new")).expect("a directory").count();
        assert_eq!(lies_there, 1, "nothing but the socket stays");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_on_which_a_server_answers_is_not_taken() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let first = bind(&path).expect("a free place");
        assert!(matches!(bind(&path), Err(BindError::Taken { .. })));
        UnixStream::connect(&path).expect("the first one still answers");
        drop(first);
    }

    #[test]
    fn what_a_crash_left_is_replaced_and_nothing_else_is() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let first = bind(&path).expect("a free place");
        // A crash closes the listener and leaves the file.
        std::mem::forget(first.file);
        drop(first.listener);
        let second = bind(&path).expect("the stale one is replaced");
        UnixStream::connect(&path).expect("the new one answers");
        drop(second);
        std::fs::write(&path, "dear to somebody").expect("writable");
        assert!(matches!(bind(&path), Err(BindError::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "dear to somebody");
    }

    #[test]
    fn a_server_that_ends_leaves_its_successors_socket_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let Socket { listener, file } = bind(&path).expect("a free place");
        drop(listener);
        let second = bind(&path).expect("nobody answers any more");
        drop(file);
        UnixStream::connect(&path).expect("the successor answers");
        drop(second);
    }

    #[test]
    fn a_path_too_long_for_a_socket_says_so() {
        let directory = directory();
        let path = directory.path().join("x".repeat(LONGEST_PATH));
        assert!(matches!(bind(&path), Err(BindError::TooLong { .. })));
    }
}
