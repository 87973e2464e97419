//! Bootstrap tokens over the in-memory backend, with Secrets in memory.

use std::time::Duration;

use berth_domain::token::{JoinToken, TokenBinding};

use super::memory::MemorySecrets;
use super::secret::tests::{now, secret};
use super::*;
use crate::cluster::memory::Memory;

struct World {
    secrets: Arc<MemorySecrets>,
    backend: Arc<Memory>,
    tokens: BootstrapTokens<Memory>,
}

fn world() -> World {
    let (secrets, backend) = (Arc::<MemorySecrets>::default(), Arc::<Memory>::default());
    let replica = replica(&secrets, &backend);
    World { secrets, backend, tokens: replica }
}

fn replica(secrets: &Arc<MemorySecrets>, backend: &Arc<Memory>) -> BootstrapTokens<Memory> {
    let secrets: Arc<dyn Secrets> = Arc::<MemorySecrets>::clone(secrets);
    BootstrapTokens::over(Arc::clone(backend), secrets, Zeroizing::new([5; 32]))
}

fn id(text: &str) -> TokenId {
    text.parse().expect("an id")
}

fn claim(token: &str, key: &[u8]) -> Claim {
    Claim { token: id(token), key: SpkiHash::of(key), source: "10.0.0.7".parse().expect("an address") }
}

fn origin(token: &str) -> Origin {
    Origin { token: id(token), source: "10.0.0.7".into(), agent_version: "0.1.0".into(), trace_id: None }
}

async fn redeem(tokens: &BootstrapTokens<Memory>, key: &[u8]) -> Result<Use, Diagnosis> {
    refusal(tokens.redeem(&claim("u7k2pw", key), &origin("u7k2pw"), now()).await)
}

fn refusal<T>(answer: Answer<T>) -> Result<T, Diagnosis> {
    answer.map_err(|error| error.into_diagnosis(berth_domain::phase::Phase::Authentication, now()))
}

#[tokio::test(start_paused = true)]
async fn a_token_of_kubeadm_is_found_proved_and_redeemed() {
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[("description", Some("The default one"))]));
    let found = world.tokens.find(&id("u7k2pw")).await.expect("there").expect("a token");
    let token: JoinToken = "u7k2pw.x91mqz40bhc8ydre".parse().expect("as kubeadm printed it");
    assert!(found.verifier == Verifier::of(&token));
    assert!(world.backend.tokens(now()).await.expect("memory").is_empty(), "nothing is kept before its use");

    let first = redeem(&world.tokens, b"a").await.expect("a use");
    assert_eq!(redeem(&world.tokens, b"a").await, Ok(first.clone()), "the same key may repeat");
    redeem(&world.tokens, b"b").await.expect("many uses");
    let listed = world.tokens.tokens(now()).await.expect("memory");
    let [shadow] = listed.as_slice() else { panic!("one shadow: {listed:?}") };
    assert_eq!((shadow.created_by.as_str(), shadow.used.len()), (MAKER, 2));
    assert_eq!((shadow.description.as_str(), shadow.binding.uses), ("The default one", MOST_USES));
    assert!(shadow.verifier != found.verifier, "a shadow alone lets nobody in");
    assert_eq!(world.tokens.find(&id("u7k2pw")).await.expect("there").expect("a token").used.len(), 2);
    assert!(world.tokens.join(first.join).await.expect("memory").is_some(), "its join is recorded");
}

