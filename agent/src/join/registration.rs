//! Registration: the server learns what the machine can, and the agent says
//! which of the node's own checks do not hold until the Node is Ready.

use std::time::Duration;

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Code, Diagnosis, Retry};
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::book::Book;
use super::configuration::Configured;
use super::initialization::Checks;
use super::progress::Teller;
use crate::jitter;
use crate::ports::server::{Joining, LineError};
use crate::ports::{Host, Standing};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two words to the server while nothing changes.
const REMINDER: Duration = Duration::from_secs(30);

/// Between two looks at the node's checks, where the server does not say.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause between two looks, whatever the server says.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Evidence that the Node is Ready.
pub struct Registered {
    configured: Configured,
    since: Timestamp,
}

impl Registered {
    /// What came before.
    pub(super) const fn configured(&self) -> &Configured {
        &self.configured
    }

    /// Since when, by the server's clock.
    pub(super) const fn since(&self) -> Timestamp {
        self.since
    }
}

/// Registers, and stays until the Node is Ready.
pub(super) async fn run(
    line: &mut dyn Joining,
    configured: Configured,
    host: &dyn Host,
    checks: &dyn Checks,
    book: &Book<'_>,
    teller: &Teller<'_>,
) -> Result<Registered, Diagnosis> {
    let facts = configured.authorized().prepared().facts().clone();
    teller.passing("before-register");
    register(line, &facts, teller).await?;
    let credential = configured.authorized().credential();
    let (node, join, profile) = (credential.node().clone(), credential.join(), configured.profile());
    let standing = Standing::Registered { node: node.clone(), join, profile };
    book.reached(standing, Phase::Registration)?;
    teller.passing("after-register");

    teller.passing("before-ready");
    let since = ready(line, facts, host, checks, teller).await?;
    book.reached(Standing::Ready { node, join, profile, since }, Phase::Registration)?;
    teller.passing("after-ready");
    Ok(Registered { configured, since })
}

async fn register(line: &mut dyn Joining, facts: &HostFacts, teller: &Teller<'_>) -> Result<(), Diagnosis> {
    let registration = JoinFromAgent::Registration(Box::new(facts.clone()));
    line.say(registration).await.map_err(lost("it said what the machine can"))?;
    loop {
        match line.hear(PATIENCE).await.map_err(lost("it waited for Registered"))? {
            JoinFromServer::Registered => {
                teller.going_on();
                return Ok(());
            }
            JoinFromServer::Waiting(why) => teller.waiting(&why),
            other @ (JoinFromServer::Profile(_)
            | JoinFromServer::ConfigurationRecorded
            | JoinFromServer::PodRoutes(_)
            | JoinFromServer::Ready { .. }) => {
                return Err(other.instead_of("Registered").into_diagnosis(Phase::Registration));
            }
        }
    }
}

/// Says how the checks stand, and again when that changes, until Ready. The
/// server says by itself when the Node stands otherwise.
async fn ready(
    line: &mut dyn Joining,
    facts: HostFacts,
    host: &dyn Host,
    checks: &dyn Checks,
    teller: &Teller<'_>,
) -> Result<Timestamp, Diagnosis> {
    let mut failing = checks.health(&facts);
    loop {
        line.say(JoinFromAgent::Health(failing.clone()))
            .await
            .map_err(lost("it said how its checks stand"))?;
        let told = Instant::now();
        let mut look: Option<Instant> = None;
        failing = loop {
            let answer_by = told + if look.is_some() { REMINDER + PATIENCE } else { PATIENCE };
            tokio::select! {
                biased;
                heard = line.hear(answer_by.saturating_duration_since(Instant::now())) => {
                    match heard.map_err(lost("it waited for Ready"))? {
                        JoinFromServer::Ready { since } => {
                            teller.going_on();
                            return Ok(since);
                        }
                        JoinFromServer::Waiting(why) => {
                            teller.waiting(&why);
                            look = Some(Instant::now() + pause(why)?);
                        }
                        other @ (JoinFromServer::Profile(_)
                        | JoinFromServer::ConfigurationRecorded
                        | JoinFromServer::PodRoutes(_)
                        | JoinFromServer::Registered) => {
                            return Err(other.instead_of("Ready").into_diagnosis(Phase::Registration));
                        }
                    }
                }
                () = sleep_until(look.unwrap_or(answer_by)), if look.is_some() => {
                    let now = checks.health(&host.survey().await);
                    if now != failing || told.elapsed() >= REMINDER {
                        break now;
                    }
                    look = Some(Instant::now() + jittered(PAUSE));
                }
            }
        };
    }
}

/// How long to wait before the checks are looked at again.
fn pause(why: Diagnosis) -> Result<Duration, Diagnosis> {
    match why.when_to_retry() {
        Retry::After(after) => Ok(jittered(after.clamp(PAUSE, LONGEST_PAUSE))),
        Retry::Never if why.code() == Code::NodeNotReady => Ok(jittered(PAUSE)),
        Retry::Never => Err(why),
    }
}

fn jittered(pause: Duration) -> Duration {
    pause + jitter::part(pause / 2, jitter::random())
}

fn lost(step: &'static str) -> impl FnOnce(LineError) -> Diagnosis {
    move |error| error.into_diagnosis(Phase::Registration, step)
}
