//! SIGKILL in the middle of a storm of writes: whatever was acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_domain::join::Event;
use berth_server::ports::{Joins, Tokens};

use crate::fixtures::{claim, join, key, now, origin, token};
use crate::open;

const STORE: &str = "BERTH_CONTRACT_STORE";
const THIS_TEST: &str = "kill::what_was_acknowledged_survives_a_kill";
const MARK: &str = "acknowledged ";

/// The test starts itself once more as the process that is killed.
#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(path) = std::env::var_os(STORE) {
        storm(path.as_ref());
    }
    for kill_after in [1, 40, 400] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("store.db");
        let acknowledged = kill_in_a_storm(&path, kill_after);
        assert!(acknowledged.len() >= kill_after);

        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let store = open(&path);
            let minted = store.find(&token(1, 1).id).await.expect("an answer").expect("it was minted");
            for number in acknowledged {
                let record = store.join(join(number.to_be_bytes())).await.expect("an answer");
                assert!(record.is_some(), "record {number} was acknowledged and is gone");
                let granted = minted.used.iter().any(|used| used.key == key(number.to_be_bytes()));
                assert!(granted, "use {number} was acknowledged and is gone");
            }
            let entries = store.entries(None, 0, 1_000_000).await.expect("an answer");
            let redeemed =
                entries.iter().filter(|entry| matches!(entry.event, Event::Redeemed { .. })).count();
            assert_eq!(redeemed, minted.used.len(), "each use has its entry, and each entry its use");
            store.close().await;
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "the process that is killed is this test itself")]
fn kill_in_a_storm(path: &std::path::Path, after: usize) -> Vec<u32> {
    let this = std::env::current_exe().expect("a running program");
    let mut child = Command::new(this)
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was started once already");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut number = || loop {
        let line = lines.next()?.ok()?;
        if let Some((_, number)) = line.rsplit_once(MARK) {
            return number.parse::<u32>().ok();
        }
    };
    let mut acknowledged: Vec<u32> = (0..after).map_while(|_| number()).collect();
    child.kill().expect("it is still at work");
    // What it said before it died counts too.
    acknowledged.extend(std::iter::from_fn(&mut number));
    child.wait().expect("it is dead");
    acknowledged
}

/// Writes for ever with 16 writers, and says what was acknowledged.
fn storm(path: &std::path::Path) -> ! {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(path);
        let minted = token(1, 10_000);
        store.mint(minted.clone()).await.expect("a fresh id");
        for writer in 0..16_u32 {
            let (store, minted) = (Arc::clone(&store), minted.clone());
            tokio::spawn(async move {
                for number in (writer..).step_by(16) {
                    let by = key(number.to_be_bytes());
                    store.redeem(&claim(&minted, by), &origin(&minted.id), now()).await.expect("a use");
                    // Another join's record, so that two kinds of writes are mixed.
                    let approved = Event::Approved { by: "alice".to_owned() };
                    store.record(join(number.to_be_bytes()), None, approved, now()).await.expect("recorded");
                    let line = format!("{MARK}{number}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).expect("a reader");
                }
            });
        }
        std::future::pending().await
    })
}
