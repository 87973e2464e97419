//! The registry of a cluster without an API server: a Node is what its agent says
//! of it.

pub mod kube;

use async_trait::async_trait;
use berth_domain::diagnosis::Diagnosis;
use berth_domain::name::NodeName;
use berth_domain::node::NodeRecord;
use berth_domain::timestamp::Timestamp;
use tokio::sync::watch;

use crate::ports::{Answer, Departures, Manner, Registry};

/// Nothing stands in a node's way but its own checks.
pub struct OwnWord {
    silence: watch::Sender<()>,
    still: watch::Sender<u64>,
}

impl Default for OwnWord {
    fn default() -> Self {
        Self { silence: watch::Sender::new(()), still: watch::Sender::new(0) }
    }
}

#[async_trait]
impl Registry for OwnWord {
    async fn settle(
        &self,
        _node: &NodeRecord,
        _trace: Option<&str>,
        _now: Timestamp,
    ) -> Answer<Option<Diagnosis>> {
        Ok(None)
    }

    fn watch(&self, _name: &NodeName) -> watch::Receiver<()> {
        self.silence.subscribe()
    }

    fn routes_changed(&self) -> watch::Receiver<u64> {
        self.still.subscribe()
    }
}

/// There is nothing of a node but its record.
#[async_trait]
impl Departures for OwnWord {
    async fn see_off(
        &self,
        _node: &NodeRecord,
        _manner: Manner,
        _now: Timestamp,
    ) -> Answer<Option<Diagnosis>> {
        Ok(None)
    }
}
