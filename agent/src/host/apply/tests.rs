//! Crashes and failures at every change to the disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_domain::identity::Digest;

use super::*;
use crate::files::testing::{Fault, Striking};
use crate::files::{Gate, Operation};
use crate::plan::cached;

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What stands below a root, the agent's own state aside.
type Snapshot = BTreeMap<PathBuf, (u32, String)>;

fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            let metadata = path.symlink_metadata().expect("there");
            if path.ends_with("var/lib/berth") {
                continue;
            }
            let shown = if metadata.is_symlink() {
                fs::read_link(&path).expect("a link").display().to_string()
            } else if metadata.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else {
                fs::read_to_string(&path).expect("text")
            };
            let mode = if metadata.is_symlink() { 0 } else { metadata.mode() };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), (mode, shown));
        }
    }
    found
}

/// A host on which somebody has left something of each kind.
fn lived_in() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for directory in ["etc/kubernetes", "var/lib/kubelet/pki", "etc/sysctl.d"] {
        fs::create_dir_all(at(directory)).expect("writable");
    }
    fs::write(at("etc/kubernetes/kubelet.conf"), "theirs").expect("writable");
    fs::set_permissions(at("etc/kubernetes/kubelet.conf"), fs::Permissions::from_mode(0o640)).expect("own");
    fs::write(at("etc/sysctl.d/10-theirs.conf"), "theirs").expect("writable");
    fs::set_permissions(at("var/lib/kubelet/pki"), fs::Permissions::from_mode(0o777)).expect("own");
    symlink("theirs.pem", at("var/lib/kubelet/pki/current.pem")).expect("writable");
    fs::create_dir_all(at("usr/local/bin")).expect("writable");
    fs::write(at("usr/local/bin/kubelet"), "theirs").expect("writable");
    for generation in 1..=3 {
        let fetched = at(cached(Digest::of(program(generation).as_bytes()))
            .to_str()
            .expect("text")
            .trim_start_matches('/'));
        fs::create_dir_all(fetched.parent().expect("below")).expect("writable");
        fs::write(fetched, program(generation)).expect("writable");
    }
    root
}

/// What the agent has fetched.
fn program(generation: u32) -> String {
    format!("kubelet {generation}")
}

