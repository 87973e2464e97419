//! Berth's hands on the machine: what is found there, what is checked, what is
//! changed.

pub mod apply;
pub mod checks;
pub mod firewall;
pub mod services;
pub mod survey;
pub mod units;

mod cri;
mod kernel;
mod machine;
#[cfg(any(test, feature = "doubles"))]
mod memory;
mod program;

pub use machine::Machine;
#[cfg(any(test, feature = "doubles"))]
pub use memory::{MemoryHost, Node};
