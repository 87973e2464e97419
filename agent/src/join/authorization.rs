//! Authorization: the agent asks for its certificate, holds what it gets against
//! what it asked for and what was proved, keeps it, forgets the token, and comes
//! back with it over mutual TLS. Who holds a certificate already enters by the
//! second door, [`resume`].

use std::time::Duration;

use berth_domain::conversation::{CertificateRequest, EnrollFromAgent, EnrollFromServer, Issued};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::name::PoolName;
use berth_domain::phase::Phase;
use berth_domain::proof::machine_message;
use berth_domain::timestamp::Timestamp;

use super::TokenSource;
use super::authentication::{Authenticated, ClockOffset};
use super::book::Book;
use super::initialization::Prepared;
use super::progress::Teller;
use crate::certificate::{IssuedProblem, Wanted, check_issued};
use crate::ports::server::{Enrollment, LineError, Member, Server};
use crate::ports::{Clock, Credential, Issue, MachineKey, NodeKey, Standing, Vault, VaultError};

/// How long the next word may take: the server says again and again that it waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine's keys, and the request that Hello has announced.
pub(super) struct Keys {
    pub(super) machine: MachineKey,
    pub(super) node: NodeKey,
    pub(super) request: Vec<u8>,
}

/// What the machine would like to be; policy decides.
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    pub(super) pool: Option<&'a PoolName>,
}

/// Where what was issued is kept, and the token no longer is.
pub(super) struct Keeping<'a> {
    pub(super) vault: &'a dyn Vault,
    pub(super) book: &'a Book<'a>,
    pub(super) token: &'a dyn TokenSource,
}

/// Evidence that this machine holds a certificate that a proved server issued.
/// Only this file can make one.
pub struct Authorized {
    prepared: Prepared,
    credential: Credential,
    offset: Option<ClockOffset>,
}

impl Authorized {
    /// What the machine is known by.
    pub(super) const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What was found on the host.
    pub(super) const fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// How the clocks stood to each other, if this run has asked.
    pub(super) const fn offset(&self) -> Option<ClockOffset> {
        self.offset
    }
}

/// Asks, checks, keeps, forgets.
pub(super) async fn run(
    line: &mut dyn Enrollment,
    authenticated: Authenticated,
    keys: &Keys,
    wish: &Wish<'_>,
    keeping: &Keeping<'_>,
    clock: &dyn Clock,
    teller: &Teller<'_>,
) -> Result<Authorized, Diagnosis> {
    let signed = machine_message(line.channel(), authenticated.transcript());
    let request = CertificateRequest {
        der: keys.request.clone(),
        machine_key: keys.machine.public_key_spki(),
        machine_signature: keys.machine.sign(&signed).to_vec(),
        wanted_name: wish.name.to_owned(),
        wanted_pool: wish.pool.cloned(),
    };
    ask(line, request.clone()).await?;
    let Issued { chain, node, join } = issued(line, &keys.node, request, teller).await?;
    let wanted = Wanted {
        key: keys.node.spki_hash(),
        node: &node,
        ca_bundle: authenticated.ca_bundle(),
        now: authenticated.offset().server_time(clock.now()),
    };
    check_issued(&wanted, &chain).map_err(IssuedProblem::diagnosis)?;

    let issue = Issue { chain, ca_bundle: authenticated.ca_bundle().to_owned(), node, join };
    let offset = Some(authenticated.offset());
    let credential = keep(issue, keeping, teller)?;
    Ok(Authorized { prepared: authenticated.into_prepared(), credential, offset })
}

/// The second door: a certificate from an earlier run is as good, until it ends.
///
/// # Errors
/// `CERTIFICATE_EXPIRED`, by this machine's clock: TLS would only say that it
/// failed.
pub(super) fn resume(
    prepared: Prepared,
    credential: Credential,
    now: Timestamp,
) -> Result<Authorized, Diagnosis> {
    check_life(&credential, now)?;
    Ok(Authorized { prepared, credential, offset: None })
}

/// Comes back with the certificate, over mutual TLS.
pub(super) async fn enter(
    server: &dyn Server,
    authorized: &Authorized,
) -> Result<Box<dyn Member>, Diagnosis> {
    server.enter(&authorized.credential).await
}

/// Whether a certificate's time is over.
///
/// # Errors
/// `CERTIFICATE_EXPIRED`.
pub(crate) fn check_life(credential: &Credential, now: Timestamp) -> Result<(), Diagnosis> {
    if now < credential.not_after() {
        return Ok(());
    }
    Err(Diagnosis::new(Code::CertificateExpired, Phase::Authorization)
        .with("expired", credential.not_after())
        .with("name", &credential.node().name))
}

async fn ask(line: &mut dyn Enrollment, request: CertificateRequest) -> Result<(), Diagnosis> {
    let said = EnrollFromAgent::CertificateRequest(request);
    line.say(said).await.map_err(lost("it said CertificateRequest"))
}

/// Waits for the certificate. A server whose signer takes the name from the
/// request may ask once for one with the name that it has decided on.
async fn issued(
    line: &mut dyn Enrollment,
    key: &NodeKey,
    request: CertificateRequest,
    teller: &Teller<'_>,
) -> Result<Issued, Diagnosis> {
    let mut request = Some(request);
    loop {
        match (line.hear(PATIENCE).await.map_err(lost("it waited for Issued"))?, request.take()) {
            (EnrollFromServer::Issued(issued), _) => {
                teller.going_on();
                return Ok(issued);
            }
            (EnrollFromServer::Waiting(why), kept) => {
                teller.waiting(&why);
                request = kept;
            }
            (EnrollFromServer::SubjectWanted(node), Some(first)) => {
                let der = key
                    .certificate_request(Some(&node.name))
                    .map_err(|error| VaultError::from(error).into_diagnosis(Phase::Authorization))?;
                ask(line, CertificateRequest { der, ..first }).await?;
            }
            (
                other @ (EnrollFromServer::Queued { .. }
                | EnrollFromServer::Challenge(_)
                | EnrollFromServer::ServerProof(_)
                | EnrollFromServer::SubjectWanted(_)),
                _,
            ) => return Err(other.instead_of("Issued").into_diagnosis(Phase::Authorization)),
        }
    }
}

/// From here on the token is of no use: the same key would only get the same.
fn keep(issue: Issue, keeping: &Keeping<'_>, teller: &Teller<'_>) -> Result<Credential, Diagnosis> {
    let standing = Standing::Enrolled { node: issue.node.clone(), join: issue.join };
    teller.passing("before-credential");
    let held = keeping.vault.keep(issue).map_err(|error| error.into_diagnosis(Phase::Authorization))?;
    keeping.book.reached(standing, Phase::Authorization)?;
    teller.passing("after-credential");
    teller.passing("before-token-forgotten");
    keeping.token.forget()?;
    teller.passing("after-token-forgotten");
    Ok(held.current)
}

fn lost(step: &'static str) -> impl FnOnce(LineError) -> Diagnosis {
    move |error| error.into_diagnosis(Phase::Authorization, step)
}
