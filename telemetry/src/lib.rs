//! The names of Berth: what spans, attributes and metrics are called, how
//! spans leave the process, and how a trace crosses from one to the other.
//!
//! Spans and metrics are made only by drivers and decorators, and only with
//! names of [`names`].
#![warn(missing_docs)]

#[cfg(feature = "doubles")]
pub mod collector;
pub mod effect;
mod export;
mod logs;
pub mod metrics;
pub mod names;
pub mod phase;
pub mod propagation;
pub mod recent;
pub mod relay;
pub mod rpc;
mod sample;
pub mod setup;
mod uncollected;

pub use phase::{Coded, Finished, Outcome};
pub use sample::Share;
pub use setup::{Delivery, InstallError, LogFormat, Settings, Spans, Telemetry};
