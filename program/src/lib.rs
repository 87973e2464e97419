//! The manners of both programs: how a configuration file is read, where a setting
//! came from, how the manual page is made, how PEM is written, what TLS they offer, what
//! time it is. Nothing of joins.
#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod pem;
pub mod shell;
pub mod tls;

mod period;
mod sources;

pub use period::{NotAPeriod, Period};
pub use sources::Sources;
