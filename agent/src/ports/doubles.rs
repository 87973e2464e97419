//! The ports' doubles, for tests of those who see ports only.

pub use crate::bundle::{MemoryDepot, MemorySupplier};
pub use crate::journal::MemoryJournal;
pub use crate::vault::MemoryVault;
pub use berth_program::clock::ManualClock;
