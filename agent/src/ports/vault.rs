//! The port of keys and credentials.

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;

use super::file::FileError;
use crate::credential::{Credential, Issue, KeyError, MachineKey, NodeKey, NotACredential};

/// What the vault holds of credentials.
#[derive(Clone)]
pub struct Held {
    /// The one to use.
    pub current: Credential,
    /// The one before, until the current one has been used: good to fall back on.
    pub former: Option<Credential>,
}

/// What to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// The former credential: the current one has been used.
    Former,
    /// All of the node's: credentials and proposed key. The machine stays who it is.
    Node,
    /// The machine's key too.
    Everything,
}

/// Keys and credentials. What a method returns is durable.
pub trait Vault: Send + Sync {
    /// The machine's key, made on first use; it outlives nodes.
    ///
    /// # Errors
    /// It cannot be made, read or written.
    fn machine_key(&self) -> Result<MachineKey, VaultError>;

    /// The key to have certified next. It stays the same, over restarts too,
    /// until [`Vault::keep`] has made it a credential's.
    ///
    /// # Errors
    /// It cannot be made, read or written.
    fn proposed_key(&self) -> Result<NodeKey, VaultError>;

    /// Makes the proposed key and what was issued for it the current
    /// credential, in one step; the one before becomes the former.
    ///
    /// # Errors
    /// The certificate is for another key, or nothing can be written.
    fn keep(&self, issue: Issue) -> Result<Held, VaultError>;

    /// The credentials, if the machine has any.
    ///
    /// # Errors
    /// They cannot be read.
    fn credential(&self) -> Result<Option<Held>, VaultError>;

    /// Forgets. What is not there is forgotten already.
    ///
    /// # Errors
    /// Something cannot be removed.
    fn discard(&self, what: Discard) -> Result<(), VaultError>;
}

/// The vault did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was issued is for another key.
    #[error(transparent)]
    NotACredential(#[from] NotACredential),
}

impl VaultError {
    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        match self {
            Self::File(error) => error.into_diagnosis(phase),
            Self::Key(error) => Diagnosis::new(Code::Unexplained, phase).with("evidence", error),
            Self::NotACredential(problem) => {
                Diagnosis::new(Code::CertificateRejected, phase).with("problem", problem)
            }
        }
    }
}
