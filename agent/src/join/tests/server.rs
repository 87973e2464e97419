//! A server in memory: it proves and checks by the same code as the real one,
//! and can be told to do wrong.

mod member;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::conversation::{
    AttendFromServer, CertificateRequest, Challenge, EnrollFromAgent, EnrollFromServer, Hello, Issued,
    Mechanism, ServerProof,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;
use berth_domain::profile::Profile;
use berth_domain::proof::{ChannelBinding, Promise, Transcript, Verifier};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::JoinToken;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use self::member::Mutual;
use super::authority::Authority;
use crate::ports::doubles::ManualClock;
use crate::ports::doubles::MemorySupplier;
use crate::ports::server::{Enrollment, LineError, Member, Server, Stranger};
use crate::ports::{Clock as _, Credential, NodeKey};

/// What the server is told to do; by default, what is right.
#[derive(Default)]
pub(crate) struct Script {
    /// Connections that fail before one is made.
    pub(crate) unreachable: u32,
    /// Places in the queue before the challenge.
    pub(crate) queued: u32,
    /// Words of waiting before the certificate; `u32::MAX` for ever.
    pub(crate) waiting: u32,
    /// It does not know the token.
    pub(crate) ignorant: bool,
    /// It says this in place of its answer to Hello.
    pub(crate) instead: Option<EnrollFromServer>,
    /// It refuses what comes after Hello.
    pub(crate) refuses: Option<Diagnosis>,
    /// How often it asks for the request again, with the node's subject.
    pub(crate) subjects: u32,
    /// How the certificate is wrong.
    pub(crate) wrong: Option<Wrong>,
    /// How far its clock is ahead of the agent's first one.
    pub(crate) ahead: Duration,
    /// The bundle that its profile names.
    pub(crate) bundle: Option<Digest>,
    /// What it heard, by the names of messages.
    pub(crate) heard: Vec<String>,
    /// What attending agents are told, and lines that are refused first.
    pub(crate) tells: VecDeque<Result<AttendFromServer, Diagnosis>>,
    /// Where pods are, told once the Node is registered.
    pub(crate) pods: Option<PodRoutes>,
}

/// How a certificate can be wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    Key,
    Name,
    Authority,
    Time,
}

pub(crate) struct Double {
    pub(crate) ca: Arc<Authority>,
    pub(crate) token: JoinToken,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) began: Timestamp,
    pub(crate) supplier: MemorySupplier,
    script: Arc<Mutex<Script>>,
}

impl Double {
    pub(crate) fn new(ca: Arc<Authority>, token: JoinToken, clock: Arc<ManualClock>) -> Self {
        let began = clock.now();
        Self { ca, token, clock, began, supplier: MemorySupplier::default(), script: Arc::default() }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics here")
    }

    /// By its own clock, which is right.
    fn now(&self) -> Timestamp {
        self.began.after(self.script().ahead)
    }

    fn clone(&self) -> Self {
        Self {
            ca: Arc::clone(&self.ca),
            token: self.token.clone(),
            clock: Arc::clone(&self.clock),
            began: self.began,
            supplier: self.supplier.clone(),
            script: Arc::clone(&self.script),
        }
    }

    /// A serving certificate of its CA, and the CA.
    fn shown(&self) -> Vec<Vec<u8>> {
        let key = NodeKey::generate().expect("a key").public_key_spki();
        vec![self.ca.sign_key(&key, "server", self.now(), Duration::from_secs(3600)), self.ca.der.clone()]
    }

    pub(super) fn heard(&self, name: &str) {
        self.script().heard.push(name.to_owned());
    }

    fn sign(&self, request: &[u8]) -> Vec<u8> {
        let (now, life) = (self.now(), Duration::from_secs(3600));
        let wrong = self.script().wrong;
        match wrong {
            None => self.ca.sign(request, "n1", now, life),
            Some(Wrong::Key) => {
                let other = NodeKey::generate().expect("a key");
                self.ca.sign_key(&other.public_key_spki(), "n1", now, life)
            }
            Some(Wrong::Name) => self.ca.sign(request, "n2", now, life),
            Some(Wrong::Authority) => Authority::new("cluster").sign(request, "n1", now, life),
            Some(Wrong::Time) => self.ca.sign(request, "n1", now.before(life), Duration::from_secs(60)),
        }
    }
}

pub(crate) fn node() -> NodeIdentity {
    NodeIdentity { name: "n1".parse().expect("a name"), pool: Default::default() }
}

fn names_node(request: &[u8]) -> bool {
    let (_, request) = X509CertificationRequest::from_der(request).expect("a request");
    request.certification_request_info.subject.to_string() == "O=system:nodes, CN=system:node:n1"
}

fn profile(ca_bundle: &str) -> Profile {
    Profile {
        cluster_id: "c-1".to_owned(),
        cluster_name: "berth".to_owned(),
        node: node(),
        api_endpoints: vec!["https://10.0.0.1:6443".to_owned()],
        ca_bundle: ca_bundle.to_owned(),
        kubelet: Default::default(),
        labels: Default::default(),
        taints: Vec::new(),
        network: berth_domain::pods::PodNetwork::None,
        kubernetes_version: None,
        bundle: None,
    }
}