#[tokio::test(start_paused = true)]
async fn uses_are_counted_across_replicas() {
    let world = world();
    let other = replica(&world.secrets, &world.backend);
    world.secrets.put(&id("u7k2pw"), secret(&[("berth.dev/uses", Some("2"))]));
    redeem(&world.tokens, b"a").await.expect("the first");
    redeem(&other, b"b").await.expect("the second");
    let spent = redeem(&world.tokens, b"c").await.expect_err("there were two");
    assert_eq!((spent.code(), spent.value("uses")), (Code::TokenSpent, Some("2")));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_at_the_proof_is_checked_again_at_the_use() {
    for (changes, code) in [
        (vec![("expiration", Some("2026-09-21T00:00:00Z"))], Code::TokenExpired),
        (vec![("usage-bootstrap-authentication", None)], Code::TokenRejected),
        (vec![("auth-extra-groups", Some("system:masters"))], Code::TokenRejected),
        (vec![("berth.dev/networks", Some("192.0.2.0/24"))], Code::TokenBoundElsewhere),
        (vec![("berth.dev/uses", Some("1"))], Code::TokenSpent),
    ] {
        let world = world();
        world.secrets.put(&id("u7k2pw"), secret(&[]));
        redeem(&world.tokens, b"a").await.expect("good so far");
        world.secrets.put(&id("u7k2pw"), secret(&changes));
        tokio::time::advance(Duration::from_millis(2_100)).await;
        let found = world.tokens.find(&id("u7k2pw")).await.expect("there");
        assert!(found.is_some(), "the proof decides first: {changes:?}");
        let why = redeem(&world.tokens, b"b").await.expect_err("no longer");
        assert_eq!(why.code(), code, "{changes:?}");
    }
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    redeem(&world.tokens, b"a").await.expect("good so far");
    world.secrets.delete(&id("u7k2pw"));
    tokio::time::advance(Duration::from_millis(2_100)).await;
    assert_eq!(world.tokens.find(&id("u7k2pw")).await.expect("reachable"), None);
    let why = redeem(&world.tokens, b"b").await.expect_err("it is gone");
    assert_eq!(why.code(), Code::TokenRejected);
    assert_eq!(why.told().cause(), "the server does not accept the token u7k2pw");
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_revoke_what_only_kubeadm_can_delete() {
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    assert!(
        world.tokens.revoke(&id("u7k2pw"), "alice", now()).await.expect("memory"),
        "before its first use"
    );
    let why = redeem(&world.tokens, b"a").await.expect_err("it is revoked");
    assert!(why.cause().contains("alice"), "{}", why.cause());
    assert!(!world.tokens.revoke(&id("zzzzz0"), "alice", now()).await.expect("memory"));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_no_token_looks_like_none_and_operators_see_why() {
    let world = world();
    let opaque = BootstrapSecret { kind: "Opaque".to_owned(), ..secret(&[]) };
    world.secrets.put(&id("u7k2pw"), opaque);
    let why = refusal(world.tokens.find(&id("u7k2pw")).await).expect_err("no token");
    assert_eq!(why.code(), Code::TokenRejected);
    assert!(why.cause().contains("bootstrap-token-u7k2pw is there, but its type"), "{}", why.cause());
    assert_eq!(why.told().cause(), "the server does not accept the token u7k2pw");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_joins_is_one_read() {
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    let token = id("u7k2pw");
    let storm = (0..500).map(|_| world.tokens.find(&token));
    for found in futures_util::future::join_all(storm).await {
        assert!(found.expect("there").is_some());
    }
    assert_eq!(world.secrets.asked(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    redeem(&world.tokens, b"a").await.expect("a use");
    assert_eq!(world.secrets.asked(), 1, "what was just read is still believed");
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_make_calls_without_bound_and_do_not_stand_in_the_way_of_a_token_in_use() {
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    redeem(&world.tokens, b"a").await.expect("in use");
    let made_up: Vec<TokenId> = (0..5_000).map(|number| id(&format!("s{number:05}"))).collect();
    let began = tokio::time::Instant::now();
    let answers = futures_util::future::join_all(made_up.iter().map(|id| world.tokens.find(id))).await;
    let busy = answers.into_iter().filter_map(|answer| refusal(answer).err());
    let busy: Vec<Diagnosis> = busy.inspect(|why| assert_eq!(why.code(), Code::ServerBusy)).collect();
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(3), "{took:?}");
    assert!(world.secrets.asked() <= 1 + 50 + 30, "{} calls in {took:?}", world.secrets.asked());
    assert!(busy.len() >= 4_900, "{}", busy.len());
    let asked = world.secrets.asked();
    redeem(&world.tokens, b"b").await.expect("a token in use is read outside the pace");
    assert!(world.secrets.asked() <= asked + 1);
    for _ in 0..100 {
        let _ = world.tokens.find(&made_up[0]).await;
    }
    assert!(world.secrets.asked() <= asked + 2, "an unknown id is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_token_made_a_moment_later_is_found_soon() {
    let world = world();
    assert_eq!(world.tokens.find(&id("u7k2pw")).await.expect("reachable"), None);
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    tokio::time::advance(Duration::from_millis(5_100)).await;
    assert!(world.tokens.find(&id("u7k2pw")).await.expect("reachable").is_some());
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_joins_wait_and_do_not_ask_each_for_itself() {
    let world = world();
    world.secrets.put(&id("u7k2pw"), secret(&[]));
    world.secrets.set_away(true);
    let token = id("u7k2pw");
    let storm = (0..200).map(|_| world.tokens.find(&token));
    for answer in futures_util::future::join_all(storm).await {
        assert_eq!(refusal(answer).expect_err("away").code(), Code::StoreUnavailable);
    }
    assert_eq!(world.secrets.asked(), 1);
    world.secrets.set_away(false);
    tokio::time::advance(Duration::from_millis(1_100)).await;
    assert!(world.tokens.find(&token).await.expect("back").is_some());
}

#[tokio::test(start_paused = true)]
async fn tokens_of_its_own_pass_through_and_none_is_minted_in_kubeadms_name() {
    let world = world();
    let token = JoinToken::mint(&Zeroizing::new([7; 27]), SpkiHash::of(b"ca"));
    let record = TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(&token),
        binding: TokenBinding::default(),
        description: String::new(),
        created: now(),
        created_by: "alice".to_owned(),
        expires: now().after(Duration::from_secs(60)),
        revoked: None,
        used: Vec::new(),
    };
    world.tokens.mint(record.clone()).await.expect("its own");
    assert_eq!(world.tokens.find(&token.id).await.expect("memory").as_deref(), Some(&record));
    assert_eq!(world.secrets.asked(), 0);
    let forged = TokenRecord { id: id("u7k2pw"), ..record };
    assert_eq!(refusal(world.tokens.mint(forged).await).expect_err("not here").code(), Code::TokenRejected);
}
