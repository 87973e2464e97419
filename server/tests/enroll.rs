//! Connection 1 as the phases see it: an agent in words against the server's
//! driver, over the in-memory cluster and the real signer. What a well-behaved
//! agent cannot show is shown here: each way to break the order or the proof.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use berth_domain::conversation::{
    CertificateRequest, EnrollFromAgent, EnrollFromServer, Hello, Mechanism, PROTOCOL_VERSION,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::join::{Event, JoinId};
use berth_domain::name::NamePattern;
use berth_domain::node::CertificateTerms;
use berth_domain::phase::Phase;
use berth_domain::proof::{ChannelBinding, Promise, TokenKeys, Transcript, Verifier, machine_message};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenBinding, TokenRecord};
use berth_proto::{encode_enroll_request, encode_enroll_response};
use berth_server::clock::ManualClock;
use berth_server::cluster::memory::Memory;
use berth_server::join::authentication::Decoys;
use berth_server::join::authorization::Authorized;
use berth_server::join::initialization::Admission;
use berth_server::join::{Caller, Ending, EnrollLine, World, enroll};
use berth_server::policy::Policy;
use berth_server::ports::{
    Answer, Clock as _, Hold, Joins as _, NoSoftware, Nodes as _, SignedCertificate, Signer, Takes,
    Tokens as _,
};
use berth_server::profiles::ConfiguredProfiles;
use berth_server::registry::OwnWord;
use berth_server::signer::local::LocalSigner;
use berth_server::trust::Bundles;
use berth_telemetry::metrics::Metrics;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

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
    let [request] = seen.as_slice() else { panic!("asked {} times", seen.len()) };
    assert_ne!(*request, self::request(&key), "not the first one");

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

