//! The manners of both programs: how a configuration file is read, where a
//! setting came from, how the manual page is made. Nothing of joins.
#![warn(missing_docs)]

pub mod config;
pub mod shell;

mod period;
mod sources;

pub use period::{NotAPeriod, Period};
pub use sources::Sources;
