//! Configuration: the node's files are planned from its profile and written, all
//! of them or none. Where one cannot be written, the join waits here and the
//! operators see why.

mod software;

use std::time::Duration;

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Diagnosis, Retry};
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use berth_domain::profile::Profile;
use tokio::time::{Instant, sleep};

use super::authorization::Authorized;
use super::book::Book;
use super::progress::Teller;
use crate::jitter;
use crate::plan::{self, Plan};
use crate::ports::server::{Joining, LineError};
use crate::ports::{Clock, Depot, Host, Standing, Supplier};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two words to the server on the same obstacle: well within the time
/// it gives for a step.
const REMINDER: Duration = Duration::from_secs(30);

/// Between two attempts to write.
const PAUSE: Duration = Duration::from_secs(2);

/// Evidence that the node's files stand, and that the server knows it.
pub struct Configured {
    authorized: Authorized,
    profile: Digest,
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
}

/// What configuration works with.
pub(super) struct Means<'a> {
    /// The machine.
    pub(super) host: &'a dyn Host,
    /// Where software is kept until it stands.
    pub(super) depot: &'a dyn Depot,
    /// Where software comes from.
    pub(super) supplier: &'a dyn Supplier,
    /// What time it is.
    pub(super) clock: &'a dyn Clock,
}

/// Asks for the profile, applies it, and says so.
pub(super) async fn run(
    line: &mut dyn Joining,
    authorized: Authorized,
    agent_version: &str,
    means: &Means<'_>,
    book: &Book<'_>,
    teller: &Teller<'_>,
) -> Result<Configured, Diagnosis> {
    let request = JoinFromAgent::ProfileRequest {
        agent_version: agent_version.to_owned(),
        architecture: authorized.prepared().facts().arch,
    };
    line.say(request).await.map_err(lost("it asked for its profile"))?;
    let profile = profile(line, teller).await?;
    software::stand(line, &authorized, &profile, means, teller).await?;
    teller.passing("after-software");
    let plan = plan::node(&profile, authorized.credential(), authorized.prepared().facts())
        .map_err(|problem| problem.into_diagnosis(Phase::Configuration))?;
    teller.passing("before-apply");
    apply(line, &plan, means.host, means.clock, teller).await?;
    let digest = profile.digest();
    let credential = authorized.credential();
    let standing =
        Standing::Configured { node: credential.node().clone(), join: credential.join(), profile: digest };
    book.reached(standing, Phase::Configuration)?;
    teller.passing("after-apply");
    line.say(JoinFromAgent::Configured { profile: digest }).await.map_err(lost("it said Configured"))?;
    recorded(line, teller).await?;
    Ok(Configured { authorized, profile: digest })
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
            | JoinFromServer::Ready { .. }) => {
                return Err(other.instead_of("Profile").into_diagnosis(Phase::Configuration));
            }
        }
    }
}

/// Applies the plan; what stands in the way is told, and tried again. A failed
/// attempt has left everything as it was.
async fn apply(
    line: &mut dyn Joining,
    plan: &Plan,
    host: &dyn Host,
    clock: &dyn Clock,
    teller: &Teller<'_>,
) -> Result<(), Diagnosis> {
    let mut told: Option<(Diagnosis, Instant)> = None;
    loop {
        let why = match host.apply(plan, clock.now()) {
            Ok(_) => break,
            Err(error) => error.into_diagnosis(Phase::Configuration),
        };
        if why.when_to_retry() == Retry::Never {
            return Err(why);
        }
        let known = told.as_ref().is_some_and(|(before, at)| *before == why && at.elapsed() < REMINDER);
        if !known {
            teller.waiting(&why);
            let failing = JoinFromAgent::Health(vec![why.clone()]);
            line.say(failing).await.map_err(lost("it said what it cannot write"))?;
            told = Some((why, Instant::now()));
        }
        sleep(PAUSE + jitter::part(PAUSE, jitter::random())).await;
    }
    teller.going_on();
    Ok(())
}

async fn recorded(line: &mut dyn Joining, teller: &Teller<'_>) -> Result<(), Diagnosis> {
    loop {
        match line.hear(PATIENCE).await.map_err(lost("it waited for ConfigurationRecorded"))? {
            JoinFromServer::ConfigurationRecorded => return Ok(()),
            JoinFromServer::Waiting(why) => teller.waiting(&why),
            other @ (JoinFromServer::Profile(_)
            | JoinFromServer::Registered
            | JoinFromServer::Ready { .. }) => {
                return Err(other.instead_of("ConfigurationRecorded").into_diagnosis(Phase::Configuration));
            }
        }
    }
}

fn lost(step: &'static str) -> impl FnOnce(LineError) -> Diagnosis {
    move |error| error.into_diagnosis(Phase::Configuration, step)
}
