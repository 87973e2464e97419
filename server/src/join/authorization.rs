//! Authorization: policy decides who the machine becomes, a person agrees where
//! one must, the name is bound and recorded, and the certificate signed and
//! checked. Only this file makes [`Authorized`], and only a signer takes it.

mod approval;
pub mod issued;
mod request;
mod signing;

use aws_lc_rs::rand;
use berth_domain::conversation::{CertificateRequest, EnrollFromAgent, EnrollFromServer, Issued, Renewed};
use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::join::JoinId;
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, CertificateTerms, NodeRecord};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::Claim;
use berth_telemetry::effect::{Effect, performed};

use self::request::ProvedRequest;
use super::authentication::{Authenticated, no_randomness};
use super::{Ending, EnrollLine, World, origin_of};
use crate::policy::SERIAL_BYTES;
use crate::ports::{Clock, Nodes, Takes};

/// Evidence that policy allows a certificate, bound and recorded. The signer's
/// only argument; nobody else can make one:
///
/// ```compile_fail
/// use berth_server::join::authorization::Authorized;
/// fn skip_policy(node: berth_domain::identity::NodeIdentity) -> Authorized {
///     Authorized { node, public_key: Vec::new() }
/// }
/// ```
#[derive(Debug)]
pub struct Authorized {
    join: JoinId,
    node: NodeIdentity,
    request: Vec<u8>,
    public_key: Vec<u8>,
    terms: CertificateTerms,
}

impl Authorized {
    /// The join that it belongs to.
    #[must_use]
    pub const fn join(&self) -> JoinId {
        self.join
    }

    /// The machine's own request, PKCS #10 DER, by which it proved the key. For
    /// signers that hand it on ([`Takes::Request`]); then it names exactly the node.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Who the certificate names.
    #[must_use]
    pub const fn node(&self) -> &NodeIdentity {
        &self.node
    }

    /// The key it is for: a DER SubjectPublicKeyInfo whose possession was proved.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Serial number and validity.
    #[must_use]
    pub const fn terms(&self) -> &CertificateTerms {
        &self.terms
    }

    /// The key's hash.
    #[must_use]
    pub fn key(&self) -> SpkiHash {
        SpkiHash::of(&self.public_key)
    }

    /// One for tests of signers.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub fn for_tests(node: NodeIdentity, public_key: Vec<u8>, terms: CertificateTerms) -> Self {
        Self::for_tests_by_request(node, Vec::new(), public_key, terms)
    }

    /// One for tests of signers that hand requests on.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub fn for_tests_by_request(
        node: NodeIdentity,
        request: Vec<u8>,
        public_key: Vec<u8>,
        terms: CertificateTerms,
    ) -> Self {
        let key = SpkiHash::of(&public_key);
        // Any token will do.
        let token = berth_domain::token::JoinToken::mint(
            &zeroize::Zeroizing::new([1; berth_domain::token::MINT_ENTROPY]),
            key,
        );
        Self { join: JoinId::of(&token.id, key), node, request, public_key, terms }
    }
}

/// Evidence on connection 2: a caller whose verified certificate is that of a
/// known, unbanned node. The second door into what authorization guards.
#[derive(Debug)]
pub struct Member(NodeRecord);

impl Member {
    /// The node as it stood when it came in.
    #[must_use]
    pub const fn node(&self) -> &NodeRecord {
        &self.0
    }
}

/// Lets the holder of a verified certificate in.
///
/// # Errors
/// The node is unknown, banned, or its key was replaced; or the store is away.
pub async fn admit(
    nodes: &(impl Nodes + ?Sized),
    name: &NodeName,
    key: SpkiHash,
    clock: &dyn Clock,
) -> Result<Member, Diagnosis> {
    let now = clock.now();
    nodes
        .admit(name, key, now)
        .await
        .map(Member)
        .map_err(|error| error.into_diagnosis(Phase::Authorization, now))
}

/// Decides, binds, signs, checks and hands over.
pub(super) async fn run(
    line: &mut dyn EnrollLine,
    authenticated: Authenticated,
    world: &World<'_>,
) -> Result<Issued, Ending> {
    let asked = asked(line).await?;
    let (wanted_name, wanted_pool) = (asked.wanted_name.clone(), asked.wanted_pool.clone());
    let (request, machine) = prove(line, &authenticated, asked)?;
    let token = authenticated.token();
    let pool = world.profiles.pool(&token.binding.pool).await;
    let pool = pool.map_err(|error| Ending::from_port(error, Phase::Authorization, world.clock))?;
    let grant = world.policy.decide(token, &wanted_name, wanted_pool.as_ref(), pool)?;
    let request = match world.signer.takes() {
        Takes::Request if !request.is_exactly_for(&grant.identity) => {
            with_subject(line, &authenticated, machine, &grant.identity).await?
        }
        Takes::Request | Takes::Key => request,
    };
    let join = authenticated.reserved().join;
    let (hello, caller) = (authenticated.hello(), line.caller());
    let claim = Claim { token: hello.token.clone(), key: hello.key, source: caller.address };
    let origin = origin_of(hello, &caller);
    // A join that waits for a person is not the server's work.
    let mut place = Some(authenticated.into_place());
    if grant.approval {
        place = None;
        approval::wait(line, join, &grant.identity.name, world).await?;
        // The token may have ended or been taken back while a person thought.
        let again = world.cluster.redeem(&claim, &origin, world.clock.now()).await;
        again.map_err(|error| Ending::from_port(error, Phase::Authorization, world.clock))?;
    }
    let now = world.clock.now();
    let binding = Binding {
        identity: grant.identity.clone(),
        machine,
        key: request.hash(),
        join,
        labels: grant.labels,
        taints: grant.taints,
        certificate: fresh_terms(world, now)?,
        renewal: false,
        quota: world.policy.certificates_per_name_and_hour,
    };
    let authorized = bind(world, &binding, request, now).await?;
    let signed = signing::until_signed(line, world, &authorized, &mut place).await?;
    let issued = Issued { chain: signed.chain, node: grant.identity, join };
    line.say(EnrollFromServer::Issued(issued.clone())).await?;
    drop(place);
    Ok(issued)
}

