//! Registration: the server learns what the machine can, gives its Node what a
//! kubelet may not set, and watches it until it is Ready: its own checks hold and
//! nothing is left in the cluster's way.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;
use berth_domain::pods::{PodNetwork, PodRoutes};
use berth_domain::timestamp::Timestamp;
use berth_telemetry::propagation::trace_id;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use super::configuration::Configured;
use super::{Ending, JoinLine, World};
use crate::ports::{Answer, Observation, Registry};

/// How long an agent may say nothing while its Node is waited for: it says every
/// 30 seconds how its checks stand.
const SILENCE: Duration = Duration::from_secs(120);

/// Between two looks while nobody says anything.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Registers the Node and waits until it is Ready.
pub(super) async fn run(
    line: &mut dyn JoinLine,
    configured: Configured<'_>,
    world: &World<'_>,
) -> Result<(), Ending> {
    let port = |error| Ending::from_port(error, Phase::Registration, world.clock);
    let node = configured.member().node();
    let name = &node.identity.name;
    let facts = Arc::new(facts(line.hear().await?)?);
    let registered = Observation::Registered { facts };
    world.cluster.observe(name, registered, world.clock.now()).await.map_err(port)?;
    line.say(JoinFromServer::Registered).await?;

    // Watched before it is first looked at, so that no change falls between.
    let mut changes = world.registry.watch(name);
    let mut routes = Routes::of(world.registry, name, configured.network());
    let mut failing = health(line.hear().await?)?;
    let mut heard = Some(Instant::now());
    let (mut last_heard, mut told, mut waits) = (Instant::now(), None, None);
    let trace = trace_id(&Span::current());
    loop {
        changes.borrow_and_update();
        let now = world.clock.now();
        if let Some(routes) = routes.news() {
            line.say(JoinFromServer::PodRoutes(routes)).await?;
        }
        world.registry.vouch(node, line.from(), now).await.map_err(port)?;
        let settled = in_the_way(world.registry, node, &failing, trace.as_deref(), now).await;
        let Some(why) = settled.map_err(port)? else {
            drop(waits);
            world.cluster.observe(name, Observation::Ready, now).await.map_err(port)?;
            return line.say(JoinFromServer::Ready { since: now }).await;
        };
        // A question is always answered; what nobody asked, only when it is news.
        if heard.is_some() || told.as_ref() != Some(&why) {
            let observed = Observation::NotReady { why: why.clone() };
            world.cluster.observe(name, observed, now).await.map_err(port)?;
            line.say(JoinFromServer::Waiting(why.clone())).await?;
            waits = Some(world.metrics.waiting(why.code()));
            told = Some(why);
        }
        heard = tokio::select! {
            said = line.hear() => {
                failing = health(said?)?;
                Some(Instant::now())
            }
            // The registry outlives every join: the watch does not close.
            _ = changes.changed() => None,
            () = routes.changed() => None,
            // Some reasons are not seen on the Node, but looked for.
            () = tokio::time::sleep(LOOK_AGAIN) => None,
        };
        last_heard = heard.unwrap_or(last_heard);
        if last_heard.elapsed() > SILENCE {
            let step = format!("the server heard nothing for {} s", SILENCE.as_secs());
            return Err(Diagnosis::new(Code::AgentLost, Phase::Registration).with("step", step).into());
        }
    }
}

/// Where pods are, as far as a node has not been told; nothing for a node whose
/// network somebody else makes.
pub struct Routes<'a> {
    registry: &'a dyn Registry,
    node: &'a NodeName,
    changes: Option<watch::Receiver<u64>>,
    told: Option<PodRoutes>,
}

impl<'a> Routes<'a> {
    /// Nothing is told yet.
    pub fn of(registry: &'a dyn Registry, node: &'a NodeName, network: PodNetwork) -> Self {
        let changes = match network {
            PodNetwork::Bridge => Some(registry.routes_changed()),
            PodNetwork::None => None,
        };
        Self { registry, node, changes, told: None }
    }

    /// What the node must be told now, if that is news.
    pub fn news(&mut self) -> Option<PodRoutes> {
        self.changes.as_mut()?.borrow_and_update();
        let routes = self.registry.routes(self.node)?;
        if self.told.as_ref() == Some(&routes) {
            return None;
        }
        self.told = Some(routes.clone());
        Some(routes)
    }

    /// Waits until there may be news.
    pub async fn changed(&mut self) {
        match &mut self.changes {
            // The registry outlives every line: the watch does not close.
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    }
}

/// What keeps a node from Ready. The machine's own checks come first: they are
/// nearer to the cause.
///
/// # Errors
/// The cluster is away.
pub async fn in_the_way(
    registry: &dyn Registry,
    node: &NodeRecord,
    failing: &[Diagnosis],
    trace: Option<&str>,
    now: Timestamp,
) -> Answer<Option<Diagnosis>> {
    match failing.first() {
        Some(why) => Ok(Some(why.clone())),
        None => registry.settle(node, trace, now).await,
    }
}

fn facts(said: JoinFromAgent) -> Result<HostFacts, Ending> {
    match said {
        JoinFromAgent::Registration(facts) => Ok(*facts),
        JoinFromAgent::GivingUp(why) => Err(Ending::GaveUp(Box::new(why))),
        other @ (JoinFromAgent::ProfileRequest { .. }
        | JoinFromAgent::Configured { .. }
        | JoinFromAgent::Health(_)) => {
            Err(Ending::out_of_order(other.instead_of("Registration"), Phase::Registration))
        }
    }
}

fn health(said: JoinFromAgent) -> Result<Vec<Diagnosis>, Ending> {
    match said {
        JoinFromAgent::Health(failing) => Ok(failing),
        JoinFromAgent::GivingUp(why) => Err(Ending::GaveUp(Box::new(why))),
        other @ (JoinFromAgent::ProfileRequest { .. }
        | JoinFromAgent::Configured { .. }
        | JoinFromAgent::Registration(_)) => {
            Err(Ending::out_of_order(other.instead_of("Health"), Phase::Registration))
        }
    }
}
