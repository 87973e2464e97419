//! Authorization: policy decides who the machine becomes, a person agrees where
//! one must, the name is bound and recorded, and the certificate signed and
//! checked. Only this file makes [`Authorized`], and only a signer takes it.

mod approval;
pub mod issued;
mod request;

use aws_lc_rs::rand;
use berth_domain::conversation::{CertificateRequest, EnrollFromAgent, EnrollFromServer, Issued, Renewed};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::name::NodeName;
use berth_domain::node::{Binding, CertificateTerms, NodeRecord};
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use berth_telemetry::effect::{Effect, performed};

use self::issued::check_issued;
use self::request::ProvedKey;
use super::authentication::{Authenticated, no_randomness};
use super::{Ending, EnrollLine, World};
use crate::policy::{Policy, SERIAL_BYTES};
use crate::ports::{Clock, Nodes, SignedCertificate};

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
    node: NodeIdentity,
    public_key: Vec<u8>,
    terms: CertificateTerms,
}

impl Authorized {
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
    pub const fn for_tests(node: NodeIdentity, public_key: Vec<u8>, terms: CertificateTerms) -> Self {
        Self { node, public_key, terms }
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
    let request = match line.hear().await? {
        EnrollFromAgent::CertificateRequest(request) => request,
        EnrollFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
        other @ (EnrollFromAgent::Hello(_) | EnrollFromAgent::ClientProof(_)) => {
            return Err(Ending::out_of_order(other.instead_of("CertificateRequest"), Phase::Authorization));
        }
    };
    let (key, machine) = prove(line, &authenticated, &request)?;
    let token = authenticated.token();
    let grant = world.policy.decide(token, &request.wanted_name, request.wanted_pool.as_ref())?;
    let join = authenticated.reserved().join;
    // A join that waits for a person is not the server's work.
    let place = authenticated.into_place();
    let place = if grant.approval {
        drop(place);
        approval::wait(line, join, &grant.identity.name, world).await?;
        None
    } else {
        Some(place)
    };
    let now = world.clock.now();
    let binding = Binding {
        identity: grant.identity.clone(),
        machine,
        key: key.hash(),
        join,
        labels: grant.labels,
        taints: grant.taints,
        certificate: fresh_terms(world.policy, now)?,
        renewal: false,
        quota: world.policy.certificates_per_name_and_hour,
    };
    let signed = bind_and_sign(world, &binding, key, now).await?;
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
    let key = request::parse(der)?;
    let now = world.clock.now();
    let binding = Binding {
        identity: node.identity.clone(),
        machine: node.machine,
        key: key.hash(),
        join: node.join,
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        certificate: fresh_terms(world.policy, now)?,
        renewal: true,
        quota: world.policy.certificates_per_name_and_hour,
    };
    let signed = bind_and_sign(world, &binding, key, now).await?;
    Ok(Renewed { chain: signed.chain, ca_bundle: world.signer.ca_bundle().to_string() })
}

/// The key is the one that Hello named, and the machine signed this conversation.
fn prove(
    line: &dyn EnrollLine,
    authenticated: &Authenticated,
    request: &CertificateRequest,
) -> Result<(ProvedKey, MachineId), Diagnosis> {
    let hello = authenticated.hello();
    let key = request::parse_as_announced(&request.der, hello.certificate_request, hello.key)?;
    let machine = request::machine(
        &request.machine_key,
        &request.machine_signature,
        line.channel(),
        authenticated.transcript(),
    )?;
    Ok((key, machine))
}

fn fresh_terms(policy: &Policy, now: Timestamp) -> Result<CertificateTerms, Diagnosis> {
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| no_randomness(Phase::Authorization))?;
    Ok(policy.terms(serial, now))
}

/// The one way to a certificate: bound and recorded first, then signed at the
/// one call site, then checked again against what was authorized.
async fn bind_and_sign(
    world: &World<'_>,
    binding: &Binding,
    key: ProvedKey,
    now: Timestamp,
) -> Result<SignedCertificate, Ending> {
    let port = |error| Ending::from_port(error, Phase::Authorization, world.clock);
    performed(Effect::Bind, async { world.cluster.bind(binding, now).await.map_err(port) }).await?;
    let authorized = Authorized {
        node: binding.identity.clone(),
        public_key: key.into_der(),
        terms: binding.certificate.clone(),
    };
    let signed =
        performed(Effect::Sign, async { world.signer.sign(&authorized).await.map_err(port) }).await?;
    check_issued(&authorized, &signed.chain, &world.signer.ca_bundle()).map_err(|problem| {
        Diagnosis::new(Code::CertificateRejected, Phase::Authorization).with("problem", problem)
    })?;
    Ok(signed)
}
