//! Agents that race for one token over real TLS and gRPC: each has a connection of
//! its own and has heard its challenge before the first says its proof, so the
//! servers hold all of them at once. The proofs leave together, as fast as this
//! one process can sign them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_agent::certificate::{Wanted, check_issued};
use berth_agent::credential::{MachineKey, NodeKey};
use berth_agent::line::Line;
use berth_agent::ports::server::{Enrollment, Server as _};
use berth_domain::conversation::{
    CertificateRequest, EnrollFromAgent, EnrollFromServer, Hello, Issued, Mechanism, PROTOCOL_VERSION,
};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::proof::{Promise, TokenKeys, machine_message};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::JoinToken;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, Semaphore};

/// How long an answer may take while a thousand are asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that are made at one time: so many as are shaken hands with well
/// before the server's deadline for a handshake.
const DIALLING: usize = 64;

/// How often an agent comes back that was given no definite answer.
const MOST_ATTEMPTS: u32 = 12;

/// Lets all of them race for the token; the agents spread over the endpoints. What
/// came of each.
///
/// # Panics
/// One of them comes to no definite answer, or hears what no server should say.
#[must_use]
pub fn race(runtime: &Runtime, token: &str, endpoints: &[SocketAddr], racers: &[Arc<Racer>]) -> Vec<Finish> {
    let track = Arc::new(Track {
        token: token.parse().expect("a server's own token"),
        endpoints: endpoints.to_vec(),
        dialling: Semaphore::new(DIALLING),
        start: Barrier::new(racers.len()),
    });
    runtime.block_on(async {
        let running: Vec<_> =
            racers.iter().map(|racer| tokio::spawn(run(Arc::clone(racer), Arc::clone(&track)))).collect();
        let mut ended = Vec::new();
        for agent in running {
            ended.push(agent.await.expect("an agent comes to an answer"));
        }
        ended
    })
}

/// Where races run.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// What all agents of a race share.
struct Track {
    token: JoinToken,
    endpoints: Vec<SocketAddr>,
    dialling: Semaphore,
    start: Barrier,
}

/// A machine with its keys, which are the same in every race.
pub struct Racer {
    number: usize,
    machine: MachineKey,
    node: NodeKey,
    request: Vec<u8>,
}

/// Keys for so many machines, and descriptors for their connections: here, and in
/// the servers that are started after this, which inherit the limit.
#[must_use]
pub fn racers(count: usize) -> Vec<Arc<Racer>> {
    let allowed = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: allowed.maximum, maximum: allowed.maximum })
        .expect("a soft limit may be raised to the hard one");
    assert!(
        allowed.maximum.is_none_or(|most| most > 2_500),
        "{allowed:?} are too few open files for the race"
    );
    let racer = |number| {
        let node = NodeKey::generate().expect("a key");
        let name = format!("n{number}").parse().expect("a name");
        let request = node.certificate_request(Some(&name)).expect("a request");
        Arc::new(Racer { number, machine: MachineKey::generate().expect("a key"), node, request })
    };
    (0..count).map(racer).collect()
}

/// What came of an agent.
pub struct Finish {
    /// The certificate; none if the token was spent.
    pub issued: Option<Issued>,
    /// How often it came: once, unless its line was cut while it waited for the others.
    pub attempts: u32,
}

/// A place among a server's joins under way, taken by a machine that has heard its
/// challenge and says nothing; free again once this is dropped, or after the server's
/// deadline for a proof.
pub struct Held {
    _line: Box<dyn Enrollment>,
}

/// Takes a place.
///
/// # Panics
/// The server gives none.
#[must_use]
pub fn hold(runtime: &Runtime, token: &str, endpoint: SocketAddr) -> Held {
    let track = Track {
        token: token.parse().expect("a server's own token"),
        endpoints: vec![endpoint],
        dialling: Semaphore::new(1),
        start: Barrier::new(1),
    };
    let [racer] = racers(1).try_into().unwrap_or_else(|_| unreachable!("one was asked for"));
    let challenged = runtime.block_on(racer.come(&track)).expect("a challenge");
    Held { _line: challenged.line }
}

/// An agent: it comes to the start, waits for all others, and then goes on until
/// it has a certificate or hears that the token is spent.
async fn run(racer: Arc<Racer>, track: Arc<Track>) -> Finish {
    let mut challenged = racer.come(&track).await;
    track.start.wait().await;
    let mut attempts = 1;
    loop {
        let ended = match challenged {
            Ok(challenged) => racer.prove(&track, challenged).await,
            Err(why) => Err(why),
        };
        match ended {
            Ok(issued) => return Finish { issued: Some(issued), attempts },
            Err(why) if why.code() == Code::TokenSpent => return Finish { issued: None, attempts },
            Err(why) => {
                assert!(attempts < MOST_ATTEMPTS, "agent {} has no answer: {}", racer.number, why.cause());
            }
        }
        tokio::time::sleep(Duration::from_millis(100) * attempts).await;
        attempts += 1;
        challenged = racer.come(&track).await;
    }
}