#[async_trait]
impl Server for Double {
    async fn call(&self, _pins: &[SpkiHash]) -> Result<Box<dyn Stranger>, Diagnosis> {
        let mut script = self.script();
        if script.unreachable > 0 {
            script.unreachable -= 1;
            return Err(Diagnosis::new(Code::ConnectionFailed, Phase::Initialization));
        }
        script.heard.push("call".to_owned());
        drop(script);
        Ok(Box::new(Unproved(self.clone())))
    }

    async fn enter(&self, _credential: &Credential) -> Result<Box<dyn Member>, Diagnosis> {
        self.heard("enter");
        Ok(Box::new(Mutual(self.clone())))
    }
}

struct Unproved(Double);

#[async_trait]
impl Stranger for Unproved {
    async fn enroll(&self) -> Result<Box<dyn Enrollment>, LineError> {
        Ok(Box::new(Enrolling {
            server: self.0.clone(),
            channel: ChannelBinding::new([5; 32]),
            shown: self.0.shown(),
            transcript: Transcript::new(),
            hello: None,
            asked_again: false,
            answers: VecDeque::new(),
        }))
    }
}

struct Enrolling {
    server: Double,
    channel: ChannelBinding,
    shown: Vec<Vec<u8>>,
    transcript: Transcript,
    hello: Option<Hello>,
    asked_again: bool,
    answers: VecDeque<Result<EnrollFromServer, Diagnosis>>,
}

impl Enrolling {
    fn greet(&mut self, hello: Hello) {
        let now = self.server.now();
        let mut script = self.server.script();
        for position in (0..script.queued).rev() {
            let next_word = Duration::from_secs(2);
            self.answers.push_back(Ok(EnrollFromServer::Queued { position, next_word }));
        }
        let challenge = EnrollFromServer::Challenge(Challenge {
            mechanism: Mechanism::Njp1Ed25519,
            nonce: [7; 32],
            server_time: now,
            server_version: "0".to_owned(),
        });
        self.answers.push_back(match script.refuses.take() {
            Some(why) => Err(why),
            None => Ok(script.instead.take().unwrap_or(challenge)),
        });
        drop(script);
        self.hello = Some(hello);
    }

    fn prove(&mut self, before: &Digest, proof: &[u8]) {
        let server = &self.server;
        let verifier = Verifier::of(&server.token);
        assert_eq!(verifier.check_client(&self.channel, before, proof), Ok(()), "the agent knows its token");
        let promise = Promise { ca_bundle: server.ca.pem.as_bytes(), cluster_id: "c-1" };
        let mut proof = verifier.prove_server(&self.channel, &self.transcript.hash(), &promise);
        if server.script().ignorant {
            proof = [0; 32];
        }
        let (ca_bundle, cluster_id) = (server.ca.pem.clone(), "c-1".to_owned());
        self.answers.push_back(Ok(EnrollFromServer::ServerProof(ServerProof {
            proof,
            ca_bundle,
            cluster_id,
        })));
    }

    fn issue(&mut self, request: &CertificateRequest) {
        let hello = self.hello.clone().expect("Hello came first");
        if self.asked_again {
            assert!(names_node(&request.der), "the subject that was wanted");
        } else {
            assert_eq!(Digest::of(&request.der), hello.certificate_request, "the announced request");
        }
        if self.server.script().subjects > 0 {
            self.server.script().subjects -= 1;
            self.asked_again = true;
            self.answers.push_back(Ok(EnrollFromServer::SubjectWanted(node())));
            return;
        }
        let waits = self.server.script().waiting;
        let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization).with("join", "j-1");
        for _ in 0..waits.min(3) {
            self.answers.push_back(Ok(EnrollFromServer::Waiting(why.clone())));
        }
        if waits < u32::MAX {
            let chain = vec![self.server.sign(&request.der)];
            let join = JoinId::of(&hello.token, hello.key);
            self.answers.push_back(Ok(EnrollFromServer::Issued(Issued { chain, node: node(), join })));
        }
    }
}

#[async_trait]
impl Enrollment for Enrolling {
    async fn say(&mut self, said: EnrollFromAgent) -> Result<(), LineError> {
        self.server.heard(said.name());
        let before = self.transcript.hash();
        self.transcript.add(format!("{said:?}").as_bytes());
        match said {
            EnrollFromAgent::Hello(hello) => self.greet(hello),
            EnrollFromAgent::ClientProof(proof) => self.prove(&before, &proof),
            EnrollFromAgent::CertificateRequest(request) => self.issue(&request),
            EnrollFromAgent::GivingUp(why) => self.server.heard(why.code().as_str()),
        }
        Ok(())
    }

    async fn hear(&mut self, patience: Duration) -> Result<EnrollFromServer, LineError> {
        let Some(answer) = self.answers.pop_front() else {
            tokio::time::sleep(patience).await;
            return Err(LineError::Silent(patience));
        };
        let answer = answer.map_err(|why| LineError::Refused(Box::new(why)))?;
        if !matches!(
            answer,
            EnrollFromServer::Queued { .. }
                | EnrollFromServer::Waiting(_)
                | EnrollFromServer::SubjectWanted(_)
        ) {
            self.transcript.add(format!("{answer:?}").as_bytes());
        }
        Ok(answer)
    }

    fn transcript(&self) -> Digest {
        self.transcript.hash()
    }

    fn channel(&self) -> &ChannelBinding {
        &self.channel
    }

    fn shown(&self) -> &[Vec<u8>] {
        &self.shown
    }
}
