//! Initialization: the host is surveyed, checked and prepared. Nothing of what
//! is found leaves the machine here: no server has proved itself yet.

use berth_domain::diagnosis::Diagnosis;
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;

use super::progress::Teller;
use crate::plan::{self, Installed};
use crate::ports::{Clock, Host};

/// What is asked of the machine.
pub trait Checks: Send + Sync {
    /// The checks that stop a join, most important first. Empty if it is fit.
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
}

impl Prepared {
    /// What was found on the host.
    pub(super) fn facts(&self) -> &HostFacts {
        &self.facts
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
    let plan = plan::host(&facts);
    teller.passing("before-prepare");
    host.apply(&plan, clock.now()).map_err(|error| error.into_diagnosis(Phase::Initialization))?;
    teller.passing("after-prepare");
    Ok(Prepared { facts })
}