fn refusal<T>(ended: Result<T, Ending>) -> Diagnosis {
    match ended {
        Err(Ending::Refused(why)) => *why,
        Err(other) => panic!("not refused: {other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

struct TestWorld {
    cluster: Memory,
    clock: ManualClock,
    local: Arc<LocalSigner>,
    signer: Arc<dyn Signer>,
    token: JoinToken,
    policy: Policy,
    admission: Admission,
    metrics: Metrics,
    last_transcript: std::sync::Mutex<Option<Digest>>,
    _directory: tempfile::TempDir,
}

impl TestWorld {
    async fn new(binding: TokenBinding) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let local = LocalSigner::open_or_create(
            directory.path(),
            "test",
            Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000)),
        )
        .expect("a CA");
        let local = Arc::new(local);
        let token = JoinToken::mint(&Zeroizing::new([7; MINT_ENTROPY]), local.ca_pin());
        let clock =
            ManualClock::at(Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let cluster = Memory::default();
        cluster.mint(record(&token, binding, clock.now())).await.expect("memory");
        Self {
            cluster,
            clock,
            signer: Arc::<LocalSigner>::clone(&local),
            local,
            token,
            policy: Policy {
                names: NamePattern::any(),
                certificate_lifetime: Duration::from_secs(3600),
                certificates_per_name_and_hour: 60,
                approval: false,
            },
            admission: Admission::new(64, 64),
            metrics: Metrics::new("test"),
            last_transcript: std::sync::Mutex::new(None),
            _directory: directory,
        }
    }

    fn signed_outside(mut self, kept: Option<Diagnosis>) -> (Self, Arc<Outside>) {
        let outside = Arc::new(Outside { inner: Arc::clone(&self.local), kept, seen: Default::default() });
        self.signer = Arc::<Outside>::clone(&outside);
        (self, outside)
    }

    fn one_at_a_time(mut self) -> Self {
        self.admission = Admission::new(1, 64);
        self
    }

    async fn events(&self) -> Vec<Event> {
        let entries = self.cluster.entries(None, 0, 1000).await.expect("memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// Runs the driver against an agent; what came of it, and what the agent heard.
    async fn enroll(
        &self,
        agent: Agent,
    ) -> (Result<berth_domain::conversation::Issued, Ending>, Vec<EnrollFromServer>) {
        let trust = Arc::new(Bundles::of(Arc::clone(&self.signer)));
        let profiles = ConfiguredProfiles {
            cluster_id: "c".to_owned(),
            cluster_name: "c".to_owned(),
            api_endpoints: Vec::new(),
            trust: Arc::<Bundles>::clone(&trust),
            kubelet: BTreeMap::new(),
            pools: BTreeMap::new(),
        };
        let decoys = Decoys::new(Zeroizing::new([5; 32]));
        let registry = OwnWord::default();
        let world = World {
            cluster: &self.cluster,
            profiles: &profiles,
            software: &NoSoftware,
            registry: &registry,
            signer: self.signer.as_ref(),
            trust: trust.as_ref(),
            clock: &self.clock,
            policy: &self.policy,
            admission: &self.admission,
            cluster_id: "c",
            decoys: &decoys,
            metrics: &self.metrics,
        };
        let (to_server, from_agent) = mpsc::channel(16);
        let (to_agent, from_server) = mpsc::channel(16);
        let mut line =
            WordLine { from_agent, to_agent, transcript: Transcript::new(), channel: agent.channel.clone() };
        let (ended, (heard, said)) = tokio::join!(
            async {
                let ended = enroll(&world, &mut line).await;
                drop(line);
                ended
            },
            agent.talk(to_server, from_server),
        );
        if said.is_some() {
            *self.last_transcript.lock().expect("one test at a time") = said;
        }
        (ended, heard)
    }
}

fn record(token: &JoinToken, binding: TokenBinding, now: Timestamp) -> TokenRecord {
    TokenRecord {
        id: token.id.clone(),
        verifier: Verifier::of(token),
        binding,
        description: String::new(),
        created: now,
        created_by: "test".to_owned(),
        expires: now.after(Duration::from_secs(600)),
        revoked: None,
        used: Vec::new(),
    }
}

/// An agent in words, honest unless told otherwise.
#[derive(Clone)]
struct Agent {
    token: JoinToken,
    key: Arc<KeyPair>,
    request: Vec<u8>,
    channel: ChannelBinding,
    said_channel: ChannelBinding,
    version: u32,
    mechanisms: Vec<Mechanism>,
    name: String,
    wrong_secret: bool,
    skip_hello: bool,
    skip_proof: bool,
    swap_request: bool,
    forge_machine: bool,
    subject: Option<String>,
    other_key: Option<Arc<KeyPair>>,
}

impl Agent {
    fn honest(world: &TestWorld) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let channel = ChannelBinding::new([3; 32]);
        Self {
            token: world.token.clone(),
            request: request(&key),
            key: Arc::new(key),
            said_channel: channel.clone(),
            channel,
            version: PROTOCOL_VERSION,
            mechanisms: vec![Mechanism::Njp1Ed25519],
            name: "n1".to_owned(),
            wrong_secret: false,
            skip_hello: false,
            skip_proof: false,
            swap_request: false,
            forge_machine: false,
            subject: None,
            other_key: None,
        }
    }

    fn spki(&self) -> SpkiHash {
        SpkiHash::of(&self.key.subject_public_key_info())
    }

    async fn talk(
        self,
        to_server: mpsc::Sender<EnrollFromAgent>,
        mut from_server: mpsc::Receiver<EnrollFromServer>,
    ) -> (Vec<EnrollFromServer>, Option<Digest>) {
        let mut heard = Vec::new();
        let mut transcript = Transcript::new();
        let mut after_proof = None;
        let say = |said: EnrollFromAgent, transcript: &mut Transcript| {
            transcript.add(&encode_enroll_request(&said));
            to_server.try_send(said).expect("the queue is longer than the conversation");
        };
        let keys = TokenKeys::of(&self.token);
        if self.skip_hello {
            say(EnrollFromAgent::ClientProof([0; 64]), &mut transcript);
        } else {
            say(EnrollFromAgent::Hello(self.hello()), &mut transcript);
        }
        while let Some(said) = from_server.recv().await {
            match &said {
                EnrollFromServer::Challenge(_) => {
                    transcript.add(&encode_enroll_response(&said));
                    if self.skip_proof {
                        say(EnrollFromAgent::Hello(self.hello()), &mut transcript);
                    } else {
                        let mut proof = keys.prove_client(&self.channel, &transcript.hash());
                        if self.wrong_secret {
                            proof[0] ^= 1;
                        }
                        say(EnrollFromAgent::ClientProof(proof), &mut transcript);
                        after_proof = Some(transcript.hash());
                    }
                }
                EnrollFromServer::ServerProof(_) => {
                    let proved = after_proof.expect("the server proves after the agent");
                    say(
                        EnrollFromAgent::CertificateRequest(self.certificate_request(&proved)),
                        &mut transcript,
                    );
                }
                EnrollFromServer::SubjectWanted(node) => {
                    let proved = after_proof.expect("the server proves after the agent");
                    let subject = self.subject.as_deref().unwrap_or(node.name.as_str());
                    let key = self.other_key.as_ref().unwrap_or(&self.key);
                    let again = CertificateRequest {
                        der: named_request(key, subject),
                        ..self.certificate_request(&proved)
                    };
                    say(EnrollFromAgent::CertificateRequest(again), &mut transcript);
                }
                EnrollFromServer::Queued { .. }
                | EnrollFromServer::Waiting(_)
                | EnrollFromServer::Issued(_) => {}
            }
            heard.push(said);
        }
        (heard, after_proof)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol_version: self.version,
            agent_version: "test".to_owned(),
            mechanisms: self.mechanisms.clone(),
            token: self.token.id.clone(),
            nonce: [4; 32],
            key: self.spki(),
            certificate_request: Digest::of(&self.request),
            exporter: self.said_channel.fingerprint(),
        }
    }

    fn certificate_request(&self, transcript: &Digest) -> CertificateRequest {
        let machine = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).expect("a seed");
        let mut signature = machine.sign(&machine_message(&self.channel, transcript)).as_ref().to_vec();
        if self.forge_machine {
            signature[0] ^= 1;
        }
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        CertificateRequest {
            der: if self.swap_request { request(&self.key) } else { self.request.clone() },
            machine_key: [prefix.as_slice(), machine.public_key().as_ref()].concat(),
            machine_signature: signature,
            wanted_name: self.name.clone(),
            wanted_pool: None,
        }
    }
}

fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.serialize_request(key).expect("a request").der().to_vec()
}

fn named_request(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{name}"));
    params.serialize_request(key).expect("a request").der().to_vec()
}

/// A signer outside: it takes the request, and chooses the serial itself.
struct Outside {
    inner: Arc<LocalSigner>,
    /// What keeps it, before it signs.
    kept: Option<Diagnosis>,
    seen: std::sync::Mutex<Vec<Vec<u8>>>,
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

struct WordLine {
    from_agent: mpsc::Receiver<EnrollFromAgent>,
    to_agent: mpsc::Sender<EnrollFromServer>,
    transcript: Transcript,
    channel: ChannelBinding,
}

#[async_trait]
impl EnrollLine for WordLine {
    async fn hear(&mut self) -> Result<EnrollFromAgent, Ending> {
        let said = self.from_agent.recv().await.ok_or(Ending::Gone)?;
        self.transcript.add(&encode_enroll_request(&said));
        Ok(said)
    }

    async fn say(&mut self, said: EnrollFromServer) -> Result<(), Ending> {
        if matches!(
            said,
            EnrollFromServer::Challenge(_) | EnrollFromServer::ServerProof(_) | EnrollFromServer::Issued(_)
        ) {
            self.transcript.add(&encode_enroll_response(&said));
        }
        self.to_agent.send(said).await.map_err(|_| Ending::Gone)
    }

    fn transcript(&self) -> Digest {
        self.transcript.hash()
    }

    fn channel(&self) -> &ChannelBinding {
        &self.channel
    }

    fn caller(&self) -> Caller {
        Caller { address: IpAddr::V4(Ipv4Addr::LOCALHOST), trace_id: None }
    }

    fn proved(&self) {}
}
