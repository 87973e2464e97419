//! The contract of `Journal`.

use std::fs;

use berth_agent::journal::{FileJournal, MemoryJournal};
use berth_agent::ports::{Journal, JournalEntry, Loaded, Standing};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;

/// A journal, a second one on the same memory, and a way to damage it.
struct World {
    journal: Box<dyn Journal>,
    after_a_crash: Box<dyn Journal>,
    damage: Box<dyn Fn(&str)>,
}

fn entries() -> Vec<JournalEntry> {
    let node = NodeIdentity { name: "n1".parse().expect("a name"), pool: Default::default() };
    let join = JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), SpkiHash::of(b"key"));
    let profile = Digest::of(b"profile");
    let since = Timestamp::from_millis(1_800_000_000_123);
    let standings = [
        Standing::Fresh,
        Standing::Preparing,
        Standing::Enrolled { node: node.clone(), join },
        Standing::Configured { node: node.clone(), join, profile },
        Standing::Registered { node: node.clone(), join, profile },
        Standing::Ready { node, join, profile, since },
        Standing::Left,
    ];
    let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization).with("join", join);
    standings
        .into_iter()
        .map(|standing| JournalEntry {
            standing,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            trace: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
            diagnosis: Some(why.clone()),
            updated: since,
        })
        .collect()
}

fn keeps_the_contract(world: &World) {
    assert_eq!(world.journal.load().expect("readable"), Loaded::default(), "nothing is Fresh");
    for entry in entries() {
        world.journal.save(&entry).expect("writable");
        let loaded = world.after_a_crash.load().expect("readable");
        assert_eq!(loaded, Loaded { entry, set_aside: None }, "what was saved is there after a crash");
    }
    for damage in [
        "{",
        "[]",
        r#"{"version":1}"#,
        r#"{"version":1,"standing":{"state":"future"},"updated":"2026-01-01T00:00:00Z"}"#,
    ] {
        world.journal.save(&entries().remove(5)).expect("writable");
        (world.damage)(damage);
        let loaded = world.journal.load().expect("readable");
        assert_eq!(loaded.entry, JournalEntry::default(), "{damage}: the agent starts over");
        assert!(
            loaded.set_aside.is_some_and(|path| path.ends_with("journal.json.corrupt")),
            "{damage}: and says so"
        );
        assert_eq!(world.after_a_crash.load().expect("readable"), Loaded::default(), "{damage}: once");
    }
}

#[test]
fn the_file_keeps_the_contract_and_what_was_damaged() {
    let root = tempfile::tempdir().expect("a directory");
    let journal = || Box::new(FileJournal::below(root.path()).expect("a directory"));
    let file = root.path().join("var/lib/berth/journal.json");
    let damaged = file.clone();
    keeps_the_contract(&World {
        journal: journal(),
        after_a_crash: journal(),
        damage: Box::new(move |text| fs::write(&damaged, text).expect("writable")),
    });
    fs::write(&file, "evidence").expect("writable");
    journal().load().expect("readable");
    let aside = file.with_file_name("journal.json.corrupt");
    assert_eq!(fs::read_to_string(aside).expect("kept"), "evidence");
}

#[test]
fn the_double_keeps_the_contract() {
    let journal = MemoryJournal::default();
    let damaged = journal.clone();
    keeps_the_contract(&World {
        journal: Box::new(journal.clone()),
        after_a_crash: Box::new(journal),
        damage: Box::new(move |text| damaged.damage(text.as_bytes())),
    });
}
