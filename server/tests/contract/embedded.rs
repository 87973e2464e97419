//! What the embedded store promises beyond the ports: several processes on one
//! file, bounded queues, and a file that is nobody else's.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::Code;
use berth_domain::join::{Event, JoinRecord};
use berth_domain::node::Binding;
use berth_domain::phase::Phase;
use berth_server::cluster::embedded::{Embedded, OpenError, Settings};
use berth_server::ports::{Joins, Nodes, Observation, PortError, Release, Tokens};
use futures_util::FutureExt;
use futures_util::future::{join_all, join3};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::fixtures::{
    all_entries, binding, claim, events_of, join, key, later, name, now, origin, refusal, renewal, soon,
    the_node, token,
};
use crate::tokens::race;
use crate::{Backend, open};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("data").join("store.db");
    (directory, path)
}

/// Another program that holds the store's lock until it is dropped.
fn hold(path: &PathBuf) -> rusqlite::Connection {
    let holder = rusqlite::Connection::open(path).expect("the store's file");
    holder.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_file_grant_a_token_of_one_use_once() {
    let (_directory, path) = place();
    let servers: [Arc<dyn Backend>; 2] = [open(&path), open(&path)];
    for round in 0..10 {
        let minted = token(round, 1);
        servers[0].mint(minted.clone()).await.expect("a fresh id");
        let (one, other) = tokio::join!(race(&servers[0], &minted, 64), race(&servers[1], &minted, 64));
        // The same 64 keys race on both: the one that won is told so by both.
        let winners: BTreeSet<_> = one.union(&other).copied().collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        for server in &servers {
            let used = server.find(&minted.id).await.expect("an answer").expect("it is kept").used.clone();
            assert_eq!(used.iter().map(|used| used.key).collect::<BTreeSet<_>>(), winners);
        }
    }
    assert_eq!(all_entries(&*servers[1]).await.len(), 10);
}

#[tokio::test]
async fn what_one_server_revokes_no_other_redeems() {
    let (_directory, path) = place();
    let (one, other) = (open(&path), open(&path));
    let minted = token(1, 5);
    one.mint(minted.clone()).await.expect("a fresh id");
    other.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.expect("a use");
    one.revoke(&minted.id, "alice", now()).await.expect("an answer");
    assert!(other.redeem(&claim(&minted, key("b")), &origin(&minted.id), later(1)).await.is_err());
}

#[tokio::test]
async fn another_servers_change_is_told_within_a_second() {
    let (_directory, path) = place();
    let (one, other) = (open(&path), open(&path));
    let mut changes = one.changes();
    changes.borrow_and_update();
    other.record(join("a"), None, Event::Approved { by: "alice".to_owned() }, now()).await.expect("recorded");
    tokio::time::timeout(Duration::from_secs(1), changes.changed())
        .await
        .expect("in time")
        .expect("the store lives");
    assert_eq!(*changes.borrow_and_update(), 1);
    other.mint(token(1, 1)).await.expect("a fresh id");
    let told = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
    told.expect("what has no entry is told too").expect("the store lives");
}

#[tokio::test]
async fn whom_another_server_heard_wakes_nobody_and_is_known() {
    let (_directory, path) = place();
    let often = Settings {
        heard_every: Duration::from_millis(10),
        poll: Duration::from_millis(10),
        ..Settings::default()
    };
    let one = Embedded::open(&path, &often).expect("a fresh store");
    let other = Embedded::open(&path, &often).expect("the same store");
    one.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let mut changes = other.changes();
    changes.wait_for(|last| *last == 1).await.expect("the store lives");
    one.observe(&name("n1"), Observation::Heard, later(10)).await.expect("observed");
    let known = async {
        while the_node(&*other, "n1").await.record.last_seen != later(10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), known).await.expect("it is written down soon");
    assert!(!changes.has_changed().expect("the store lives"), "a heartbeat is no news");
    one.close().await;
}

#[tokio::test]
async fn closing_writes_down_whom_it_heard() {
    let (_directory, path) = place();
    let store = open(&path);
    store.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    store.observe(&name("n1"), Observation::Heard, later(10)).await.expect("observed");
    store.clone().close().await;
    let refused = store.record(join("a"), None, Event::Left, now()).await.expect_err("it is closed");
    assert!(matches!(refused, PortError::Unavailable { .. }), "{refused:?}");
    assert_eq!(the_node(&*open(&path), "n1").await.record.last_seen, later(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_told_at_once() {
    let (_directory, path) = place();
    let small = Settings { queue: 8, group: 4, ..Settings::default() };
    let store = Embedded::open(&path, &small).expect("a fresh store");
    let holder = hold(&path);
    let mut writers = JoinSet::new();
    for writer in 0..32_u8 {
        let store = Arc::clone(&store);
        writers.spawn(async move { store.record(join([writer]), None, Event::Left, now()).await });
    }
    // At most 8 wait and 4 are with the writer: the others hear so before the lock is free.
    for _ in 0..20 {
        let told = tokio::time::timeout(Duration::from_secs(2), writers.join_next()).await;
        let answer = told.expect("at once").expect("many are left").expect("no panic");
        let PortError::Unavailable { cause, .. } = answer.expect_err("there is no place") else {
            panic!("a full queue is no refusal");
        };
        assert_eq!(cause.to_string(), "8 writes wait already");
    }
    drop(holder);
    let rest = writers.join_all().await;
    assert!(rest.iter().any(Result::is_ok), "those that waited are served: {rest:?}");
    assert_eq!(all_entries(&*store).await.len(), rest.iter().filter(|answer| answer.is_ok()).count());
}

#[tokio::test]
async fn a_lock_that_is_never_freed_is_waited_for_but_not_for_ever() {
    let (_directory, path) = place();
    let hasty = Settings { patience: Duration::from_millis(600), ..Settings::default() };
    let store = Embedded::open(&path, &hasty).expect("a fresh store");
    let holder = hold(&path);
    let error = store.mint(token(1, 1)).await.expect_err("the lock is held");
    let PortError::Unavailable { operation, cause, .. } = error else {
        panic!("a held lock is no refusal");
    };
    assert_eq!(operation, "mint a token");
    assert_eq!(cause.to_string(), "another process has held the store's lock for 600ms");
    assert_eq!(store.find(&token(1, 1).id).await.expect("readers need no lock"), None);
    let still = store.mint(token(1, 1)).await.expect_err("the lock is held");
    let told = still.into_diagnosis(Phase::Authentication, later(60));
    let since = told.value("since").expect("it says since when");
    assert!(since < later(60).to_string().as_str(), "since the first failure, not since now: {since}");
    drop(holder);
    store.mint(token(1, 1)).await.expect("the lock is free again");
}

#[tokio::test]
async fn a_refused_verb_takes_nothing_from_its_group() {
    let (_directory, path) = place();
    let store = open(&path);
    let holder = hold(&path);
    let machines: Vec<String> = (0..20).map(|number| format!("m{}", number % 2)).collect();
    let wanted: Vec<_> =
        machines.iter().zip(0..).map(|(m, at)| binding(&format!("n{}", at / 2), m, m)).collect();
    let mut all = join_all(wanted.iter().map(|binding| store.bind(binding, now())));
    // Each is in the queue after its first step.
    assert!((&mut all).now_or_never().is_none(), "the lock is held");
    drop(holder);
    let granted = all.await.into_iter().filter(Result::is_ok).count();
    assert_eq!(granted, 10, "one machine of two for each name");
    assert_eq!(store.nodes(None).await.expect("an answer").len(), 10);
    let events = [events_of(&*store, join("m0")).await, events_of(&*store, join("m1")).await].concat();
    assert_eq!(events, ["Authorized"; 10]);
}

#[tokio::test]
async fn a_verb_that_fails_half_way_leaves_nothing() {
    let (_directory, path) = place();
    let store = open(&path);
    let minted = token(1, 1);
    store.mint(minted.clone()).await.expect("a fresh id");
    let raw = rusqlite::Connection::open(&path).expect("the store's file");
    raw.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .expect("a trigger");

    // The use is written before the entry that fails; all three are one group.
    let (before, after) = (token(2, 1), token(3, 1));
    let (first, origin) = (claim(&minted, key("a")), origin(&minted.id));
    let holder = hold(&path);
    let mut group = Box::pin(join3(
        store.mint(before.clone()),
        store.redeem(&first, &origin, now()),
        store.mint(after.clone()),
    ));
    assert!((&mut group).now_or_never().is_none(), "the lock is held");
    drop(holder);
    let (one, failed, other) = group.await;
    let failed = failed.expect_err("its entry cannot be written");
    assert!(matches!(failed, PortError::Unavailable { operation: "redeem a token", .. }), "{failed:?}");
    one.and(other).expect("what stands beside it is kept");
    for kept in [&minted, &before, &after] {
        assert_eq!(store.find(&kept.id).await.expect("an answer").as_deref(), Some(kept));
    }

    raw.execute_batch("DROP TRIGGER broken").expect("it is there");
    store.redeem(&claim(&minted, key("b")), &origin, now()).await.expect("the use is still free");
    assert_eq!(all_entries(&*store).await.len(), 1);
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let (_directory, path) = place();
    let store = open(&path);
    let minted = token(1, 2);
    store.mint(minted.clone()).await.expect("a fresh id");
    store.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.expect("a use");
    store.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let before = (store.tokens(now()).await.expect("tokens"), all_entries(&*store).await);
    let node = the_node(&*store, "n1").await.record;
    store.close().await;
    let again = open(&path);
    assert_eq!((again.tokens(now()).await.expect("tokens"), all_entries(&*again).await), before);
    assert_eq!(the_node(&*again, "n1").await.record, node);
    assert_eq!(*again.changes().borrow(), 2);
}

#[tokio::test]
async fn whom_one_server_bans_or_forgets_no_other_lets_in_for_long() {
    let (_directory, path) = place();
    let (one, other) = (open(&path), open(&path));
    one.bind(&binding("n1", "m", "k"), now()).await.expect("a free name");
    let admitted = async || one.admit(&name("n1"), key("k"), now()).await;
    admitted().await.expect("its certificate is good");
    let (by, reason) = ("alice".to_owned(), "stolen".to_owned());
    other.release(&name("n1"), Release::Banned { by: by.clone(), reason }, now()).await.expect("an answer");
    soon("the ban holds", async || admitted().await.is_err()).await;
    assert_eq!(refusal(admitted().await).code(), Code::MachineBanned);
    other.release(&name("n1"), Release::Unbanned { by: by.clone() }, now()).await.expect("an answer");
    soon("it may come again", async || admitted().await.is_ok()).await;
    other.release(&name("n1"), Release::Forgotten { by }, now()).await.expect("an answer");
    soon("its name is gone", async || admitted().await.is_err()).await;
}

#[tokio::test]
async fn a_ban_holds_for_each_name_of_its_machine() {
    let (_directory, path) = place();
    let store = open(&path);
    for node in ["n1", "n2"] {
        store.bind(&binding(node, "m", node), now()).await.expect("a free name");
        store.admit(&name(node), key(node), now()).await.expect("its certificate is good");
    }
    let banned = Release::Banned { by: "alice".to_owned(), reason: "stolen".to_owned() };
    store.release(&name("n1"), banned, now()).await.expect("an answer");
    for node in ["n1", "n2"] {
        assert_eq!(refusal(store.admit(&name(node), key(node), now()).await).code(), Code::MachineBanned);
    }
}

/// To the process that wrote, to another, and to one that starts later.
#[tokio::test]
async fn a_join_is_the_sum_of_its_entries_whoever_reads_it() {
    let (_directory, path) = place();
    let (one, other) = (open(&path), open(&path));
    let minted = token(1, 1);
    one.mint(minted.clone()).await.expect("a fresh id");
    let used = one.redeem(&claim(&minted, key("k")), &origin(&minted.id), now()).await.expect("a use");
    let bound = Binding { join: used.join, ..binding("n1", "m", "k") };
    one.bind(&bound, later(1)).await.expect("a free name");
    for step in 2..50 {
        // Two processes write, as when its machine comes back to another.
        let (writes, at) = (if step % 5 == 0 { &other } else { &one }, later(step));
        match step {
            10 => writes.observe(&name("n1"), Observation::Ready, at).await.expect("observed"),
            49 => {
                writes.release(&name("n1"), Release::Left, at).await.expect("an answer");
            }
            _ => {
                let renewed = renewal("n1", "m", &format!("k{step}"), &bound);
                writes.bind(&renewed, at).await.expect("a renewal");
            }
        }
        let mut sum = JoinRecord::begin(used.join, now());
        let entries = one.entries(Some(used.join), 0, 100).await.expect("an answer");
        entries.iter().for_each(|entry| sum.take(entry));
        assert_eq!(sum.updated, at);
        for reader in [&one, &other, &open(&path)] {
            assert_eq!(reader.join(used.join).await.expect("an answer").as_ref(), Some(&sum), "step {step}");
            assert_eq!(reader.joins(2).await.expect("an answer"), [sum.clone()], "step {step}");
        }
    }
}

#[test]
fn the_file_is_its_owners_alone() {
    let (_directory, path) = place();
    let _store = open(&path);
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_file_name("store.db-wal")), 0o600);
}

#[test]
fn a_link_in_the_files_place_is_refused() {
    let (directory, path) = place();
    std::fs::create_dir(directory.path().join("data")).expect("a directory");
    let elsewhere = directory.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    let error = Embedded::open(&path, &Settings::default()).err().expect("it is a link");
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    assert!(!elsewhere.exists());
}

#[test]
fn a_newer_servers_store_is_refused_in_clear_words() {
    let (_directory, path) = place();
    drop(open(&path));
    let raw = rusqlite::Connection::open(&path).expect("the store's file");
    raw.pragma_update(None, "user_version", 7).expect("a newer version");
    drop(raw);
    let error = Embedded::open(&path, &Settings::default()).err().expect("it is newer");
    let text = error.to_string();
    assert!(
        text.contains("schema version 7") && text.contains("up to 2") && text.contains("newer berth-server"),
        "{text}"
    );
}

#[test]
fn another_programs_database_is_left_alone() {
    let (_directory, path) = place();
    std::fs::create_dir(path.parent().expect("a directory")).expect("a directory");
    let raw = rusqlite::Connection::open(&path).expect("a database");
    raw.execute_batch("CREATE TABLE theirs (x)").expect("a table");
    drop(raw);
    let error = Embedded::open(&path, &Settings::default()).err().expect("it is not ours");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

#[test]
fn servers_that_start_at_once_make_one_store() {
    let (_directory, path) = place();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
        for start in starts {
            start.join().expect("each opens it");
        }
    });
}
