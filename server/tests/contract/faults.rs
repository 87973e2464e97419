//! The decorator that fails on demand.

use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;
use berth_server::cluster::faulty::{Fault, Faulty, Verb};
use berth_server::cluster::memory::Memory;
use berth_server::ports::Tokens;

use crate::fixtures::{claim, key, now, origin, token};

#[tokio::test]
async fn a_verb_fails_as_it_was_told_until_it_is_mended() {
    let cluster = Faulty::new(Memory::default());
    let minted = token(1, 1);
    cluster.break_verb(Verb::Mint, Fault::Unavailable);
    let error = cluster.mint(minted.clone()).await.expect_err("it is broken");
    assert_eq!(error.into_diagnosis(Phase::Authentication, now()).code(), Code::StoreUnavailable);
    assert_eq!(cluster.find(&minted.id).await.expect("an answer"), None, "it was not done");
    cluster.mend_verb(Verb::Mint);
    cluster.mint(minted.clone()).await.expect("it works again");

    cluster.break_verb(Verb::Redeem, Fault::AnswerLost);
    let claim = claim(&minted, key("a"));
    cluster.redeem(&claim, &origin(&minted.id), now()).await.expect_err("the answer is lost");
    cluster.mend_verb(Verb::Redeem);
    let again = cluster.redeem(&claim, &origin(&minted.id), now()).await.expect("the same key");
    assert_eq!(
        cluster.find(&minted.id).await.expect("an answer").map(|token| token.used.clone()),
        Some(vec![again])
    );
}
