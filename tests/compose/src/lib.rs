//! docker-compose.yml with all that it is made of: for people (`cargo xtask
//! compose`) and for tests.
//!
//! Foreign images are made from programs of this machine, under names of their own,
//! so that the stack comes up where nothing can be pulled. [`build`] has the
//! programs, [`make_images`] the images, [`Stack`] is the stack, and [`Daemon`] a
//! Docker of a test's own, which touches no other.

mod alone;
mod browser;
mod daemon;
mod docker;
mod images;
mod jaeger;
mod programs;
mod stack;

pub use alone::alone;
pub use browser::Browser;
pub use daemon::Daemon;
pub use docker::Docker;
pub use images::{Image, make_images};
pub use jaeger::Jaeger;
pub use programs::{
    Programs, build, envoy_for_tests, jaeger_for_tests, program_for_tests, programs_for_tests,
    prometheus_for_tests,
};
pub use stack::{Cluster, Container, Stack};

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The one way to start a program here: in the workspace's root.
#[expect(clippy::disallowed_methods, reason = "the place where the stack's programs are started")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// The root of the clone this was built in.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().and_then(Path::parent).unwrap_or(own)
}
