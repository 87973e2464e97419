//! Authentication: the agent proves that it knows the token, then believes the
//! server only if it proves the same, over the same channel (njp/1). Until then
//! nothing the server says is kept.

use std::time::Duration;

use aws_lc_rs::rand;
use berth_domain::conversation::{
    EnrollFromAgent, EnrollFromServer, Hello, Mechanism, Nonce, OutOfOrder, PROTOCOL_VERSION, ServerProof,
};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::identity::{Digest, SpkiHash};
use berth_domain::phase::Phase;
use berth_domain::proof::{NONCE_BYTES, Promise, TokenKeys};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::JoinToken;

use super::initialization::Prepared;
use super::progress::Teller;
use crate::certificate::check_bundle;
use crate::ports::Clock;
use crate::ports::server::{Enrollment, LineError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much longer than promised the next word on a queue may take.
const QUEUE_SLACK: Duration = Duration::from_secs(20);

/// How far this machine's clock may be behind: certificates are back-dated by
/// this much (SECURITY R30).
const MOST_BEHIND: Duration = Duration::from_secs(300);

/// How far it may be ahead: certificates live hours.
const MOST_AHEAD: Duration = Duration::from_secs(1800);

/// What the agent brings to the proof.
pub(super) struct Claim<'a> {
    pub(super) token: &'a JoinToken,
    pub(super) pins: &'a [SpkiHash],
    pub(super) key: SpkiHash,
    pub(super) certificate_request: Digest,
    pub(super) agent_version: &'a str,
}

/// How the server's clock stands to this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// By how much.
    pub by: Duration,
    /// Whether this machine's clock is behind the server's.
    pub behind: bool,
}

/// Evidence that the server knows the token too, and what it promised with that.
/// Only this file can make one:
///
/// ```compile_fail
/// use berth_agent::join::authentication::Authenticated;
/// fn skip_the_proof(ca_bundle: String) -> Authenticated {
///     Authenticated { ca_bundle }
/// }
/// ```
pub struct Authenticated {
    prepared: Prepared,
    ca_bundle: String,
    cluster_id: String,
    transcript: Digest,
    offset: ClockOffset,
}

impl Authenticated {
    /// The CA certificates to trust, PEM.
    pub(super) fn ca_bundle(&self) -> &str {
        &self.ca_bundle
    }

    /// The cluster.
    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The conversation up to the agent's proof.
    pub(super) const fn transcript(&self) -> &Digest {
        &self.transcript
    }

    /// How the clocks stand to each other.
    pub(super) const fn offset(&self) -> ClockOffset {
        self.offset
    }

    /// What came before.
    pub(super) fn into_prepared(self) -> Prepared {
        self.prepared
    }
}

impl ClockOffset {
    fn between(server: Timestamp, local: Timestamp) -> Self {
        let behind = server > local;
        Self { by: if behind { server.since(local) } else { local.since(server) }, behind }
    }

    /// The server's time at a moment of this machine's clock.
    #[must_use]
    pub fn server_time(self, local: Timestamp) -> Timestamp {
        if self.behind { local.after(self.by) } else { local.before(self.by) }
    }
}

