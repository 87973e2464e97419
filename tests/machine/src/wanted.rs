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
    missing.extend(programs_missing(&PROGRAMS));
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

/// The same for virtual machines.
#[must_use]
pub fn missing_for_virtual() -> Vec<String> {
    let mut missing = missing();
    if std::env::consts::ARCH != "x86_64" {
        missing.push("a processor of the kind x86_64, whose machines QEMU is told to be".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("the device /dev/net/tun; to mend: modprobe tun".to_owned());
    }
    missing.extend(programs_missing(&PROGRAMS_FOR_VIRTUAL));
    missing
}

/// What machines stand on, for a test. Where this machine lacks something, says
/// so past libtest's capture and gives nothing, so that the test can leave.
///
/// # Errors
/// It cannot be laid; or something is missing where `CI` is true: there a test
/// that did not run has failed.
pub fn ground_for_tests() -> Result<Option<Ground>> {
    unless_missing("a bare machine", &missing(), || Ground::lay(&mut |_| {}))
}

/// The same for virtual machines.
///
/// # Errors
/// As [`ground_for_tests`].
pub fn ground_for_virtual_tests() -> Result<Option<Ground>> {
    unless_missing("a virtual machine", &missing_for_virtual(), || Ground::lay_for_virtual(&mut |_| {}))
}

fn unless_missing(
    what: &str,
    missing: &[String],
    lay: impl FnOnce() -> Result<Ground>,
) -> Result<Option<Ground>> {
    if missing.is_empty() {
        return lay().map(Some);
    }
    not_run(what, missing).map(|()| None)
}

/// Says past libtest's capture that a test did not run, and what it lacks.
///
/// # Errors
/// Where `CI` is true: there a test that did not run has failed.
pub(crate) fn not_run(what: &str, missing: &[String]) -> Result<()> {
    let missing = missing.join("\n  ");
    if std::env::var_os("CI").is_some_and(|ci| ["true", "1"].map(OsString::from).contains(&ci)) {
        bail!("the test did not run: {what} needs\n  {missing}");
    }
    writeln!(std::io::stderr(), "NOT RUN: a test on {what}, which needs\n  {missing}")
        .context("saying that a test did not run")
}

fn programs_missing(programs: &[(&str, &str)]) -> Vec<String> {
    let missing = programs.iter().filter(|(program, _)| !on_the_path(program));
    missing
        .map(|(program, package)| format!("the program {program}; to mend: apt-get install {package}"))
        .collect()
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
/// Those that only virtual machines need.
const PROGRAMS_FOR_VIRTUAL: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("swtpm", "swtpm"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("mke2fs", "e2fsprogs"),
];
/// What fetching packages may take on a slow line.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
