//! Registration: the node's programs are started, the server learns what the machine
//! can, and the agent says what is wrong with it until the Node is Ready.

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
use super::network::PodNetwork;
use super::progress::Teller;
use crate::jitter;
use crate::ports::server::{Joining, LineError};
use crate::ports::{Clock, Host, Services, Standing};

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

/// The machine as registration sees it.
pub(super) struct Machine<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) checks: &'a dyn Checks,
    pub(super) services: &'a dyn Services,
    pub(super) clock: &'a dyn Clock,
}

/// Starts the node's programs, registers, and stays until the Node is Ready.
pub(super) async fn run(
    line: &mut dyn Joining,
    configured: Configured,
    machine: &Machine<'_>,
    book: &Book<'_>,
    teller: &Teller<'_>,
) -> Result<Registered, Diagnosis> {
    let facts = configured.facts();
    teller.passing("before-register");
    // First: the kubelet takes its time, and meanwhile the server is told.
    let start = Start { services: machine.services, configured: &configured };
    let begun = start.attempt().await;
    register(line, facts, teller).await?;
    let credential = configured.authorized().credential();
    let (node, join, profile) = (credential.node().clone(), credential.join(), configured.profile());
    let standing = Standing::Registered { node: node.clone(), join, profile };
    book.reached(standing, Phase::Registration)?;
    teller.passing("after-register");

    teller.passing("before-ready");
    let failing = Failing {
        checks: machine.checks.health(facts),
        started: begun.is_none(),
        programs: begun.into_iter().collect(),
        network: None,
    };
    let since = ready(line, failing, machine, &start, teller).await?;
    book.reached(Standing::Ready { node, join, profile, since }, Phase::Registration)?;
    teller.passing("after-ready");
    Ok(Registered { configured, since })
}

/// The start of the node's programs, as often as it takes.
struct Start<'a> {
    services: &'a dyn Services,
    configured: &'a Configured,
}

impl Start<'_> {
    /// What stands in its way, if anything.
    async fn attempt(&self) -> Option<Diagnosis> {
        self.services.start(self.configured.plan(), self.configured.expected()).await.err()
    }
}

/// What keeps the Node from being Ready, as this machine sees it.
#[derive(Clone, PartialEq)]
struct Failing {
    checks: Vec<Diagnosis>,
    /// What is wrong with its programs; while they could not be started, why.
    programs: Vec<Diagnosis>,
    started: bool,
    /// What keeps the network of its pods from being laid.
    network: Option<Diagnosis>,
}

impl Failing {
    fn all(&self) -> Vec<Diagnosis> {
        self.network.iter().chain(&self.programs).chain(&self.checks).cloned().collect()
    }
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

/// Says how the checks and programs stand, and again when that changes, until Ready.
/// The server says by itself when the Node stands otherwise.
async fn ready(
    line: &mut dyn Joining,
    mut failing: Failing,
    machine: &Machine<'_>,
    start: &Start<'_>,
    teller: &Teller<'_>,
) -> Result<Timestamp, Diagnosis> {
    let mut network = PodNetwork::new(machine.host, machine.services, machine.clock);
    loop {
        line.say(JoinFromAgent::Health(failing.all())).await.map_err(lost("it said how its checks stand"))?;
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
                        JoinFromServer::PodRoutes(routes) => {
                            network.told(routes).await;
                            let problem = network.problem().await;
                            // Without news nothing is said: the server's Ready may be
                            // on its way, and with it the end of the line.
                            if problem != failing.network {
                                break Failing { network: problem, ..failing };
                            }
                        }
                        other @ (JoinFromServer::Profile(_)
                        | JoinFromServer::ConfigurationRecorded
                        | JoinFromServer::Registered) => {
                            return Err(other.instead_of("Ready").into_diagnosis(Phase::Registration));
                        }
                    }
                }
                () = machine.services.changed(), if failing.started => {
                    let programs = machine.services.failing().await;
                    if programs != failing.programs {
                        break Failing { programs, ..failing };
                    }
                }
                () = sleep_until(look.unwrap_or(answer_by)), if look.is_some() => {
                    let now = look_again(&failing, machine, start, network.problem().await).await;
                    if now != failing || told.elapsed() >= REMINDER {
                        break now;
                    }
                    look = Some(Instant::now() + jittered(PAUSE));
                }
            }
        };
    }
}

/// Looks at the checks again, and starts what could not be started before.
async fn look_again(
    failing: &Failing,
    machine: &Machine<'_>,
    start: &Start<'_>,
    network: Option<Diagnosis>,
) -> Failing {
    let checks = machine.checks.health(&machine.host.survey().await);
    if failing.started {
        return Failing { checks, network, ..failing.clone() };
    }
    let begun = start.attempt().await;
    Failing { checks, started: begun.is_none(), programs: begun.into_iter().collect(), network }
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