/// A conversation in which the agent's proof is the next word.
struct Challenged {
    line: Box<dyn Enrollment>,
    server_time: Timestamp,
}

impl Racer {
    async fn come(&self, track: &Track) -> Result<Challenged, Diagnosis> {
        let _turn = track.dialling.acquire().await.expect("nobody closes it");
        let endpoint = track.endpoints[self.number % track.endpoints.len()];
        let line = Line::new(endpoint.to_string().parse().expect("an endpoint"));
        let mut line = enrolling(line, &track.token).await?;
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            agent_version: "race".to_owned(),
            mechanisms: vec![Mechanism::Njp1Ed25519],
            token: track.token.id.clone(),
            nonce: Digest::of(&self.request).0,
            key: self.key(),
            certificate_request: Digest::of(&self.request),
            exporter: line.channel().fingerprint(),
        };
        say(&mut *line, EnrollFromAgent::Hello(hello)).await?;
        loop {
            match hear(&mut *line).await? {
                EnrollFromServer::Challenge(challenge) => {
                    return Ok(Challenged { line, server_time: challenge.server_time });
                }
                EnrollFromServer::Queued { .. } => {}
                other @ (EnrollFromServer::ServerProof(_)
                | EnrollFromServer::SubjectWanted(_)
                | EnrollFromServer::Waiting(_)
                | EnrollFromServer::Issued(_)) => panic!("{other:?} instead of Challenge"),
            }
        }
    }

    /// Says its proof, checks the server's, and asks for the certificate.
    async fn prove(&self, track: &Track, challenged: Challenged) -> Result<Issued, Diagnosis> {
        let Challenged { mut line, server_time } = challenged;
        let keys = TokenKeys::of(&track.token);
        let proof = keys.prove_client(line.channel(), &line.transcript());
        say(&mut *line, EnrollFromAgent::ClientProof(proof)).await?;
        let transcript = line.transcript();
        let proved = match hear(&mut *line).await? {
            EnrollFromServer::ServerProof(proved) => proved,
            other @ (EnrollFromServer::Queued { .. }
            | EnrollFromServer::Challenge(_)
            | EnrollFromServer::SubjectWanted(_)
            | EnrollFromServer::Waiting(_)
            | EnrollFromServer::Issued(_)) => panic!("{other:?} instead of ServerProof"),
        };
        let promise = Promise { ca_bundle: proved.ca_bundle.as_bytes(), cluster_id: &proved.cluster_id };
        keys.check_server(line.channel(), &transcript, &promise, &proved.proof)
            .expect("the server's proof holds");

        let signature = self.machine.sign(&machine_message(line.channel(), &transcript));
        let request = CertificateRequest {
            der: self.request.clone(),
            machine_key: self.machine.public_key_spki(),
            machine_signature: signature.to_vec(),
            wanted_name: format!("n{}", self.number),
            wanted_pool: None,
        };
        say(&mut *line, EnrollFromAgent::CertificateRequest(request)).await?;
        let issued = match hear(&mut *line).await? {
            EnrollFromServer::Issued(issued) => issued,
            other @ (EnrollFromServer::Queued { .. }
            | EnrollFromServer::Challenge(_)
            | EnrollFromServer::ServerProof(_)
            | EnrollFromServer::SubjectWanted(_)
            | EnrollFromServer::Waiting(_)) => panic!("{other:?} instead of Issued"),
        };
        let wanted =
            Wanted { key: self.key(), node: &issued.node, ca_bundle: &proved.ca_bundle, now: server_time };
        check_issued(&wanted, &issued.chain).expect("a certificate for this key");
        Ok(issued)
    }

    fn key(&self) -> SpkiHash {
        self.node.spki_hash()
    }
}

async fn enrolling(line: Line, token: &JoinToken) -> Result<Box<dyn Enrollment>, Diagnosis> {
    let stranger = line.call(&token.pin.into_iter().collect::<Vec<_>>()).await?;
    stranger
        .enroll()
        .await
        .map_err(|lost| lost.into_diagnosis(Phase::Initialization, "it opened the conversation"))
}

async fn say(line: &mut dyn Enrollment, said: EnrollFromAgent) -> Result<(), Diagnosis> {
    line.say(said).await.map_err(|lost| lost.into_diagnosis(Phase::Authentication, "it spoke"))
}

async fn hear(line: &mut dyn Enrollment) -> Result<EnrollFromServer, Diagnosis> {
    line.hear(PATIENCE).await.map_err(|lost| lost.into_diagnosis(Phase::Authentication, "it listened"))
}
