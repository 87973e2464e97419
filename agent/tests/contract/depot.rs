//! The contract of `Depot`.

use berth_agent::bundle::{FileDepot, MemoryDepot};
use berth_agent::ports::{Depot, DepotError, Draft, FileError, Stage};
use berth_domain::bundle::{Signature, Signed};
use berth_domain::identity::{Digest, SpkiHash};

/// A depot, and a second one on the same memory.
struct World {
    depot: Box<dyn Depot>,
    after_a_crash: Box<dyn Depot>,
}

fn part(depot: &dyn Depot, blob: Digest, size: u64) -> Box<dyn Draft> {
    match depot.draft(blob, size).expect("writable") {
        Stage::Part(draft) => draft,
        Stage::Whole => panic!("it is not whole yet"),
    }
}

fn keeps_the_contract(world: &World) {
    let (depot, again) = (&*world.depot, &*world.after_a_crash);
    assert_eq!(depot.kept().expect("readable"), None);
    for manifest in [b"first".as_slice(), b"second"] {
        let signature = Signature {
            key: vec![1; 32],
            authority: SpkiHash::of(b"ca"),
            endorsement: vec![2; 70],
            signature: vec![3; 64],
        };
        let signed = Signed { manifest: manifest.to_vec(), signature };
        depot.keep(&signed).expect("writable");
        assert_eq!(again.kept().expect("readable"), Some(signed));
    }
    assert!(depot.free().expect("known") > 0);

    let content = b"one and two and three".to_vec();
    let (blob, size) = (Digest::of(&content), content.len() as u64);
    let mut draft = part(depot, blob, size);
    assert_eq!(draft.offset(), 0);
    draft.add(b"one and ").expect("writable");
    assert_eq!(draft.offset(), 8);
    drop(draft);
    let mut draft = part(again, blob, size);
    assert_eq!(draft.offset(), 8, "what was added outlives a crash");
    draft.add(b"two and three").expect("writable");
    drop(draft);
    let draft = part(depot, blob, size);
    assert_eq!(draft.offset(), size);
    draft.finish().expect("it is what it should be");
    assert!(matches!(again.draft(blob, size), Ok(Stage::Whole)));

    let other = Digest::of(b"other");
    let mut draft = part(depot, other, 5);
    draft.add(b"oth3r").expect("writable");
    assert!(matches!(draft.finish(), Err(DepotError::Damaged { blob, .. }) if blob == other));
    let mut draft = part(again, other, 5);
    assert_eq!(draft.offset(), 0, "what was damaged is thrown away");
    draft.add(b"oth").expect("writable");
    assert!(matches!(draft.add(b"er and more"), Err(DepotError::Damaged { .. })), "more than belongs there");
    let mut draft = part(depot, other, 5);
    assert_eq!(draft.offset(), 0);
    draft.add(b"o").expect("writable");
    drop(draft);

    depot.clear().expect("writable");
    for blob in [blob, other] {
        assert_eq!(part(again, blob, size).offset(), 0, "all is forgotten");
    }
    assert!(again.kept().expect("readable").is_some(), "but for the manifest");
}

#[test]
fn the_double_keeps_the_contract() {
    let depot = MemoryDepot::default();
    keeps_the_contract(&World { depot: Box::new(depot.clone()), after_a_crash: Box::new(depot) });
}

#[test]
fn the_files_keep_the_contract() {
    let root = tempfile::tempdir().expect("a directory");
    let depot = || Box::new(FileDepot::below(root.path()).expect("a depot"));
    keeps_the_contract(&World { depot: depot(), after_a_crash: depot() });
}

#[test]
fn nothing_in_the_depot_is_open_to_others_or_reached_through_links() {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    let root = tempfile::tempdir().expect("a directory");
    let depot = FileDepot::below(root.path()).expect("a depot");
    let blob = Digest::of(b"kubelet");
    part(&depot, blob, 7).add(b"kube").expect("writable");
    let at = |path: &str| root.path().join("var/lib/berth/bundle").join(path);
    let parts = at(&format!("part/{blob}"));
    for (path, mode) in [(at(""), 0o700), (at("part"), 0o700), (at("blobs"), 0o700), (parts.clone(), 0o600)] {
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, mode, "{}", path.display());
    }
    let victim = root.path().join("victim");
    std::fs::write(&victim, "kept").expect("written");
    std::fs::remove_file(&parts).expect("there");
    symlink(&victim, &parts).expect("a link");
    assert!(matches!(depot.draft(blob, 7), Err(DepotError::File(FileError::NotWritten { .. }))));
    std::fs::remove_file(&parts).expect("there");
    std::fs::hard_link(&victim, &parts).expect("a second name");
    assert!(depot.draft(blob, 7).is_err(), "a file with a second name is somebody else's");
    assert_eq!(std::fs::read(&victim).expect("there"), b"kept");
    depot.forget().expect("all of it");
    assert!(!at("").exists());
}

#[test]
fn a_blob_that_the_disk_has_damaged_is_no_longer_whole() {
    let root = tempfile::tempdir().expect("a directory");
    let depot = FileDepot::below(root.path()).expect("a depot");
    let blob = Digest::of(b"kubelet");
    let mut draft = part(&depot, blob, 7);
    draft.add(b"kubelet").expect("writable");
    draft.finish().expect("good");
    let path = root.path().join(format!("var/lib/berth/bundle/blobs/{blob}"));
    std::fs::write(&path, "kubelex").expect("written");
    assert_eq!(part(&depot, blob, 7).offset(), 0);
    assert!(!path.exists());
}
