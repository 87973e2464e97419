//! The units that Berth ships and those that its agent writes are what systemd takes:
//! systemd-analyze(1) reads them. Where it is not installed the test says so, and
//! fails under CI=true.

#![expect(clippy::expect_used, reason = "a file that cannot be read or written stops the test")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_tests::{Running, binary, system_program};

/// Keys of later versions of systemd, which earlier ones pass over with a word.
const LATER: [&str; 1] = ["ImportCredential"];

#[test]
fn the_agent_s_service_is_what_systemd_takes() {
    let unit = fs::read_to_string(deploy("systemd/berth-agent.service")).expect("the unit");
    verify("berth-agent.service", &with_program(&unit, "/usr/local/bin/berth-agent"));
    for line in
        ["Type=notify", "RestartPreventExitStatus=2 3 4 5", "LoadCredential=join-token", "WatchdogSec="]
    {
        assert!(unit.contains(line), "{line}");
    }
}

#[test]
fn the_examples_for_provisioning_hold_what_their_readers_take() {
    let ignition = fs::read_to_string(deploy("provisioning/ignition.json")).expect("the example");
    let ignition: serde_json::Value = serde_json::from_str(&ignition).expect("JSON");
    let unit = ignition.pointer("/systemd/units/0/contents").and_then(|unit| unit.as_str()).expect("a unit");
    verify("berth-agent.service", &with_program(unit, "/opt/bin/berth-agent"));
    for name in ["provisioning/cloud-init.yaml", "provisioning/pxe.ipxe", "provisioning/ignition.json"] {
        let text = fs::read_to_string(deploy(name)).expect("the example");
        assert!(text.contains("join-token") && text.contains("SERVER"), "{name}");
        assert!(!text.contains("berth1."), "{name} holds a token");
    }
}

#[test]
fn the_units_that_a_join_writes_are_what_systemd_takes() {
    let root = tempfile::tempdir().expect("a directory");
    for name in ["containerd", "runc", "kubelet"] {
        let path = root.path().join("usr/local/bin").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, "#!/bin/sh\n").expect("a program");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("its own");
    }
    let mut plan = system_program(&binary("berth-agent").display().to_string());
    plan.args(["plan", "-o", "json", "--root"]).arg(root.path());
    let planned = Running::start_command(plan, |_| {}).wait(Duration::from_secs(30)).expect_success().stdout;
    assert!(planned.contains("/etc/containerd/config.toml"), "{planned}");
    let planned: serde_json::Value = serde_json::from_str(&planned).expect("JSON");
    let changes = planned.get("changes").and_then(|changes| changes.as_array()).expect("a list");
    let unit = changes.iter().find(|change| {
        change.get("path").and_then(|path| path.as_str()) == Some("/etc/systemd/system/containerd.service")
    });
    let diff =
        unit.and_then(|unit| unit.get("diff")).and_then(|diff| diff.as_str()).expect("the unit's diff");
    let text: String = diff
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .filter(|line| !line.starts_with("++"))
        .fold(String::new(), |text, line| text + line + "\n");
    verify("containerd.service", &with_program(&text, "/usr/local/bin/containerd"));
}

/// The unit with a program that is there: the one that this test has built.
fn with_program(unit: &str, program: &str) -> String {
    assert!(unit.contains(program), "{unit}");
    unit.replace(program, &binary("berth-agent").display().to_string())
}

fn verify(name: &str, unit: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    fs::write(&path, unit).expect("writable");
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "systemd-analyze is not installed: apt-get install systemd");
        // Past libtest's capture.
        let said = "NOT RUN: systemd-analyze is not installed (apt-get install systemd)";
        writeln!(std::io::stderr(), "{said}; {name} was not read").expect("standard error");
        return;
    }
    let mut analyze = system_program("systemd-analyze");
    analyze.arg("verify").arg("--man=no").arg(&path);
    let ended = Running::start_command(analyze, |_| {}).wait(Duration::from_secs(30));
    let said = ended.all();
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(name) && !LATER.iter().any(|later| line.contains(later)))
        .collect();
    assert!(ended.code == Some(0) && wrong.is_empty(), "{name}: {said}");
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy").join(name)
}
