//! Connection 1 as the phases see it: an agent in words against the server's
//! driver, over the in-memory cluster and the real signer. What a well-behaved
//! agent cannot show is shown here: each way to break the order or the proof.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

mod agent;
mod outside;
mod world;

use berth_domain::conversation::EnrollFromServer;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::SpkiHash;
use berth_domain::join::{Event, JoinId};
use berth_domain::proof::{ChannelBinding, Promise, TokenKeys};
use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenBinding};
use berth_server::join::Ending;
use berth_server::ports::{Clock as _, Joins as _, Nodes as _, Tokens as _};
use zeroize::Zeroizing;

use crate::agent::Agent;
use crate::world::TestWorld;

#[tokio::test]
async fn an_agent_that_knows_its_token_gets_the_certificate_it_asked_for() {
    let world = TestWorld::new(TokenBinding::default()).await;
    let (ended, heard) = world.enroll(Agent::honest(&world)).await;
    let issued = ended.expect("an honest agent");
    assert_eq!(issued.node.name.as_str(), "n1");
    assert!(matches!(
        heard.as_slice(),
        [EnrollFromServer::Challenge(_), EnrollFromServer::ServerProof(_), EnrollFromServer::Issued(_)]
    ));
}

#[tokio::test]
async fn the_server_proves_itself_over_the_same_channel_and_bundle() {
    let world = TestWorld::new(TokenBinding::default()).await;
    let agent = Agent::honest(&world);
    let (token, channel) = (world.token.clone(), agent.channel.clone());
    let (_, heard) = world.enroll(agent).await;
    let said = world.last_transcript.lock().expect("one test at a time").expect("it proved");
    let Some(EnrollFromServer::ServerProof(proof)) = heard.get(1) else {
        panic!("no server proof: {heard:?}")
    };
    let promise = Promise { ca_bundle: proof.ca_bundle.as_bytes(), cluster_id: &proof.cluster_id };
    assert_eq!(TokenKeys::of(&token).check_server(&channel, &said, &promise, &proof.proof), Ok(()));
}

#[tokio::test]
async fn each_way_to_break_the_order_or_the_proof_is_refused_by_its_own_code() {
    type Breaks = fn(&mut Agent);
    let table: [(&str, Breaks, Code); 9] = [
        ("another channel", |a| a.said_channel = ChannelBinding::new([1; 32]), Code::TlsTerminated),
        ("an unknown version", |a| a.version = 9, Code::VersionUnsupported),
        ("no mechanism in common", |a| a.mechanisms.clear(), Code::VersionUnsupported),
        ("a wrong secret", |a| a.wrong_secret = true, Code::TokenRejected),
        ("a proof before the question", |a| a.skip_hello = true, Code::ProtocolViolation),
        ("no proof at all", |a| a.skip_proof = true, Code::ProtocolViolation),
        ("another request than announced", |a| a.swap_request = true, Code::CertificateRequestInvalid),
        ("a machine key that did not sign", |a| a.forge_machine = true, Code::CertificateRequestInvalid),
        ("an illegal name", |a| a.name = "Not_A_Name".to_owned(), Code::HostnameInvalid),
    ];
    for (what, break_it, code) in table {
        let world = TestWorld::new(TokenBinding::default()).await;
        let mut agent = Agent::honest(&world);
        break_it(&mut agent);
        let (ended, heard) = world.enroll(agent).await;
        assert_eq!(refusal(ended).code(), code, "{what}");
        assert!(!heard.iter().any(|said| matches!(said, EnrollFromServer::Issued(_))), "{what}");
        let authorized = world.events().await.iter().any(|event| matches!(event, Event::Authorized { .. }));
        assert!(!authorized, "{what}: nothing was authorized");
    }
}

#[tokio::test]
async fn an_unknown_token_and_a_wrong_secret_are_told_apart_by_operators_only() {
    let world = TestWorld::new(TokenBinding::default()).await;
    let mut wrong = Agent::honest(&world);
    wrong.wrong_secret = true;
    let wrong = refusal(world.enroll(wrong).await.0);
    let stranger = JoinToken::mint(&Zeroizing::new([9; MINT_ENTROPY]), SpkiHash::of(b"ca"));
    let mut unknown = Agent::honest(&world);
    unknown.token = stranger;
    let unknown = refusal(world.enroll(unknown).await.0);
    assert_ne!(wrong.value("reason"), unknown.value("reason"));
    let sentence =
        |why: &Diagnosis| why.told().cause().replace(why.value("token").expect("it is named"), "ID");
    assert_eq!(sentence(&wrong), sentence(&unknown));
}

