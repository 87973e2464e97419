//! A test in a network of its own: it starts itself again below unshare(1), so that
//! every port is its own, and Docker's bridges and packet filters touch no other's.

use std::process::ExitStatus;

use anyhow::{Context as _, Result};

use crate::command;
use crate::programs::not_run;

/// True in the process that is to do the test; it has a network of its own. False in
/// the one that has had it done, or has said that it cannot be done here.
///
/// `test` is the test's name, as libtest has it.
///
/// # Errors
/// The test failed; or it cannot be done here, and `CI` is true.
pub fn alone(test: &str) -> Result<bool> {
    if std::env::var_os(MARK).is_some() {
        let up = command("ip").args(["link", "set", "lo", "up"]).status();
        return up.context("starting ip").map(|ended| ended.success());
    }
    if !rustix::process::geteuid().is_root() {
        not_run("a Docker daemon of its own needs root; to mend: set DOCKER_HOST, or run as root")?;
        return Ok(false);
    }
    let own = std::env::current_exe().context("this test has a path")?;
    let mut again = command("unshare");
    again.args(["--net", "--"]).arg(own).args(["--exact", test, "--nocapture"]).env(MARK, "1");
    let ended: ExitStatus =
        again.status().context("starting unshare; to mend: apt-get install util-linux")?;
    anyhow::ensure!(ended.success(), "the test in a network of its own ended with {ended}");
    Ok(false)
}

/// The variable by which the second process knows itself.
const MARK: &str = "BERTH_TEST_ALONE";
