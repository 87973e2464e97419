//! Registration: the Node gets what its machine can, and is watched until it is
//! Ready. On the embedded backend it is Ready once its own checks hold.

use std::sync::Arc;

use berth_domain::conversation::{JoinFromAgent, JoinFromServer};
use berth_domain::phase::Phase;

use super::configuration::Configured;
use super::{Ending, JoinLine};
use crate::ports::{Clock, Cluster, Observation};

/// Registers the Node and waits until it is Ready.
pub(super) async fn run(
    line: &mut dyn JoinLine,
    configured: Configured<'_>,
    cluster: &dyn Cluster,
    clock: &dyn Clock,
) -> Result<(), Ending> {
    let port = |error| Ending::from_port(error, Phase::Registration, clock);
    let name = &configured.member().node().identity.name;
    let facts = match line.hear().await? {
        JoinFromAgent::Registration(facts) => Arc::new(*facts),
        JoinFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
        other @ (JoinFromAgent::ProfileRequest { .. }
        | JoinFromAgent::Configured { .. }
        | JoinFromAgent::Health(_)) => {
            return Err(Ending::out_of_order(other.instead_of("Registration"), Phase::Registration));
        }
    };
    cluster.observe(name, Observation::Registered { facts }, clock.now()).await.map_err(port)?;
    line.say(JoinFromServer::Registered).await?;
    loop {
        let failing = match line.hear().await? {
            JoinFromAgent::Health(failing) => failing,
            JoinFromAgent::GivingUp(why) => return Err(Ending::GaveUp(Box::new(why))),
            other @ (JoinFromAgent::ProfileRequest { .. }
            | JoinFromAgent::Configured { .. }
            | JoinFromAgent::Registration(_)) => {
                return Err(Ending::out_of_order(other.instead_of("Health"), Phase::Registration));
            }
        };
        let now = clock.now();
        match failing.into_iter().next() {
            None => {
                cluster.observe(name, Observation::Ready, now).await.map_err(port)?;
                return line.say(JoinFromServer::Ready { since: now }).await;
            }
            Some(why) => {
                let waiting = JoinFromServer::Waiting(why.clone());
                cluster.observe(name, Observation::NotReady { why }, now).await.map_err(port)?;
                line.say(waiting).await?;
            }
        }
    }
}
