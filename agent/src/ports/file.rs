//! How a file of the agent's own was not read or written.

use std::io;
use std::path::PathBuf;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;

use super::changed::RolledBack;

/// One of the agent's own files was not read or written. Each is replaced as a whole, or
/// is part of a blob, which is verified before it counts: there is nothing to roll back.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be written or removed.
    #[error("writing {}", path.display())]
    NotWritten {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It could not be read.
    #[error("reading {}", path.display())]
    NotRead {
        /// Which.
        path: PathBuf,
        /// What the system said, or what is wrong with the file.
        #[source]
        cause: io::Error,
    },
}

impl FileError {
    /// What a failure to write or remove this file is.
    pub fn not_written(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::NotWritten { path, cause }
    }

    /// What a failure to read this file is.
    pub fn not_read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::NotRead { path, cause }
    }

    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        match self {
            Self::NotWritten { path, cause } => Diagnosis::new(Code::FileNotWritten, phase)
                .with("path", path.display())
                .with("error", cause)
                .with("rolledBack", RolledBack::Nothing),
            Self::NotRead { path, cause } => Diagnosis::new(Code::Unexplained, phase)
                .with("evidence", format!("reading {}: {cause}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{DepotError, VaultError};

    #[test]
    fn every_port_says_the_same_of_a_file() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let written = || FileError::not_written("var/lib/berth/journal.json")(full());
        let plain = written().into_diagnosis(Phase::Registration);
        assert_eq!((plain.code(), plain.phase()), (Code::FileNotWritten, Phase::Registration));
        assert_eq!(plain.value("path"), Some("var/lib/berth/journal.json"));
        assert_eq!(plain.value("error"), Some("no storage space"));
        assert_eq!(plain.value("rolledBack"), Some("nothing, because nothing had been changed"));
        assert_eq!(VaultError::from(written()).into_diagnosis(Phase::Registration), plain);
        assert_eq!(DepotError::from(written()).into_diagnosis(Phase::Registration), plain);

        let read = FileError::not_read("var/lib/berth/credentials.json")(full());
        let why = read.into_diagnosis(Phase::Authorization);
        assert_eq!(why.code(), Code::Unexplained);
        assert_eq!(why.value("evidence"), Some("reading var/lib/berth/credentials.json: no storage space"));
    }
}
