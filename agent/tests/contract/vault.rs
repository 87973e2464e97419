//! The contract of `Vault`.

use berth_agent::credential::testing::issue;
use berth_agent::ports::{Discard, Issue, NodeKey, Vault, VaultError};
use berth_agent::vault::{FileVault, MemoryVault};
use berth_domain::timestamp::Timestamp;

fn issued(key: &NodeKey) -> Issue {
    issue(key, "n1", Timestamp::from_millis(1_000), Timestamp::from_millis(9_000))
}

/// Each call of `vault` is a new process on the same memory.
fn keeps_the_contract(vault: &dyn Fn() -> Box<dyn Vault>) {
    let machine = vault().machine_key().expect("a key").machine_id();
    assert_eq!(vault().machine_key().expect("a key").machine_id(), machine, "a machine stays who it is");

    let proposed = vault().proposed_key().expect("a key");
    assert_eq!(
        vault().proposed_key().expect("a key").spki_hash(),
        proposed.spki_hash(),
        "a key is proposed until it is certified"
    );
    assert!(vault().credential().expect("readable").is_none());

    let foreign = issued(&NodeKey::generate().expect("randomness"));
    assert!(matches!(vault().keep(foreign), Err(VaultError::NotACredential(_))));
    assert!(vault().credential().expect("readable").is_none(), "what is for another key is not kept");
    assert_eq!(vault().proposed_key().expect("a key").spki_hash(), proposed.spki_hash());

    let first = issued(&proposed);
    let held = vault().keep(first.clone()).expect("writable");
    assert_eq!((held.current.chain(), held.current.ca_bundle()), (&*first.chain, &*first.ca_bundle));
    assert_eq!((held.current.node(), held.current.join()), (&first.node, first.join));
    assert_eq!(held.current.key(), proposed.pkcs8());
    assert!(held.former.is_none());

    let second = vault().proposed_key().expect("a key");
    assert_ne!(second.spki_hash(), proposed.spki_hash(), "a certified key is not proposed again");
    vault().keep(issued(&second)).expect("writable");
    let held = vault().credential().expect("readable").expect("there");
    assert_eq!(held.current.key(), second.pkcs8());
    assert_eq!(
        held.former.expect("a fallback").key(),
        proposed.pkcs8(),
        "the old one stays until the new one was used"
    );

    let third = vault().proposed_key().expect("a key");
    vault().keep(issued(&third)).expect("writable");
    let held = vault().credential().expect("readable").expect("there");
    assert_eq!(held.former.expect("a fallback").key(), proposed.pkcs8(), "the fallback is one that was used");

    vault().discard(Discard::Former).expect("writable");
    let held = vault().credential().expect("readable").expect("there");
    assert_eq!(held.current.key(), third.pkcs8());
    assert!(held.former.is_none());

    let fourth = vault().proposed_key().expect("a key");
    vault().discard(Discard::Node).expect("writable");
    vault().discard(Discard::Node).expect("a second time changes nothing");
    assert!(vault().credential().expect("readable").is_none());
    assert_ne!(vault().proposed_key().expect("a key").spki_hash(), fourth.spki_hash());
    assert_eq!(vault().machine_key().expect("a key").machine_id(), machine, "a machine outlives its node");

    vault().discard(Discard::Everything).expect("writable");
    assert_ne!(vault().machine_key().expect("a key").machine_id(), machine);
}

#[test]
fn the_files_keep_the_contract() {
    let root = tempfile::tempdir().expect("a directory");
    keeps_the_contract(&|| Box::new(FileVault::below(root.path()).expect("a directory")));
}

#[test]
fn the_double_keeps_the_contract() {
    let vault = MemoryVault::default();
    keeps_the_contract(&|| Box::new(vault.clone()));
}
