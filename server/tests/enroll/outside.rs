//! A signer outside: it takes the machine's own request, and chooses the serial itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::EnrollFromServer;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::Event;
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;
use berth_domain::token::TokenBinding;
use berth_server::join::authorization::Authorized;
use berth_server::ports::{Answer, Hold, Nodes as _, SignedCertificate, Signer, Takes};
use berth_server::signer::local::LocalSigner;
use rcgen::KeyPair;

use crate::agent::{Agent, named_request, request};
use crate::refusal;
use crate::world::TestWorld;

#[tokio::test]
async fn a_signer_that_hands_requests_on_gets_one_that_names_exactly_the_node() {
    let (world, outside) = TestWorld::new(TokenBinding::default()).await.signed_outside(None);
    let agent = Agent::honest(&world);
    let key = Arc::clone(&agent.key);
    let (ended, heard) = world.enroll(agent).await;
    let issued = ended.expect("it asked again");
    assert_eq!(
        heard.iter().map(EnrollFromServer::name).collect::<Vec<_>>(),
        ["Challenge", "ServerProof", "SubjectWanted", "Issued"]
    );
    let seen = outside.seen.lock().expect("one test at a time").clone();
    let [handed_on] = seen.as_slice() else { panic!("asked {} times", seen.len()) };
    assert_ne!(*handed_on, request(&key), "not the first one");

    let events = world.events().await;
    let authorized = events.iter().position(|e| matches!(e, Event::Authorized { serial: None, .. }));
    let learnt = events.iter().position(|e| matches!(e, Event::Issued { serial, .. } if serial == "4b"));
    assert!(authorized.expect("audited first") < learnt.expect("and the serial after"));
    let node = world.cluster.nodes(Some(&issued.node.name)).await.expect("memory");
    assert_eq!(node[0].record.certificate.serial.as_deref(), Some("4b"));

    let mut right = Agent::honest(&world);
    right.key = key;
    right.request = named_request(&right.key, "n1");
    let (ended, heard) = world.enroll(right).await;
    ended.expect("its own token again");
    assert!(!heard.iter().any(|said| matches!(said, EnrollFromServer::SubjectWanted(_))), "no extra turn");
}

#[tokio::test]
async fn a_second_request_for_another_key_or_node_gets_nothing() {
    type Breaks = fn(&mut Agent);
    let table: [(&str, Breaks); 3] = [
        ("another node", |a| a.subject = Some("n2".to_owned())),
        ("another key", |a| a.other_key = Some(Arc::new(KeyPair::generate().expect("a key")))),
        ("the masters", |a| a.subject = Some("n1,O=system:masters".to_owned())),
    ];
    for (what, break_it) in table {
        let (world, outside) = TestWorld::new(TokenBinding::default()).await.signed_outside(None);
        let mut agent = Agent::honest(&world);
        break_it(&mut agent);
        let (ended, _) = world.enroll(agent).await;
        assert_eq!(refusal(ended).code(), Code::CertificateRequestInvalid, "{what}");
        assert!(outside.seen.lock().expect("one test at a time").is_empty(), "{what}: nothing was handed on");
        let authorized = world.events().await.iter().any(|e| matches!(e, Event::Authorized { .. }));
        assert!(!authorized, "{what}: nothing was authorized");
    }
}

#[tokio::test]
async fn what_keeps_a_signer_is_told_recorded_and_waited_for() {
    let why = Diagnosis::new(Code::SignerUnavailable, Phase::Authorization).with("csr", "berth-x");
    let (world, _) = TestWorld::new(TokenBinding::default()).await.one_at_a_time().signed_outside(Some(why));
    let (ended, heard) = world.enroll(Agent::honest(&world)).await;
    ended.expect("it goes on by itself");
    assert!(
        heard.iter().any(
            |said| matches!(said, EnrollFromServer::Waiting(why) if why.code() == Code::SignerUnavailable)
        )
    );
    let waited = world
        .events()
        .await
        .iter()
        .any(|event| matches!(event, Event::Waiting { why } if why.code() == Code::SignerUnavailable));
    assert!(waited, "operators see it");
}

/// The signer, over one of the server's own.
pub(crate) struct Outside {
    pub(crate) inner: Arc<LocalSigner>,
    /// What keeps it, before it signs.
    pub(crate) kept: Option<Diagnosis>,
    pub(crate) seen: Mutex<Vec<Vec<u8>>>,
}

#[async_trait]
impl Signer for Outside {
    async fn sign(&self, authorized: &Authorized, hold: &Hold) -> Answer<SignedCertificate> {
        assert_eq!(authorized.terms().serial, None, "it is the signer's to choose");
        self.seen.lock().expect("one test at a time").push(authorized.request().to_vec());
        if let Some(why) = &self.kept {
            hold.send_replace(Some(why.clone()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let terms = CertificateTerms { serial: Some("4b".to_owned()), ..authorized.terms().clone() };
        let own = Authorized::for_tests(authorized.node().clone(), authorized.public_key().to_vec(), terms);
        self.inner.sign(&own, hold).await
    }

    fn takes(&self) -> Takes {
        Takes::Request
    }

    fn ca_bundle(&self) -> Arc<str> {
        self.inner.ca_bundle()
    }
}
