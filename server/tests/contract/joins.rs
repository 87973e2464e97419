//! What every `Joins` promises.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::{Event, State};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_server::cluster::MOST_UNPROVEN;
use berth_server::ports::Joins;

use crate::Backend;
use crate::fixtures::{
    all_entries, binding, claim, events_of, join, key, later, name, now, origin, refusal, token,
};

fn refused(code: Code) -> Event {
    Event::Refused {
        origin: None,
        why: Diagnosis::new(code, Phase::Authentication).with("token", "aaaaaaaaaa"),
    }
}

pub(crate) async fn an_event_is_taken_into_its_record_and_appended(cluster: Arc<dyn Backend>) {
    let redeemed = Event::Redeemed { origin: origin(&token(1, 1).id), key: key("a") };
    assert_eq!(cluster.join(join("a")).await.expect("an answer"), None);
    cluster.record(join("a"), None, redeemed.clone(), now()).await.expect("recorded");
    let waiting = Event::Waiting { why: Diagnosis::new(Code::ApprovalPending, Phase::Authorization) };
    cluster.record(join("a"), Some(&name("n1")), waiting.clone(), later(2)).await.expect("recorded");

    let record = cluster.join(join("a")).await.expect("an answer").expect("it is known");
    assert_eq!(record.state.why().map(Diagnosis::code), Some(Code::ApprovalPending));
    assert_eq!((record.started, record.updated), (now(), later(2)));
    assert_eq!(record.node, Some(name("n1")));
    let entries = cluster.entries(Some(join("a")), 0, 10).await.expect("an answer");
    assert_eq!(entries.iter().map(|entry| entry.event.clone()).collect::<Vec<_>>(), [redeemed, waiting]);
    assert_eq!(entries[1].node, Some(name("n1")));
    assert_eq!(entries[1].at, later(2));
}

