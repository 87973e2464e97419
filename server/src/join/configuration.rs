//! Configuration: the node gets its profile, and says when it has applied it.

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::identity::Digest;
use berth_domain::join::Event;
use berth_domain::phase::Phase;
use berth_domain::pods::PodNetwork;

use super::authorization::Member;
use super::{Ending, JoinLine, World};
use crate::ports::{Clock, Cluster, Observation};

/// Evidence that a member has applied its profile.
pub struct Configured<'a> {
    member: &'a Member,
    network: PodNetwork,
}

impl<'a> Configured<'a> {
    /// Who.
    pub(super) const fn member(&self) -> &'a Member {
        self.member
    }

    /// Who makes the network of its pods.
    pub(super) const fn network(&self) -> PodNetwork {
        self.network
    }
}

/// Hands out the profile and records that it was applied.
pub(super) async fn run<'a>(
    line: &mut dyn JoinLine,
    member: &'a Member,
    world: &World<'_>,
) -> Result<Configured<'a>, Ending> {
    let World { cluster, clock, .. } = *world;
    let port = |error| Ending::from_port(error, Phase::Configuration, clock);
    let node = member.node();
    let architecture = match line.hear().await? {
        JoinFromAgent::ProfileRequest { architecture, .. } => architecture,
        JoinFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
        other @ (JoinFromAgent::Configured { .. }
        | JoinFromAgent::Registration(_)
        | JoinFromAgent::Health(_)) => {
            return Err(Ending::out_of_order(other.instead_of("ProfileRequest"), Phase::Configuration));
        }
    };
    let mut profile = world.profiles.profile(node).await.map_err(port)?;
    if let Some(architecture) = architecture {
        let bundle = world.software.belonging(&node.identity.pool, architecture);
        profile.bundle = bundle.map_err(port)?;
    }
    profile.check().map_err(|problem| {
        Diagnosis::new(Code::ProfileInvalid, Phase::Configuration)
            .with("field", problem.field)
            .with("problem", problem)
    })?;
    let network = profile.network;
    line.say(JoinFromServer::Profile(Box::new(profile))).await?;
    let applied = applied(line, member, cluster, clock).await?;
    let observed = Observation::Configured { profile: applied };
    cluster.observe(&node.identity.name, observed, clock.now()).await.map_err(port)?;
    line.say(JoinFromServer::ConfigurationRecorded).await?;
    Ok(Configured { member, network })
}

/// Waits until the profile is applied; what keeps the agent from it is recorded.
async fn applied(
    line: &mut dyn JoinLine,
    member: &Member,
    cluster: &dyn Cluster,
    clock: &dyn Clock,
) -> Result<Digest, Ending> {
    loop {
        match line.hear().await? {
            JoinFromAgent::Configured { profile } => return Ok(profile),
            JoinFromAgent::Health(failing) => {
                let Some(why) = failing.into_iter().next() else { continue };
                let node = member.node();
                let event = Event::Waiting { why };
                cluster
                    .record(node.join, Some(&node.identity.name), event, clock.now())
                    .await
                    .map_err(|error| Ending::from_port(error, Phase::Configuration, clock))?;
            }
            JoinFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
            other @ (JoinFromAgent::ProfileRequest { .. } | JoinFromAgent::Registration(_)) => {
                return Err(Ending::out_of_order(other.instead_of("Configured"), Phase::Configuration));
            }
        }
    }
}
