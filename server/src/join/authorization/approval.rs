//! The wait for a person's word on a join.

use std::time::Duration;

use berth_domain::conversation::EnrollFromServer;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::join::{Decision, Event, JoinId, State};
use berth_domain::name::NodeName;
use berth_domain::phase::Phase;

use super::super::{Ending, EnrollLine, World};

/// How long one connection waits; then the agent comes back by itself.
const PATIENCE: Duration = Duration::from_secs(600);

/// Between two words to the agent, so that both sides and the balancers between
/// them know that the line lives.
const REMINDER: Duration = Duration::from_secs(15);

/// Waits until an operator has approved the join.
pub(super) async fn wait(
    line: &mut dyn EnrollLine,
    join: JoinId,
    name: &NodeName,
    world: &World<'_>,
) -> Result<(), Ending> {
    let port = |error| Ending::from_port(error, Phase::Authorization, world.clock);
    let began = tokio::time::Instant::now();
    let mut changes = world.cluster.changes();
    let mut told = false;
    loop {
        changes.borrow_and_update();
        let record = world.cluster.join(join).await.map_err(port)?;
        match record.as_ref().and_then(|record| record.decision.as_ref()) {
            Some(Decision::Approved { .. }) => return Ok(()),
            Some(Decision::Denied { by, reason }) => {
                let why = Diagnosis::new(Code::ApprovalDenied, Phase::Authorization).with("join", join);
                return Err(why.with_private("by", by).with_private("reason", reason).into());
            }
            None => {}
        }
        let since = match record.as_ref().map(|record| &record.state) {
            Some(State::Waiting { why, since }) if why.code() == Code::ApprovalPending => *since,
            _ => world.clock.now(),
        };
        let why = Diagnosis::new(Code::ApprovalPending, Phase::Authorization)
            .with("join", join)
            .with("name", name)
            .with("since", since);
        if began.elapsed() >= PATIENCE {
            return Err(why.into());
        }
        if !told {
            let event = Event::Waiting { why: why.clone() };
            world.cluster.record(join, Some(name), event, world.clock.now()).await.map_err(port)?;
            told = true;
        }
        line.say(EnrollFromServer::Waiting(why)).await?;
        wait_for_change(&mut changes, world).await;
    }
}

/// Something was stored, or it is time to say again that we wait.
async fn wait_for_change(changes: &mut tokio::sync::watch::Receiver<i64>, world: &World<'_>) {
    let _waiting = world.metrics.waiting(Code::ApprovalPending);
    // A closed watch means that the store is closing: the deadline still holds.
    if let Ok(Err(_closed)) = tokio::time::timeout(REMINDER, changes.changed()).await {
        tokio::time::sleep(REMINDER).await;
    }
}
