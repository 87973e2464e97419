//! What every `Tokens` promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::Code;
use berth_domain::identity::SpkiHash;
use berth_domain::join::JoinId;
use berth_domain::token::TokenRecord;
use tokio::task::JoinSet;

use crate::Backend;
use crate::fixtures::{all_entries, claim, events_of, key, later, now, origin, refusal, token};

pub(crate) async fn a_token_is_found_as_it_was_minted(cluster: Arc<dyn Backend>) {
    let minted = token(1, 3);
    assert_eq!(cluster.find(&minted.id).await.expect("an answer"), None);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    assert_eq!(cluster.find(&minted.id).await.expect("an answer").as_deref(), Some(&minted));

    let first = cluster.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.expect("a use");
    let second =
        cluster.redeem(&claim(&minted, key("b")), &origin(&minted.id), later(1)).await.expect("a use");
    let expected = TokenRecord { used: vec![first, second], ..minted.clone() };
    assert_eq!(cluster.find(&minted.id).await.expect("an answer").as_deref(), Some(&expected));
    assert_eq!(cluster.tokens(now()).await.expect("an answer"), vec![expected]);
}

pub(crate) async fn an_id_is_minted_once(cluster: Arc<dyn Backend>) {
    cluster.mint(token(1, 1)).await.expect("a fresh id");
    let again = TokenRecord { description: "another".to_owned(), ..token(1, 5) };
    assert_eq!(refusal(cluster.mint(again).await).code(), Code::TokenRejected);
    assert_eq!(cluster.find(&token(1, 1).id).await.expect("an answer").as_deref(), Some(&token(1, 1)));
}

pub(crate) async fn a_token_of_one_use_is_good_for_one_of_many_keys(cluster: Arc<dyn Backend>) {
    let minted = token(1, 1);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    let winners = race(&cluster, &minted, 64).await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    let used = cluster.find(&minted.id).await.expect("an answer").expect("it is kept").used.clone();
    assert_eq!(used.iter().map(|used| used.key).collect::<BTreeSet<_>>(), winners);
    assert_eq!(all_entries(&*cluster).await.len(), 1, "one reservation, one entry");
}

pub(crate) async fn a_token_of_some_uses_is_good_for_as_many_keys(cluster: Arc<dyn Backend>) {
    let minted = token(1, 7);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    let winners = race(&cluster, &minted, 64).await;
    assert_eq!(winners.len(), 7);
    let used = cluster.find(&minted.id).await.expect("an answer").expect("it is kept").used.clone();
    assert_eq!(used.len(), 7);
    assert_eq!(used.iter().map(|used| used.key).collect::<BTreeSet<_>>(), winners);
}

pub(crate) async fn the_same_key_may_repeat_and_is_recorded_once(cluster: Arc<dyn Backend>) {
    let minted = token(1, 1);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    let claim = claim(&minted, key("a"));
    let first = cluster.redeem(&claim, &origin(&minted.id), now()).await.expect("a use");
    assert_eq!(first.join, JoinId::of(&minted.id, key("a")));
    for _ in 0..3 {
        let again = cluster.redeem(&claim, &origin(&minted.id), later(30)).await.expect("the same use");
        assert_eq!(again, first);
    }
    assert_eq!(events_of(&*cluster, first.join).await, ["Redeemed"]);
    let record = cluster.join(first.join).await.expect("an answer").expect("it is recorded");
    assert_eq!(record.origin, Some(origin(&minted.id)));
}

pub(crate) async fn an_unknown_token_is_rejected(cluster: Arc<dyn Backend>) {
    let unknown = token(9, 1);
    let refused = refusal(cluster.redeem(&claim(&unknown, key("a")), &origin(&unknown.id), now()).await);
    assert_eq!(refused.code(), Code::TokenRejected);
    assert!(!cluster.revoke(&unknown.id, "alice", now()).await.expect("an answer"));
}