/// Proves both sides to each other.
pub(super) async fn run(
    line: &mut dyn Enrollment,
    prepared: Prepared,
    claim: &Claim<'_>,
    clock: &dyn Clock,
    teller: &Teller<'_>,
) -> Result<Authenticated, Diagnosis> {
    let hello = hello(line, claim)?;
    line.say(EnrollFromAgent::Hello(hello)).await.map_err(lost("it said Hello"))?;
    let server_time = challenge(line, teller).await?;
    let offset = ClockOffset::between(server_time, clock.now());

    let keys = TokenKeys::of(claim.token);
    let proof = keys.prove_client(line.channel(), &line.transcript());
    line.say(EnrollFromAgent::ClientProof(proof)).await.map_err(lost("it said ClientProof"))?;
    let transcript = line.transcript();
    let proof = match line.hear(PATIENCE).await.map_err(lost("it waited for ServerProof"))? {
        EnrollFromServer::ServerProof(proof) => proof,
        other @ (EnrollFromServer::Queued { .. }
        | EnrollFromServer::Challenge(_)
        | EnrollFromServer::Waiting(_)
        | EnrollFromServer::SubjectWanted(_)
        | EnrollFromServer::Issued(_)) => {
            return Err(other.instead_of("ServerProof").into_diagnosis(Phase::Authentication));
        }
    };
    let ServerProof { proof, ca_bundle, cluster_id } = proof;
    let promise = Promise { ca_bundle: ca_bundle.as_bytes(), cluster_id: &cluster_id };
    keys.check_server(line.channel(), &transcript, &promise, &proof).map_err(|_| unproved())?;
    check_bundle(&ca_bundle, line.shown(), claim.pins, Phase::Authentication)?;
    check_clock(offset, clock.now())?;
    Ok(Authenticated { prepared, ca_bundle, cluster_id, transcript, offset })
}

fn hello(line: &dyn Enrollment, claim: &Claim<'_>) -> Result<Hello, Diagnosis> {
    let mut nonce: Nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).map_err(|_| {
        Diagnosis::new(Code::Unexplained, Phase::Authentication)
            .with("evidence", "the operating system gave no randomness")
    })?;
    Ok(Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: claim.agent_version.to_owned(),
        mechanisms: vec![Mechanism::Njp1Ed25519],
        token: claim.token.id.clone(),
        nonce,
        key: claim.key,
        certificate_request: claim.certificate_request,
        exporter: line.channel().fingerprint(),
    })
}

/// Waits in the queue, and for the challenge; gives the server's time.
async fn challenge(line: &mut dyn Enrollment, teller: &Teller<'_>) -> Result<Timestamp, Diagnosis> {
    let mut patience = PATIENCE;
    loop {
        match line.hear(patience).await.map_err(lost("it waited for Challenge"))? {
            EnrollFromServer::Challenge(challenge) => {
                teller.going_on();
                // The one mechanism there is: another would not have been a word.
                match challenge.mechanism {
                    Mechanism::Njp1Ed25519 => return Ok(challenge.server_time),
                }
            }
            EnrollFromServer::Queued { position, next_word } => {
                let why = Diagnosis::new(Code::ServerBusy, Phase::Authentication).with("position", position);
                teller.waiting(&why.retry(Retry::After(next_word)));
                patience = next_word.min(PATIENCE).saturating_add(QUEUE_SLACK);
            }
            other @ (EnrollFromServer::ServerProof(_)
            | EnrollFromServer::Waiting(_)
            | EnrollFromServer::SubjectWanted(_)
            | EnrollFromServer::Issued(_)) => {
                return Err(other.instead_of("Challenge").into_diagnosis(Phase::Authentication));
            }
        }
    }
}

/// A clock that is far off would make the certificate that is about to be issued
/// useless on this machine; the join goes on once it is set.
fn check_clock(offset: ClockOffset, local: Timestamp) -> Result<(), Diagnosis> {
    let most = if offset.behind { MOST_BEHIND } else { MOST_AHEAD };
    if offset.by <= most {
        return Ok(());
    }
    let by = Duration::from_secs(offset.by.as_secs());
    Err(Diagnosis::new(Code::ClockWrong, Phase::Authentication)
        .with("offset", humantime::format_duration(by))
        .with("found", local)
        .with("wanted", offset.server_time(local)))
}

/// Somebody in the middle, or somebody else's server.
fn unproved() -> Diagnosis {
    let expected = "a proof that the server knows the token";
    OutOfOrder { expected, found: "one that does not hold over this connection".into() }
        .into_diagnosis(Phase::Authentication)
}

fn lost(step: &'static str) -> impl FnOnce(LineError) -> Diagnosis {
    move |error| error.into_diagnosis(Phase::Authentication, step)
}
