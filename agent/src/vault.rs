//! Keys and credentials as files below `var/lib/berth`, and in memory. One file
//! holds the current and the former credential, so that they change together.

mod credentials;

use std::io;
use std::path::Path;

use berth_program::pem;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::credential::{Credential, Issue, KeyError, MachineKey, NodeKey};
use crate::files::{STATE_DIRECTORY, State, Tree};
use crate::ports::{Discard, FileError, Held, Vault, VaultError};

/// The vault in the agent's state directory.
pub struct FileVault {
    state: State,
}

impl FileVault {
    /// The vault below a root: in `var/lib/berth` there.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn below(root: &Path) -> io::Result<Self> {
        Ok(Self::in_tree(Tree::open(root)?))
    }

    fn in_tree(tree: Tree) -> Self {
        Self { state: State::at(tree, STATE_DIRECTORY) }
    }

    /// The key in a file, or a fresh one that is kept there.
    fn key<K>(
        &self,
        name: &str,
        read: impl Fn(&[u8]) -> Result<K, KeyError>,
        fresh: impl Fn() -> Result<K, KeyError>,
        pkcs8: impl Fn(&K) -> &[u8],
    ) -> Result<K, VaultError> {
        if let Some(content) = self.state.read(name).map_err(self.not_read(name))? {
            let der = PrivatePkcs8KeyDer::from_pem_slice(&content)
                .map_err(|_| self.not_read(name)(invalid("it is no PEM file with a private key")))?;
            return Ok(read(der.secret_pkcs8_der())?);
        }
        let key = fresh()?;
        let text = pem::encode(pem::PRIVATE_KEY, pkcs8(&key));
        self.state.write(name, text.as_bytes()).map_err(self.not_written(name))?;
        Ok(key)
    }

    fn fresh_proposal(&self) -> Result<NodeKey, VaultError> {
        self.key(PROPOSED, NodeKey::from_pkcs8, NodeKey::generate, NodeKey::pkcs8)
    }

    fn save(&self, held: &Held) -> Result<(), VaultError> {
        let content = credentials::written(held).map_err(self.not_written(CREDENTIALS))?;
        Ok(self.state.write(CREDENTIALS, &content).map_err(self.not_written(CREDENTIALS))?)
    }

    fn forget(&self, name: &str) -> Result<(), VaultError> {
        Ok(self.state.remove(name).map_err(self.not_written(name))?)
    }

    fn not_read(&self, name: &str) -> impl FnOnce(io::Error) -> FileError {
        FileError::not_read(self.state.path(name))
    }

    fn not_written(&self, name: &str) -> impl FnOnce(io::Error) -> FileError {
        FileError::not_written(self.state.path(name))
    }
}

impl Vault for FileVault {
    fn machine_key(&self) -> Result<MachineKey, VaultError> {
        self.key(MACHINE, MachineKey::from_pkcs8, MachineKey::generate, MachineKey::pkcs8)
    }

    fn proposed_key(&self) -> Result<NodeKey, VaultError> {
        let key = self.fresh_proposal()?;
        // After a crash between keeping a credential and forgetting its proposal.
        let is_certified = self.credential()?.is_some_and(|held| held.current.key() == key.pkcs8());
        if is_certified {
            self.forget(PROPOSED)?;
            return self.fresh_proposal();
        }
        Ok(key)
    }

    fn keep(&self, issue: Issue) -> Result<Held, VaultError> {
        let held = next(&self.proposed_key()?, issue, self.credential()?)?;
        self.save(&held)?;
        self.forget(PROPOSED)?;
        Ok(held)
    }

    fn credential(&self) -> Result<Option<Held>, VaultError> {
        let Some(content) = self.state.read(CREDENTIALS).map_err(self.not_read(CREDENTIALS))? else {
            return Ok(None);
        };
        Ok(Some(credentials::read(&content).map_err(self.not_read(CREDENTIALS))?))
    }

    fn discard(&self, what: Discard) -> Result<(), VaultError> {
        match what {
            Discard::Former => match self.credential()? {
                Some(Held { current, former: Some(_) }) => self.save(&Held { current, former: None }),
                Some(Held { former: None, .. }) | None => Ok(()),
            },
            Discard::Node => {
                self.forget(CREDENTIALS)?;
                self.forget(PROPOSED)
            }
            Discard::Everything => {
                self.discard(Discard::Node)?;
                self.forget(MACHINE)
            }
        }
    }
}

/// The credentials after a key was certified.
fn next(key: &NodeKey, issue: Issue, before: Option<Held>) -> Result<Held, VaultError> {
    let current = Credential::new(key, issue)?;
    // A current one that was never used is no better to fall back on than the
    // one before it, which was.
    let former = before.map(|held| held.former.unwrap_or(held.current));
    Ok(Held { current, former })
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

const MACHINE: &str = "machine-key.pem";
const PROPOSED: &str = "proposed-key.pem";
const CREDENTIALS: &str = "credentials.json";

#[cfg(any(test, feature = "doubles"))]
mod memory;
#[cfg(any(test, feature = "doubles"))]
pub use memory::MemoryVault;

#[cfg(test)]
mod tests;
