//! What the process gives up at its start: nobody but root may look into its
//! memory, it leaves no core, and what it creates is its user's alone.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// A step of hardening that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("hardening the process: {step}")]
pub(super) struct NotHardened {
    step: &'static str,
    #[source]
    cause: rustix::io::Errno,
}

/// Hardens the process. Call it before any secret is read.
///
/// # Errors
/// The kernel refused a step, as a filter of system calls may.
pub(super) fn harden() -> Result<(), NotHardened> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let limit = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, limit)
        .map_err(|cause| NotHardened { step: "switching core files off", cause })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|cause| NotHardened { step: "closing its memory to others", cause })
}
