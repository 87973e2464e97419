//! Machines with a fault of their own: an agent in namespaces where a disk is
//! small, a mount read-only, a name wrong; and the mend, done from outside.

use std::process::Command;
use std::time::Duration;

use crate::process::{Ended, Running, binary};

/// Starts a program of the project in new namespaces, after a script has
/// prepared them. `namespaces` are flags of unshare(1).
///
/// # Panics
/// The machine does not let users make namespaces: the test cannot run there.
#[must_use]
pub fn start_in(namespaces: &[&str], prepare: &str, program: &str, arguments: &[&str]) -> Running {
    let mut unshare = Command::new("unshare");
    unshare.arg("--map-root-user").args(namespaces).args([
        "sh",
        "-ec",
        &format!("{prepare}\nexec \"$@\""),
        "sh",
    ]);
    // A program that another starts, as a path of the project or of the system.
    unshare.arg(if program.starts_with("berth-") {
        binary(program).into_os_string()
    } else {
        program.into()
    });
    Running::start_command(unshare, |command| {
        command.args(arguments);
    })
}

/// Runs a script inside the namespaces of a running process.
#[must_use]
pub fn enter(process: &Running, namespaces: &[&str], script: &str) -> Ended {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &process.id().to_string(), "--user", "--preserve-credentials"]);
    nsenter.args(namespaces).args(["sh", "-ec", script]);
    Running::start_command(nsenter, |_| {}).wait(Duration::from_secs(10))
}
