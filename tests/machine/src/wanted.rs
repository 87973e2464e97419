//! What this machine must have for bare machines to stand on it, and what to do
//! where it has not.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Program, Programs};

use crate::apt::KEYRING;
use crate::ground::Ground;

/// What is missing here, each with the way to mend it. Empty if machines can stand.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root's rights; to mend: run as root".to_owned());
    }
    for (program, package) in PROGRAMS {
        if !on_the_path(program) {
            missing.push(format!("the program {program}; to mend: apt-get install {package}"));
        }
    }
    if !Path::new(KEYRING).exists() {
        missing.push(format!("{KEYRING}; to mend: apt-get install debian-archive-keyring"));
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\toverlay")) {
        missing.push("the file system overlay in the kernel; to mend: modprobe overlay".to_owned());
    }
    let programs = Programs::of_this_machine();
    if programs.is_ok_and(|programs| !programs.missing(&[Program::Kubelet]).is_empty()) {
        missing.push("a kubelet; to mend: cargo xtask cluster build --kubelet".to_owned());
    }
    missing
}

/// What machines stand on, for a test. Where this machine lacks something, says
/// so past libtest's capture and gives nothing, so that the test can leave.
///
/// # Errors
/// It cannot be laid; or something is missing where `CI` is true: there a test
/// that did not run has failed.
pub fn ground_for_tests() -> Result<Option<Ground>> {
    let missing = missing();
    if missing.is_empty() {
        return Ground::lay(&mut |_| {}).map(Some);
    }
    let missing = missing.join("\n  ");
    if std::env::var_os("CI").is_some_and(|ci| ["true", "1"].map(OsString::from).contains(&ci)) {
        bail!("the test did not run: a bare machine needs\n  {missing}");
    }
    writeln!(std::io::stderr(), "NOT RUN: a test on a bare machine, which needs\n  {missing}")
        .context("saying that a test did not run")?;
    Ok(None)
}

fn on_the_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Programs that are called, and the Debian packages that have them.
pub(crate) const PROGRAMS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("cc", "gcc"),
];
/// What fetching packages may take on a slow line.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
