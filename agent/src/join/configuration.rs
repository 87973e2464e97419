//! Configuration: the node's files are planned from its profile and written, all
//! of them or none. Where one cannot be written, the join waits here and the
//! operators see why.

mod software;

use std::time::Duration;

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::facts::HostFacts;
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;
use tokio::time::{Instant, sleep};

use super::authorization::Authorized;
use super::book::Book;
use super::initialization::{self, Checks};
use super::progress::Teller;
use crate::jitter;
use crate::plan::{self, Expected, Installed, Plan};
use crate::ports::server::{Joining, LineError};
use crate::ports::{Clock, Depot, Host, Standing, Supplier};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two words to the server on the same obstacle: well within the time
/// it gives for a step.
const REMINDER: Duration = Duration::from_secs(30);

/// Between two attempts to write, and two looks whether the machine fits: somebody
/// has to mend it.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a profile is waited with that the machine does not fit: then it is asked
/// for again, since it may be what was mended.
const PROFILE_AGE: Duration = Duration::from_secs(10);

/// Evidence that the node's files stand, and that the server knows it.
pub struct Configured {
    authorized: Authorized,
    profile: Digest,
    facts: Box<HostFacts>,
    plan: Plan,
    expected: Expected,
}

impl Configured {
    /// What came before.
    pub(super) const fn authorized(&self) -> &Authorized {
        &self.authorized
    }

    /// Digest of the profile in force.
    pub(super) const fn profile(&self) -> Digest {
        self.profile
    }

    /// What was found on the host once its software stood.
    pub(super) fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// The plan that stands: its units are to be started.
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What its programs are expected to reach.
    pub(super) const fn expected(&self) -> &Expected {
        &self.expected
    }
}

/// The machine as configuration sees it.
pub(super) struct Machine<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) checks: &'a dyn Checks,
    /// Where software is kept until it stands.
    pub(super) depot: &'a dyn Depot,
    /// Where software comes from.
    pub(super) supplier: &'a dyn Supplier,
    pub(super) clock: &'a dyn Clock,
}

/// Asks for the profile, has its software stand, waits until the machine fits it,
/// applies it, and says so.
pub(super) async fn run(
    line: &mut dyn Joining,
    authorized: Authorized,
    agent_version: &str,
    machine: &Machine<'_>,
    book: &Book<'_>,
    teller: &Teller<'_>,
) -> Result<Configured, Diagnosis> {
    let request = JoinFromAgent::ProfileRequest {
        agent_version: agent_version.to_owned(),
        architecture: authorized.prepared().facts().arch,
    };
    line.say(request).await.map_err(lost("it asked for its profile"))?;
    let profile = profile(line, teller).await?;
    software::stand(line, &authorized, &profile, machine, teller).await?;
    teller.passing("after-software");
    let found = match profile.bundle {
        Some(_) => machine.host.survey().await,
        None => authorized.prepared().facts().clone(),
    };
    let lacking = authorized.prepared().lacking().cloned();
    let (facts, installed) = fit(line, &profile, (found, lacking), machine, teller).await?;
    let plan = plan::node(&profile, authorized.credential(), &facts, &installed)
        .map_err(|problem| problem.into_diagnosis(Phase::Configuration))?;
    let plan = plan::runtime(&facts, &installed).then(plan);
    teller.passing("before-apply");
    apply(line, &plan, machine, teller).await?;
    let digest = profile.digest();
    let credential = authorized.credential();
    let standing =
        Standing::Configured { node: credential.node().clone(), join: credential.join(), profile: digest };
    book.reached(standing, Phase::Configuration)?;
    teller.passing("after-apply");
    line.say(JoinFromAgent::Configured { profile: digest }).await.map_err(lost("it said Configured"))?;
    recorded(line, teller).await?;
    let expected = plan::expected(&profile, &facts, &installed, &plan);
    Ok(Configured { authorized, profile: digest, facts, plan, expected })
}

async fn profile(line: &mut dyn Joining, teller: &Teller<'_>) -> Result<Profile, Diagnosis> {
    loop {
        match line.hear(PATIENCE).await.map_err(lost("it waited for its profile"))? {
            JoinFromServer::Profile(profile) => {
                teller.going_on();
                return Ok(*profile);
            }
            JoinFromServer::Waiting(why) => teller.waiting(&why),
            other @ (JoinFromServer::ConfigurationRecorded
            | JoinFromServer::Registered
            | JoinFromServer::PodRoutes(_)
            | JoinFromServer::Ready { .. }) => {
                return Err(other.instead_of("Profile").into_diagnosis(Phase::Configuration));
            }
        }
    }
}

