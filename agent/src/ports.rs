//! What the phases need of the world, in verbs of the domain. Adapters stand in
//! `host`, `vault`, `journal` and `line`; each passes the same contract
//! suite as its in-memory double.

#[cfg(any(test, feature = "doubles"))]
pub mod doubles;
pub mod server;

mod changed;
mod file;
mod journal;
mod services;
mod software;
mod vault;

pub use berth_program::clock::Clock;
pub use changed::{Applied, ApplyError, Left, RolledBack, Undone};
pub use file::FileError;
pub use journal::{Journal, JournalEntry, Loaded, Standing};
pub use services::Services;
pub use software::{Delivery, Depot, DepotError, Draft, Stage, Supplier};
pub use vault::{Discard, Held, Vault, VaultError};

pub use crate::credential::{Credential, Issue, MachineKey, NodeKey};

use async_trait::async_trait;
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;

use crate::plan::{Installed, Plan, Seen};

/// The machine that the agent runs on.
#[async_trait]
pub trait Host: Send + Sync {
    /// What is found on it.
    async fn survey(&self) -> HostFacts;

    /// What of a node's software stands below the root. Blocks for the disk.
    fn installed(&self) -> Installed;

    /// What stands at the plan's paths now. Changes nothing.
    fn see(&self, plan: &Plan) -> Seen;

    /// Makes all files stand as planned, or leaves all as they were; then loads the
    /// plan's modules and sets its settings, on the running system alone. What is as
    /// planned already is not touched. Units are [`Services`]' affair. Blocks for
    /// the disk.
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