#[tokio::test]
async fn the_same_key_may_come_again_and_another_is_refused_and_recorded() {
    let world = TestWorld::new(TokenBinding::default()).await;
    let agent = Agent::honest(&world);
    let again = agent.clone();
    world.enroll(agent).await.0.expect("the first time");
    world.enroll(again).await.0.expect("the same key again");
    let other = Agent::honest(&world);
    let join = JoinId::of(&other.token.id, other.spki());
    assert_eq!(refusal(world.enroll(other).await.0).code(), Code::TokenSpent);
    let record = world.cluster.join(join).await.expect("memory").expect("it was recorded");
    assert_eq!(record.state.why().map(Diagnosis::code), Some(Code::TokenSpent));
    assert!(record.state.why().is_some_and(|why| why.value("usedBy").is_some()), "operators see by whom");
}

#[tokio::test]
async fn a_join_that_needs_approval_waits_and_goes_on_when_it_is_given() {
    let world = TestWorld::new(TokenBinding { approval: true, ..TokenBinding::default() }).await;
    let agent = Agent::honest(&world);
    let join = JoinId::of(&agent.token.id, agent.spki());
    let approve = async {
        let mut changes = world.cluster.changes();
        loop {
            let record = world.cluster.join(join).await.expect("memory");
            let waits = record.and_then(|record| record.state.why().map(Diagnosis::code));
            if waits == Some(Code::ApprovalPending) {
                let event = Event::Approved { by: "alice".to_owned() };
                return world.cluster.record(join, None, event, world.clock.now()).await.expect("memory");
            }
            changes.changed().await.expect("the store is open");
        }
    };
    let ((ended, heard), ()) = tokio::join!(world.enroll(agent), approve);
    ended.expect("it was approved");
    assert!(
        heard.iter().any(
            |said| matches!(said, EnrollFromServer::Waiting(why) if why.code() == Code::ApprovalPending)
        )
    );
}

#[tokio::test]
async fn a_token_that_is_taken_back_while_its_join_waits_gets_no_certificate() {
    let world = TestWorld::new(TokenBinding { approval: true, ..TokenBinding::default() }).await;
    let agent = Agent::honest(&world);
    let (id, join) = (agent.token.id.clone(), JoinId::of(&agent.token.id, agent.spki()));
    let take_back_and_approve = async {
        let mut changes = world.cluster.changes();
        loop {
            let record = world.cluster.join(join).await.expect("memory");
            let waits = record.and_then(|record| record.state.why().map(Diagnosis::code));
            if waits == Some(Code::ApprovalPending) {
                let now = world.clock.now();
                assert!(world.cluster.revoke(&id, "alice", now).await.expect("memory"));
                let event = Event::Approved { by: "bob".to_owned() };
                return world.cluster.record(join, None, event, now).await.expect("memory");
            }
            changes.changed().await.expect("the store is open");
        }
    };
    let ((ended, _), ()) = tokio::join!(world.enroll(agent), take_back_and_approve);
    assert_eq!(refusal(ended).code(), Code::TokenRejected);
    assert!(world.cluster.nodes(None).await.expect("memory").is_empty(), "no name is bound");
}

#[tokio::test]
async fn a_full_server_gives_places_in_turn() {
    let world = TestWorld::new(TokenBinding { uses: 8, ..TokenBinding::default() }).await.one_at_a_time();
    let agents = (1..=4).map(|number| {
        let mut agent = Agent::honest(&world);
        agent.name = format!("n{number}");
        world.enroll(agent)
    });
    let queue = world.admission.queue();
    let moves = queue.changes();
    let mut queued = 0;
    for (ended, heard) in futures_util::future::join_all(agents).await {
        ended.expect("each has its turn");
        queued += usize::from(heard.iter().any(|said| matches!(said, EnrollFromServer::Queued { .. })));
    }
    assert!(queued >= 1, "somebody had to wait");
    assert!(
        moves.has_changed().expect("it is open") && queue.all().is_empty(),
        "operators saw them come and go"
    );
}

pub(crate) fn refusal<T>(ended: Result<T, Ending>) -> Diagnosis {
    match ended {
        Err(Ending::Refused(why)) => *why,
        Err(other) => panic!("not refused: {other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}