fn plan(generation: u32) -> Plan {
    let file = |path: &str, mode, text: String| Step::File {
        path: path.into(),
        mode,
        content: text.into(),
        secret: false,
    };
    let pem = format!("pem-{generation}");
    Plan {
        steps: vec![
            Step::Directory { path: "/etc/cni/net.d".into(), mode: 0o755 },
            file("/etc/sysctl.d/90-berth.conf", 0o644, "same always".to_owned()),
            Step::Install {
                path: "/usr/local/bin/kubelet".into(),
                mode: 0o755,
                size: program(generation).len() as u64,
                digest: Digest::of(program(generation).as_bytes()),
                from: cached(Digest::of(program(generation).as_bytes())),
            },
            Step::Directory { path: "/var/lib/kubelet/pki".into(), mode: 0o700 },
            file(&format!("/var/lib/kubelet/pki/{pem}"), 0o600, format!("key {generation}")),
            Step::Symlink { path: "/var/lib/kubelet/pki/current.pem".into(), target: pem.clone().into() },
            Step::Retire {
                directory: "/var/lib/kubelet/pki".into(),
                prefix: "pem-".to_owned(),
                keep: vec![pem],
            },
            file("/etc/kubernetes/kubelet.conf", 0o600, format!("ours {generation}")),
        ],
        ..Plan::default()
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn files(root: &Path) -> Files {
    Files::below(root).expect("a directory")
}

fn striking(root: &Path, at: usize, fault: Fault) -> (Files, Arc<Striking>) {
    let gate = Arc::new(Striking::new(at, fault));
    let tree = Tree::with_gate(root, Arc::clone(&gate) as Arc<dyn Gate>).expect("a directory");
    (Files::in_tree(tree), gate)
}

/// Runs `each` for every change to the disk that `act` makes, until it makes
/// no more; returns how many there were.
fn at_every_change(fault: Fault, before: u32, mut each: impl FnMut(usize, &Path, &Files) -> bool) -> usize {
    for number in 0..10_000 {
        let root = lived_in();
        for generation in 1..=before {
            files(root.path()).apply(&plan(generation), now()).expect("a sound disk");
        }
        let (faulty, gate) = striking(root.path(), number, fault);
        let goes_on = each(number, root.path(), &faulty);
        if !goes_on || !gate.struck() {
            return number;
        }
    }
    unreachable!("an apply has fewer changes than that")
}

/// The state after `before` plans, after one more, and at first.
fn expected(before: u32) -> (Snapshot, Snapshot, Snapshot) {
    let root = lived_in();
    let first = snapshot(root.path());
    for generation in 1..=before {
        files(root.path()).apply(&plan(generation), now()).expect("a sound disk");
    }
    let old = snapshot(root.path());
    files(root.path()).apply(&plan(before + 1), now()).expect("a sound disk");
    (old, snapshot(root.path()), first)
}

#[test]
fn a_crash_at_any_change_leaves_old_or_new_and_undo_brings_the_first_back() {
    for before in [0, 1] {
        let (old, new, first) = expected(before);
        assert_ne!(old, new);
        let changes = at_every_change(Fault::Crash, before, |number, root, crashing| {
            let applied = crashing.apply(&plan(before + 1), now());
            let survivor = files(root);
            survivor.recover().expect("a sound disk");
            let wanted = if applied.is_ok() { &new } else { &old };
            assert_eq!(&snapshot(root), wanted, "crash at change {number}: {applied:?}");
            survivor.apply(&plan(before + 1), now()).expect("a sound disk");
            assert_eq!(snapshot(root), new, "again after a crash at change {number}");
            let undone = survivor.undo().expect("a sound disk");
            assert_eq!(undone.left, [], "after a crash at change {number}");
            assert_eq!(snapshot(root), first, "undone after a crash at change {number}");
            true
        });
        assert!(changes > 40, "only {changes} changes were tried");
    }
}

#[test]
fn a_crash_while_a_crash_is_healed_is_healed_too() {
    let (old, new, _) = expected(1);
    at_every_change(Fault::Crash, 1, |number, root, crashing| {
        // Every fifth: the product of all would take minutes.
        if number % 5 != 0 {
            return true;
        }
        let applied = crashing.apply(&plan(2), now());
        for second in 0..1000 {
            let (healing, gate) = striking(root, second, Fault::Crash);
            let _ = healing.recover();
            if !gate.struck() {
                break;
            }
        }
        let wanted = if applied.is_ok() { &new } else { &old };
        assert_eq!(&snapshot(root), wanted, "crash at change {number}");
        true
    });
}

#[test]
fn a_full_disk_at_any_change_leaves_everything_as_it_was() {
    let (old, new, _) = expected(1);
    let mut failures = 0;
    at_every_change(Fault::Fails(ENOSPC), 1, |number, root, failing| {
        match failing.apply(&plan(2), now()) {
            Ok(_) => assert_eq!(snapshot(root), new, "failure at change {number}"),
            Err(error) => {
                failures += 1;
                assert_eq!(snapshot(root), old, "failure at change {number}: {error:?}");
                let why = error.into_diagnosis(berth_domain::phase::Phase::Configuration);
                let value = |key| why.value(key).expect("it is there").to_owned();
                assert!(value("error").contains("No space left on device"), "{why}");
                assert!(value("path").starts_with('/'), "{why}");
                assert!(!value("rolledBack").contains("not yet"), "failure at change {number}: {why}");
            }
        }
        failing.apply(&plan(2), now()).expect("there is space again");
        assert_eq!(snapshot(root), new, "mended after a failure at change {number}");
        true
    });
    assert!(failures > 20, "only {failures} failures were tried");
}

#[test]
fn a_disk_that_turns_read_only_is_rolled_back_at_the_next_start() {
    let (old, new, _) = expected(1);
    at_every_change(Fault::Stays(EROFS), 1, |number, root, failing| {
        let applied = failing.apply(&plan(2), now());
        if let Err(error) = &applied {
            let why = error.to_string();
            assert!(why.starts_with("writing /"), "{why}");
        }
        files(root).recover().expect("writable again");
        assert_eq!(&snapshot(root), if applied.is_ok() { &new } else { &old }, "failure at change {number}");
        true
    });
}

#[test]
fn an_undo_that_crashes_anywhere_goes_on_when_it_is_run_again() {
    let (_, _, first) = expected(2);
    for fault in [Fault::Crash, Fault::Fails(ENOSPC)] {
        let changes = at_every_change(fault, 2, |number, root, crashing| {
            let _ = crashing.undo();
            files(root).undo().expect("a sound disk");
            assert_eq!(snapshot(root), first, "{fault:?} at change {number}");
            let record = root.join("var/lib/berth/applied");
            assert!(
                !record.exists(),
                "{fault:?} at change {number}: {:?}",
                fs::read_dir(record.join("former")).map(|all| all.collect::<Vec<_>>())
            );
            true
        });
        assert!(changes > 10, "only {changes} changes were tried");
    }
}

#[test]
fn what_is_recorded_is_durable_before_what_depends_on_it() {
    let root = lived_in();
    let (counting, gate) = striking(root.path(), usize::MAX, Fault::Crash);
    counting.apply(&plan(1), now()).expect("a sound disk");
    let seen = gate.seen.lock().expect("no panic").clone();
    let pairs = seen.iter().zip(seen.iter().skip(1));
    for ((operation, path), (next, next_path)) in pairs {
        match operation {
            Operation::Write => assert_eq!((*next, next_path), (Operation::Sync, path)),
            Operation::Rename => assert_eq!((*next, next_path), (Operation::SyncDirectory, path)),
            Operation::Create
            | Operation::Mode
            | Operation::Owner
            | Operation::Sync
            | Operation::Remove
            | Operation::SyncDirectory => {}
        }
    }
    let is_state = |path: &Path| path.starts_with("/var/lib/berth");
    let renamed = |name: &str| {
        seen.iter()
            .position(|(operation, path)| *operation == Operation::Rename && path.ends_with(name))
            .expect(name)
    };
    let touched: Vec<usize> = seen
        .iter()
        .enumerate()
        .filter(|(_, (_, path))| !is_state(path) && !Path::new("/var/lib/berth").starts_with(path))
        .map(|(number, _)| number)
        .collect();
    assert!(touched.iter().all(|number| *number > renamed("pending.json")), "the intent comes first");
    assert!(touched.iter().all(|number| *number < renamed("manifest.json")), "the manifest comes last");
}

/// Looks at every file and directory before each change.
struct Watching {
    root: PathBuf,
    wider: Mutex<Vec<String>>,
}

impl Gate for Watching {
    fn pass(&self, _: Operation, path: &Path) -> io::Result<()> {
        let most = match path.to_str().expect("UTF-8") {
            path if path.starts_with("/var/lib/berth") || path.ends_with("/pki") => 0o700,
            path if path.contains("/pki/") || path.ends_with("kubelet.conf") => 0o600,
            _ => return Ok(()),
        };
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        for name in [format!(".{name}.berth-new"), name.to_owned()] {
            let path = self.root.join(path.strip_prefix("/").expect("absolute")).with_file_name(name);
            // What stood there before may be wider.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let is_ours = fs::read_to_string(&path).is_ok_and(|text| !text.contains("theirs"));
            if !metadata.is_symlink() && is_ours && metadata.mode() & 0o777 & !most != 0 {
                self.wider.lock().expect("no panic").push(format!(
                    "{} {:o}",
                    path.display(),
                    metadata.mode()
                ));
            }
        }
        Ok(())
    }
}

#[test]
fn no_mode_is_ever_wider_than_declared() {
    let root = lived_in();
    let gate = Arc::new(Watching { root: root.path().to_owned(), wider: Mutex::default() });
    let tree = Tree::with_gate(root.path(), Arc::clone(&gate) as Arc<dyn Gate>).expect("a directory");
    Files::in_tree(tree).apply(&plan(1), now()).expect("a sound disk");
    assert_eq!(*gate.wider.lock().expect("no panic"), Vec::<String>::new());
}

#[test]
fn a_damaged_record_stops_everything_and_is_named() {
    let root = lived_in();
    files(root.path()).apply(&plan(1), now()).expect("a sound disk");
    let standing = snapshot(root.path());
    let manifest = root.path().join("var/lib/berth/applied/manifest.json");
    for damage in ["", "{", r#"{"version":9,"serial":1,"applied":"2026-01-01T00:00:00Z","entries":{}}"#] {
        fs::write(&manifest, damage).expect("writable");
        let refused = files(root.path()).undo().expect_err("damaged");
        assert!(matches!(&refused, ApplyError::Record { path, .. } if path.ends_with("manifest.json")));
        let refused = files(root.path()).apply(&plan(2), now()).expect_err("damaged");
        assert!(matches!(refused, ApplyError::Record { .. }));
        assert_eq!(snapshot(root.path()), standing);
    }
}