/// Waits until the machine fits the profile: what does not is told, and looked at
/// again.
async fn fit(
    line: &mut dyn Joining,
    profile: &Profile,
    (found, mut lacking): (HostFacts, Option<Diagnosis>),
    machine: &Machine<'_>,
    teller: &Teller<'_>,
) -> Result<(Box<HostFacts>, Installed), Diagnosis> {
    let mut obstacle = Obstacle::default();
    let mut facts = Box::new(found);
    let asked = Instant::now();
    loop {
        let installed = machine.host.installed();
        let unfit = machine.checks.fits(profile, &facts, &installed);
        let unfit: Vec<Diagnosis> = lacking.iter().cloned().chain(unfit).collect();
        let Some(first) = unfit.first() else {
            teller.going_on();
            return Ok((facts, installed));
        };
        if asked.elapsed() >= PROFILE_AGE && is_for_the_profile_too(first.code()) {
            return Err(first.clone());
        }
        obstacle.tell(line, unfit, teller, "it said what does not fit").await?;
        *facts = machine.host.survey().await;
        if lacking.is_some() {
            lacking = initialization::prepare(machine.host, &facts, machine.clock)
                .map_err(|error| error.into_diagnosis(Phase::Configuration))?;
        }
    }
}

/// Whether another profile would mend it as well.
const fn is_for_the_profile_too(code: Code) -> bool {
    matches!(code, Code::SwapOn | Code::CgroupVersion1)
}

/// Applies the plan; what stands in the way is told, and tried again. A failed
/// attempt has left everything as it was.
async fn apply(
    line: &mut dyn Joining,
    plan: &Plan,
    machine: &Machine<'_>,
    teller: &Teller<'_>,
) -> Result<(), Diagnosis> {
    let mut obstacle = Obstacle::default();
    loop {
        let why = match machine.host.apply(plan, machine.clock.now()) {
            Ok(_) => break,
            Err(error) => error.into_diagnosis(Phase::Configuration),
        };
        obstacle.tell(line, vec![why], teller, "it said what it cannot write").await?;
    }
    teller.going_on();
    Ok(())
}

/// What stands in the way, told to the server and to who watches.
#[derive(Default)]
struct Obstacle {
    told: Option<(Vec<Diagnosis>, Instant)>,
}

impl Obstacle {
    /// Tells of it, when it is news and now and then, and waits before the next
    /// attempt. A cause that time does not mend ends the join.
    async fn tell(
        &mut self,
        line: &mut dyn Joining,
        why: Vec<Diagnosis>,
        teller: &Teller<'_>,
        step: &'static str,
    ) -> Result<(), Diagnosis> {
        if let Some(first) = why.first() {
            if first.when_to_retry() == Retry::Never {
                return Err(first.clone());
            }
            teller.waiting(first);
        }
        let known = self.told.as_ref().is_some_and(|(before, at)| *before == why && at.elapsed() < REMINDER);
        if !known {
            line.say(JoinFromAgent::Health(why.clone())).await.map_err(lost(step))?;
            self.told = Some((why, Instant::now()));
        }
        sleep(PAUSE + jitter::part(PAUSE, jitter::random())).await;
        Ok(())
    }
}

async fn recorded(line: &mut dyn Joining, teller: &Teller<'_>) -> Result<(), Diagnosis> {
    loop {
        match line.hear(PATIENCE).await.map_err(lost("it waited for ConfigurationRecorded"))? {
            JoinFromServer::ConfigurationRecorded => return Ok(()),
            JoinFromServer::Waiting(why) => teller.waiting(&why),
            other @ (JoinFromServer::Profile(_)
            | JoinFromServer::Registered
            | JoinFromServer::PodRoutes(_)
            | JoinFromServer::Ready { .. }) => {
                return Err(other.instead_of("ConfigurationRecorded").into_diagnosis(Phase::Configuration));
            }
        }
    }
}

fn lost(step: &'static str) -> impl FnOnce(LineError) -> Diagnosis {
    move |error| error.into_diagnosis(Phase::Configuration, step)
}
