//! The vault's double: it works, and lasts as long as its last clone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::next;
use crate::credential::{Issue, MachineKey, NodeKey};
use crate::ports::{Discard, Held, Vault, VaultError};

/// A vault in memory.
#[derive(Clone, Default)]
pub struct MemoryVault {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    machine: Option<Zeroizing<Vec<u8>>>,
    proposed: Option<Zeroizing<Vec<u8>>>,
    held: Option<Held>,
}

impl MemoryVault {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault for MemoryVault {
    fn machine_key(&self) -> Result<MachineKey, VaultError> {
        let mut kept = self.kept();
        if let Some(pkcs8) = &kept.machine {
            return Ok(MachineKey::from_pkcs8(pkcs8)?);
        }
        let key = MachineKey::generate()?;
        kept.machine = Some(Zeroizing::new(key.pkcs8().to_vec()));
        Ok(key)
    }

    fn proposed_key(&self) -> Result<NodeKey, VaultError> {
        let mut kept = self.kept();
        if let Some(pkcs8) = &kept.proposed {
            return Ok(NodeKey::from_pkcs8(pkcs8)?);
        }
        let key = NodeKey::generate()?;
        kept.proposed = Some(Zeroizing::new(key.pkcs8().to_vec()));
        Ok(key)
    }

    fn keep(&self, issue: Issue) -> Result<Held, VaultError> {
        let held = next(&self.proposed_key()?, issue, self.credential()?)?;
        let mut kept = self.kept();
        kept.held = Some(held.clone());
        kept.proposed = None;
        Ok(held)
    }

    fn credential(&self) -> Result<Option<Held>, VaultError> {
        Ok(self.kept().held.clone())
    }

    fn discard(&self, what: Discard) -> Result<(), VaultError> {
        let mut kept = self.kept();
        match what {
            Discard::Former => {
                if let Some(held) = &mut kept.held {
                    held.former = None;
                }
            }
            Discard::Node => *kept = Kept { machine: kept.machine.take(), ..Kept::default() },
            Discard::Everything => *kept = Kept::default(),
        }
        Ok(())
    }
}