pub(crate) async fn a_revoked_token_is_rejected_even_for_the_key_that_used_it(cluster: Arc<dyn Backend>) {
    let minted = token(1, 2);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    cluster.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await.expect("a use");
    assert!(cluster.revoke(&minted.id, "alice", later(1)).await.expect("an answer"));
    assert!(cluster.revoke(&minted.id, "bob", later(2)).await.expect("an answer"));
    let revoked = cluster.find(&minted.id).await.expect("an answer").expect("it is kept");
    let revocation = revoked.revoked.clone().expect("it is revoked");
    assert_eq!((revocation.by.as_str(), revocation.at), ("alice", later(1)), "the first word counts");
    assert_eq!(revoked.used.len(), 1, "its uses are kept");
    for who in ["a", "b"] {
        let refused = refusal(cluster.redeem(&claim(&minted, key(who)), &origin(&minted.id), later(3)).await);
        assert_eq!(refused.code(), Code::TokenRejected);
    }
}

pub(crate) async fn a_token_ends_at_its_moment(cluster: Arc<dyn Backend>) {
    let minted = token(1, 2);
    cluster.mint(minted.clone()).await.expect("a fresh id");
    let just_before = minted.expires.before(Duration::from_millis(1));
    cluster.redeem(&claim(&minted, key("a")), &origin(&minted.id), just_before).await.expect("still good");
    let refused =
        refusal(cluster.redeem(&claim(&minted, key("b")), &origin(&minted.id), minted.expires).await);
    assert_eq!(refused.code(), Code::TokenExpired);
}

pub(crate) async fn a_token_bound_to_a_network_is_refused_elsewhere(cluster: Arc<dyn Backend>) {
    let mut minted = token(1, 1);
    minted.binding.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    cluster.mint(minted.clone()).await.expect("a fresh id");
    let refused = refusal(cluster.redeem(&claim(&minted, key("a")), &origin(&minted.id), now()).await);
    assert_eq!((refused.code(), refused.value("found")), (Code::TokenBoundElsewhere, Some("192.0.2.7")));
}

pub(crate) async fn tokens_are_listed_newest_first_and_dropped_when_long_over(cluster: Arc<dyn Backend>) {
    for (seed, age) in [(1, 0), (2, 20), (3, 10)] {
        let minted = TokenRecord { created: later(age), ..token(seed, 1) };
        cluster.mint(minted).await.expect("a fresh id");
    }
    let ids = |tokens: Vec<TokenRecord>| tokens.into_iter().map(|token| token.id).collect::<Vec<_>>();
    let listed = ids(cluster.tokens(now()).await.expect("an answer"));
    assert_eq!(listed, [token(2, 1).id, token(3, 1).id, token(1, 1).id]);

    cluster.revoke(&token(3, 1).id, "alice", now()).await.expect("an answer");
    let week_after_revocation = later(7 * 24 * 3600 + 1);
    let listed = ids(cluster.tokens(week_after_revocation).await.expect("an answer"));
    assert_eq!(listed, [token(2, 1).id, token(1, 1).id], "revoked over a week ago");
    let week_after_expiry = later(7 * 24 * 3600 + 3601);
    assert_eq!(cluster.tokens(week_after_expiry).await.expect("an answer"), []);
    assert_eq!(cluster.find(&token(1, 1).id).await.expect("an answer"), None, "it is gone for good");
}

/// Lets that many keys redeem the token at once; answers which could.
pub(crate) async fn race(cluster: &Arc<dyn Backend>, minted: &TokenRecord, keys: u32) -> BTreeSet<SpkiHash> {
    let mut racers = JoinSet::new();
    for racer in 0..keys {
        let (cluster, claim) = (Arc::clone(cluster), claim(minted, key(racer.to_be_bytes())));
        racers.spawn(async move {
            let answer = cluster.redeem(&claim, &origin(&claim.token), now()).await;
            match answer {
                Ok(_) => Some(claim.key),
                Err(refused) => {
                    assert_eq!(refusal::<()>(Err(refused)).code(), Code::TokenSpent);
                    None
                }
            }
        });
    }
    racers.join_all().await.into_iter().flatten().collect()
}
