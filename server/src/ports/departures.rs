//! The port of nodes that leave.

use async_trait::async_trait;
use berth_domain::diagnosis::Diagnosis;
use berth_domain::node::NodeRecord;
use berth_domain::timestamp::Timestamp;

use super::Answer;

/// Whether the pods of a node that leaves are asked to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// They are evicted, as their disruption budgets allow.
    Drained,
    /// They are left to the cluster's own controllers.
    AtOnce,
}

/// What a cluster does when a node leaves it.
#[async_trait]
pub trait Departures: Send + Sync {
    /// Goes on with the node's departure as far as that is possible now: no new pods come
    /// to it, those on it go, its Node object goes. Answers what it still waits for;
    /// `None`: nothing of it is left. Asking again goes on, on any server.
    async fn see_off(&self, node: &NodeRecord, manner: Manner, now: Timestamp) -> Answer<Option<Diagnosis>>;
}
