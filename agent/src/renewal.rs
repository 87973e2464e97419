//! Renewal: when a certificate is renewed, and how. The new key and certificate
//! are kept beside the old pair, which stays good until the new one was used.

use std::time::Duration;

use berth_domain::conversation::Renewed;
use berth_domain::diagnosis::{Diagnosis, Retry};
use berth_domain::identity::NodeIdentity;
use berth_domain::join::JoinId;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;

use crate::certificate::{IssuedProblem, Validity, Wanted, check_issued};
use crate::jitter;
use crate::ports::server::Member;
use crate::ports::{Clock, Held, Issue, Vault};

/// How far a server back-dates certificates for clocks that are behind
/// (SECURITY R30): no part of the life that is shared out.
const BACKDATED: Duration = Duration::from_secs(300);

/// The longest back-off between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// When a certificate is to be renewed: at two thirds of its life, five per cent
/// of it earlier or later as `random`, from 0 to 1, says.
#[must_use]
pub fn due(certificate: Validity, random: f64) -> Timestamp {
    let begins = certificate.not_before.after(BACKDATED).min(certificate.not_after);
    let life = certificate.not_after.since(begins);
    begins.after(life.mul_f64(2.0 / 3.0 - 0.05 + 0.1 * random.clamp(0.0, 1.0)))
}

/// When to try again after `failures` attempts: as the server asked, with a
/// back-off that leaves several attempts within what remains of the life.
#[must_use]
pub fn again(
    now: Timestamp,
    certificate: Validity,
    failures: u32,
    why: &Diagnosis,
    random: f64,
) -> Timestamp {
    let remaining = certificate.not_after.since(now);
    let most = (remaining / 4).clamp(Duration::from_secs(1), LONGEST_PAUSE);
    let asked = match why.when_to_retry() {
        Retry::After(after) => after.min(most),
        Retry::Never => Duration::ZERO,
    };
    now.after(asked.max(jitter::backoff(Duration::from_secs(1), most, failures, random)))
}

/// Renews over a line that stands: the vault's proposed key, its request, and
/// the same checks as for the first certificate. An attempt that is cut off is
/// repeated with the same key, and gets the same answer.
///
/// # Errors
/// The server does not renew, what it sent is not what was asked for, or it
/// cannot be kept: then the old certificate stays in use.
pub async fn renew(
    member: &dyn Member,
    vault: &dyn Vault,
    node: &NodeIdentity,
    join: JoinId,
    clock: &dyn Clock,
) -> Result<Held, Diagnosis> {
    let failed = |error: crate::ports::VaultError| error.into_diagnosis(Phase::Authorization);
    let key = vault.proposed_key().map_err(failed)?;
    let request = key.certificate_request(Some(&node.name)).map_err(|error| failed(error.into()))?;
    let Renewed { chain, ca_bundle } = member
        .renew(&request)
        .await
        .map_err(|error| error.into_diagnosis(Phase::Authorization, "it asked for a new certificate"))?;
    let wanted = Wanted { key: key.spki_hash(), node, ca_bundle: &ca_bundle, now: clock.now() };
    check_issued(&wanted, &chain).map_err(IssuedProblem::diagnosis)?;
    let issue = Issue { chain, ca_bundle, node: node.clone(), join };
    vault.keep(issue).map_err(failed)
}

#[cfg(test)]
mod tests;
