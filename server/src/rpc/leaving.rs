//! The call of a node that takes its leave.

use berth_domain::node::NodeRecord;
use berth_domain::phase::Phase;

use super::service::Joins;
use crate::join::Ending;
use crate::ports::{Manner, Observation, Release};

impl Joins {
    /// Goes on with a node's departure. What it still waits for is recorded and refused
    /// with, so that its agent asks again; once nothing is, its name is free.
    pub(super) async fn leave(&self, node: &NodeRecord, manner: Manner) -> Result<(), Ending> {
        let (name, now) = (&node.identity.name, self.clock.now());
        let port = |error: crate::ports::PortError| error.into_diagnosis(Phase::Registration, now);
        let seen_off = self.departures.see_off(node, manner, now).await.map_err(port);
        let waits_for = match (manner, seen_off) {
            (Manner::Drained, seen_off) => seen_off?,
            // Nothing holds a machine that goes at once; what stays is for operators.
            (Manner::AtOnce, Ok(None)) => None,
            (Manner::AtOnce, Ok(Some(why)) | Err(why)) => {
                tracing::warn!(%name, %why, mend = why.mend(), "a node has left, and its Node stays");
                None
            }
        };
        if let Some(why) = waits_for {
            let observed = Observation::NotReady { why: why.clone() };
            self.cluster.observe(name, observed, now).await.map_err(port)?;
            return Err(why.into());
        }
        self.cluster.release(name, Release::Left, now).await.map_err(port)?;
        Ok(())
    }
}
