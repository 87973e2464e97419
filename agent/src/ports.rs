//! What the phases need of the world, in verbs of the domain. Adapters stand in
//! `host`, `vault`, `journal`, `clock` and `line`; each passes the same contract
//! suite as its in-memory double.

#[cfg(any(test, feature = "doubles"))]
pub mod doubles;
pub mod server;

mod changed;
mod journal;
mod software;
mod vault;

pub use changed::{Applied, ApplyError, Left, RolledBack, Undone};
pub use journal::{Journal, JournalEntry, JournalError, Loaded, Standing};
pub use software::{Delivery, Depot, DepotError, Draft, Stage, Supplier};
pub use vault::{Discard, Held, Vault, VaultError};

pub use crate::credential::{Credential, Issue, MachineKey, NodeKey};

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;

use crate::plan::{Plan, Seen};

/// The machine that the agent runs on.
#[async_trait]
pub trait Host: Send + Sync {
    /// What is found on it.
    async fn survey(&self) -> HostFacts;

    /// What stands at the plan's paths now. Changes nothing.
    fn see(&self, plan: &Plan) -> Seen;

    /// Makes everything stand as planned, or leaves all as it was. What stands
    /// as planned already is not touched. Blocks for the disk.
    ///
    /// # Errors
    /// Names the path that stood in the way, and what was rolled back.
    fn apply(&self, plan: &Plan, now: Timestamp) -> Result<Applied, ApplyError>;

    /// Puts everything back as it was before the first plan, but for what
    /// somebody else has changed since. A second time changes nothing; after a
    /// failure or a crash it goes on where it stopped.
    ///
    /// # Errors
    /// Names the path that could not be put back.
    fn undo(&self, now: Timestamp) -> Result<Undone, ApplyError>;
}

/// What time it is: the only place that asks is its adapter.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}
