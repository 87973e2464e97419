//! Initialization: the host is surveyed, checked and prepared. Nothing of what
//! is found leaves the machine here: no server has proved itself yet.

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;

use super::progress::Teller;
use crate::plan::{self, Installed};
use crate::ports::{ApplyError, Clock, Host};

/// What is asked of the machine.
pub trait Checks: Send + Sync {
    /// The checks that stop a join before anybody is called, most important first.
    /// Empty if it is fit.
    fn preflight(&self, facts: &HostFacts) -> Vec<Diagnosis>;

    /// What of the machine does not fit the kubelet that the profile wants, most
    /// important first. Empty if it fits.
    fn fits(&self, profile: &Profile, facts: &HostFacts, installed: &Installed) -> Vec<Diagnosis>;

    /// What keeps the Node from being Ready. Empty if all is well.
    fn health(&self, facts: &HostFacts) -> Vec<Diagnosis>;
}

/// Evidence that the host is fit and prepared.
pub struct Prepared {
    facts: Box<HostFacts>,
    lacking: Option<Diagnosis>,
}

impl Prepared {
    /// What was found on the host.
    pub(super) fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// What the running kernel has refused. A node needs it and the way to the server
    /// does not: the join goes on to where operators see what it waits for.
    pub(super) const fn lacking(&self) -> Option<&Diagnosis> {
        self.lacking.as_ref()
    }
}

/// Surveys, checks and prepares.
pub(super) async fn run(
    host: &dyn Host,
    checks: &dyn Checks,
    clock: &dyn Clock,
    teller: &Teller<'_>,
) -> Result<Prepared, Diagnosis> {
    let facts = Box::new(host.survey().await);
    if let Some(why) = checks.preflight(&facts).into_iter().next() {
        return Err(why);
    }
    teller.passing("before-prepare");
    let lacking =
        prepare(host, &facts, clock).map_err(|error| error.into_diagnosis(Phase::Initialization))?;
    teller.passing("after-prepare");
    Ok(Prepared { facts, lacking })
}

/// Makes the host's files stand and sets its kernel up; what the kernel refuses is no
/// error, but lacking.
pub(super) fn prepare(
    host: &dyn Host,
    facts: &HostFacts,
    clock: &dyn Clock,
) -> Result<Option<Diagnosis>, ApplyError> {
    match host.apply(&plan::host(facts), clock.now()) {
        Ok(_) => Ok(None),
        Err(error) if error.is_of_the_kernel() => Ok(Some(error.into_diagnosis(Phase::Initialization))),
        Err(error) => Err(error),
    }
}
