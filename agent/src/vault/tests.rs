use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use berth_domain::timestamp::Timestamp;

use super::*;
use crate::credential::testing::issue;
use crate::files::testing::{Fault, Striking};

fn issued(key: &NodeKey) -> Issue {
    issue(key, "n1", Timestamp::from_millis(1_000), Timestamp::from_millis(9_000))
}

#[test]
fn a_crash_at_any_change_keeps_the_old_credential_or_the_new_one() {
    for number in 0..1000 {
        let root = tempfile::tempdir().expect("a directory");
        let sound = FileVault::below(root.path()).expect("a directory");
        let old = sound.keep(issued(&sound.proposed_key().expect("a key"))).expect("writable").current;
        let proposed = sound.proposed_key().expect("a key");
        let issue = issued(&proposed);
        let gate = Arc::new(Striking::new(number, Fault::Crash));
        let tree = Tree::with_gate(root.path(), Arc::clone(&gate) as _).expect("a directory");
        let kept = FileVault::in_tree(tree).keep(issue.clone());

        let held = sound.credential().expect("readable").expect("there");
        let is_new = held.current.digest() != old.digest();
        assert!(is_new || kept.is_err(), "what is reported as kept is kept: {number}");
        let next = sound.proposed_key().expect("a key");
        assert_eq!(
            next.spki_hash() == proposed.spki_hash(),
            !is_new,
            "a key is proposed until it is certified: {number}"
        );
        if is_new {
            assert_eq!(held.former.map(|former| former.digest()), Some(old.digest()), "{number}");
        } else {
            sound.keep(issue).expect("the same again");
        }
        if !gate.struck() {
            assert!(number > 5, "only {number} changes were tried");
            return;
        }
    }
    unreachable!("keeping has fewer changes than that")
}

#[test]
fn keys_are_written_into_room_that_is_all_there_from_the_start() {
    let root = tempfile::tempdir().expect("a directory");
    let vault = FileVault::below(root.path()).expect("a directory");
    for _ in 0..2 {
        let held = vault.keep(issued(&vault.proposed_key().expect("a key"))).expect("writable");
        let written = credentials::written(&held).expect("plain data");
        assert_eq!(written.capacity(), written.len());
    }
}

#[test]
fn private_keys_are_for_the_agent_s_user_only() {
    let root = tempfile::tempdir().expect("a directory");
    let vault = FileVault::below(root.path()).expect("a directory");
    vault.machine_key().expect("a key");
    vault.keep(issued(&vault.proposed_key().expect("a key"))).expect("writable");
    vault.proposed_key().expect("a key");
    let directory = root.path().join("var/lib/berth");
    assert_eq!(directory.metadata().expect("there").mode() & 0o777, 0o700);
    let mut files = 0;
    for file in std::fs::read_dir(&directory).expect("readable") {
        files += 1;
        assert_eq!(file.expect("readable").metadata().expect("there").mode() & 0o777, 0o600);
    }
    assert_eq!(files, 3);
}

#[test]
fn a_damaged_file_is_named_and_not_replaced() {
    let root = tempfile::tempdir().expect("a directory");
    let vault = FileVault::below(root.path()).expect("a directory");
    vault.machine_key().expect("a key");
    vault.keep(issued(&vault.proposed_key().expect("a key"))).expect("writable");
    for name in [MACHINE, CREDENTIALS] {
        let path = root.path().join("var/lib/berth").join(name);
        std::fs::write(&path, "damaged").expect("writable");
        let error = match name {
            MACHINE => vault.machine_key().err(),
            _ => vault.credential().err(),
        };
        let error = error.expect("damaged").to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(std::fs::read_to_string(path).expect("there"), "damaged");
    }
}