/// Renews a member's certificate for a new key.
///
/// # Errors
/// The request is not acceptable, the machine banned, the quota reached, or
/// something is away.
pub async fn renew(world: &World<'_>, member: &Member, der: &[u8]) -> Result<Renewed, Ending> {
    let node = member.node();
    let request = request::parse(der.to_vec())?;
    if world.signer.takes() == Takes::Request && !request.is_exactly_for(&node.identity) {
        return Err(request::wrong_subject().into());
    }
    let now = world.clock.now();
    let binding = Binding {
        identity: node.identity.clone(),
        machine: node.machine,
        key: request.hash(),
        join: node.join,
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        certificate: fresh_terms(world, now)?,
        renewal: true,
        quota: world.policy.certificates_per_name_and_hour,
    };
    let authorized = bind(world, &binding, request, now).await?;
    let signed = signing::at_once(world, &authorized).await?;
    Ok(Renewed { chain: signed.chain, ca_bundle: world.trust.line().to_string() })
}

/// The agent's request for its certificate.
async fn asked(line: &mut dyn EnrollLine) -> Result<CertificateRequest, Ending> {
    match line.hear().await? {
        EnrollFromAgent::CertificateRequest(request) => Ok(request),
        EnrollFromAgent::GivingUp(why) => Err(Ending::GaveUp(Box::new(why))),
        other @ (EnrollFromAgent::Hello(_) | EnrollFromAgent::ClientProof(_)) => {
            Err(Ending::out_of_order(other.instead_of("CertificateRequest"), Phase::Authorization))
        }
    }
}

/// The key is the one that Hello named, and the machine signed this conversation.
fn prove(
    line: &dyn EnrollLine,
    authenticated: &Authenticated,
    asked: CertificateRequest,
) -> Result<(ProvedRequest, MachineId), Diagnosis> {
    let hello = authenticated.hello();
    let machine = machine(line, authenticated, &asked);
    let request = request::parse_as_announced(asked.der, hello.certificate_request, hello.key)?;
    Ok((request, machine?))
}

fn machine(
    line: &dyn EnrollLine,
    authenticated: &Authenticated,
    asked: &CertificateRequest,
) -> Result<MachineId, Diagnosis> {
    let (channel, transcript) = (line.channel(), authenticated.transcript());
    request::machine(&asked.machine_key, &asked.machine_signature, channel, transcript)
}

/// Asks for the request again, with the granted node as its subject: an agent
/// cannot know the name before. Key and machine stay what they were proved to be.
async fn with_subject(
    line: &mut dyn EnrollLine,
    authenticated: &Authenticated,
    proved: MachineId,
    node: &NodeIdentity,
) -> Result<ProvedRequest, Ending> {
    line.say(EnrollFromServer::SubjectWanted(node.clone())).await?;
    let again = asked(line).await?;
    if machine(line, authenticated, &again)? != proved {
        return Err(request::invalid("its machine key is not that of the first").into());
    }
    let request = request::parse_for(again.der, authenticated.hello().key)?;
    match request.is_exactly_for(node) {
        true => Ok(request),
        false => Err(request::wrong_subject().into()),
    }
}

fn fresh_terms(world: &World<'_>, now: Timestamp) -> Result<CertificateTerms, Diagnosis> {
    if world.signer.takes() == Takes::Request {
        return Ok(world.policy.outer_terms(now));
    }
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| no_randomness(Phase::Authorization))?;
    Ok(world.policy.terms(serial, now))
}

/// The one way to a certificate begins here: bound and recorded first. `signing`
/// has the one call of the signer.
async fn bind(
    world: &World<'_>,
    binding: &Binding,
    request: ProvedRequest,
    now: Timestamp,
) -> Result<Authorized, Ending> {
    let port = |error| Ending::from_port(error, Phase::Authorization, world.clock);
    performed(Effect::Bind, async { world.cluster.bind(binding, now).await.map_err(port) }).await?;
    let (request, public_key) = request.into_parts();
    Ok(Authorized {
        join: binding.join,
        node: binding.identity.clone(),
        request,
        public_key,
        terms: binding.certificate.clone(),
    })
}