pub(crate) async fn entries_come_in_order_and_in_pages(cluster: Arc<dyn Backend>) {
    for number in 0..10_u8 {
        let of = if number % 2 == 0 { "even" } else { "odd" };
        let event = Event::Approved { by: number.to_string() };
        cluster.record(join(of), None, event, now()).await.expect("recorded");
    }
    let all = all_entries(&*cluster).await;
    assert!(all.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    let by = |event: &Event| {
        let Event::Approved { by } = event else {
            panic!("{event:?} was not recorded");
        };
        by.clone()
    };
    assert_eq!(all.iter().map(|entry| by(&entry.event)).collect::<String>(), "0123456789");
    let page = cluster.entries(Some(join("odd")), all[3].sequence, 2).await.expect("an answer");
    assert_eq!(page.iter().map(|entry| by(&entry.event)).collect::<String>(), "57");
    assert_eq!(cluster.entries(None, all[9].sequence, 5).await.expect("an answer"), []);
    let newest = cluster.joins(1).await.expect("an answer");
    assert_eq!(newest.iter().map(|record| record.id).collect::<Vec<_>>(), [join("odd")], "it began last");
}

pub(crate) async fn every_change_is_told(cluster: Arc<dyn Backend>) {
    let mut changes = cluster.changes();
    changes.borrow_and_update();
    cluster
        .record(join("a"), None, Event::Approved { by: "alice".to_owned() }, now())
        .await
        .expect("recorded");
    let told = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
    told.expect("it should be told within moments").expect("the store lives");
    let last = *changes.borrow_and_update();
    assert_eq!(Some(last), all_entries(&*cluster).await.last().map(|entry| entry.sequence));

    cluster.mint(token(1, 1)).await.expect("a fresh id");
    let told = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
    told.expect("what has no entry is told too").expect("the store lives");
    assert_eq!(*changes.borrow(), last);
}

pub(crate) async fn a_repeated_refusal_fills_no_store(cluster: Arc<dyn Backend>) {
    for second in 0..120 {
        cluster.record(join("a"), None, refused(Code::TokenRejected), later(second)).await.expect("recorded");
    }
    assert_eq!(events_of(&*cluster, join("a")).await, ["Refused"; 2], "one a minute");
    let record = cluster.join(join("a")).await.expect("an answer").expect("it is known");
    assert_eq!(record.updated, later(119), "the record knows the last");

    cluster.record(join("a"), None, refused(Code::TokenExpired), later(120)).await.expect("recorded");
    assert_eq!(events_of(&*cluster, join("a")).await.len(), 3, "another cause is news");
    for minute in 3..100 {
        let at = later(minute * 60);
        cluster.record(join("a"), None, refused(Code::TokenRejected), at).await.expect("recorded");
    }
    let kept = events_of(&*cluster, join("a")).await.len();
    assert!(kept <= 32, "{kept} entries of one stranger");
}

pub(crate) async fn unproven_joins_are_bounded(cluster: Arc<dyn Backend>) {
    let redeemed = Event::Redeemed { origin: origin(&token(1, 1).id), key: key("proven") };
    cluster.record(join("proven"), None, redeemed, now()).await.expect("recorded");
    let beyond = 20_u64;
    let all = u64::try_from(MOST_UNPROVEN).expect("a small number") + beyond;
    for stranger in 0..all {
        let id = join(stranger.to_be_bytes());
        cluster.record(id, None, refused(Code::TokenRejected), later(stranger)).await.expect("recorded");
    }
    let kept = cluster.joins(100_000).await.expect("an answer");
    assert_eq!(kept.len(), MOST_UNPROVEN + 1);
    assert!(kept.iter().any(|record| record.id == join("proven")), "who redeemed stays");
    for stranger in 0..beyond {
        let id = join(stranger.to_be_bytes());
        assert_eq!(cluster.join(id).await.expect("an answer"), None, "the oldest go first");
    }
    assert_eq!(all_entries(&*cluster).await.len(), MOST_UNPROVEN + 1, "their entries go with them");
}

pub(crate) async fn a_join_that_ended_is_forgotten_after_a_week(cluster: Arc<dyn Backend>) {
    let redeemed = |by| Event::Redeemed { origin: origin(&token(1, 1).id), key: key(by) };
    for who in ["ended", "refused", "goes-on"] {
        cluster.record(join(who), None, redeemed(who), now()).await.expect("recorded");
    }
    cluster.record(join("ended"), None, Event::Left, now()).await.expect("recorded");
    cluster.bind(&binding("n1", "m", "refused"), now()).await.expect("a free name");
    cluster.record(join("refused"), None, refused(Code::TokenExpired), now()).await.expect("recorded");
    let is_known = async |who: &str| cluster.join(join(who)).await.expect("an answer").is_some();

    let week = 7 * 24 * 3600;
    cluster.tidy(later(week)).await;
    assert!(is_known("ended").await, "the week is not over");
    cluster.tidy(later(week + 1)).await;
    assert!(!is_known("ended").await);
    assert!(is_known("refused").await, "a node still names it");
    assert!(is_known("goes-on").await, "however old it is");
    assert!(
        all_entries(&*cluster).await.iter().all(|entry| entry.join != join("ended")),
        "its entries went too"
    );
}

/// Enough of it that the store cleans up along the way.
pub(crate) async fn work(cluster: &impl Joins, at: Timestamp) {
    for _ in 0..256 {
        cluster
            .record(join("goes-on"), None, Event::Approved { by: "alice".to_owned() }, at)
            .await
            .expect("recorded");
    }
}

pub(crate) async fn a_refused_redemption_changes_nothing(cluster: Arc<dyn Backend>) {
    let minted = token(1, 1);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    cluster.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.expect("a use");
    let before = (cluster.find(&minted.id).await.expect("an answer"), all_entries(&*cluster).await);
    for racer in 0..50_u8 {
        refusal(cluster.redeem(&claim(&minted, key([racer])), &origin(&minted.id), now()).await);
    }
    let after = (cluster.find(&minted.id).await.expect("an answer"), all_entries(&*cluster).await);
    assert_eq!(before, after);
    assert_eq!(cluster.joins(100).await.expect("an answer").len(), 1);
    assert_eq!(cluster.joins(100).await.expect("an answer")[0].state, State::Running);
}
