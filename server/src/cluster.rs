//! The backends behind the ports: where the server's state lives. The verbs are
//! written once, over a ledger; a backend is a ledger and its transactions.

mod ledger;
mod verbs;

pub mod bootstrap;
pub mod embedded;
pub mod kube;

#[cfg(any(test, feature = "doubles"))]
pub mod faulty;
#[cfg(any(test, feature = "doubles"))]
pub mod memory;

use std::time::Duration;

use async_trait::async_trait;
use berth_domain::timestamp::Timestamp;

use crate::ports::Answer;

pub use ledger::StoreError;
pub use verbs::joins::{FINISHED_KEPT, MOST_FINISHED, MOST_UNPROVEN};

/// The watch over agents that fall silent, of backends on which the server
/// alone judges readiness.
///
/// It is no function over [`crate::ports::Nodes::nodes`]: that reads every
/// node's facts, every few seconds for nothing, and a node heard between reading
/// and observing would be called silent. Here one index answers who may be
/// overdue, and the rule runs again in the transaction that marks them.
#[async_trait]
pub trait Sweep: Send + Sync {
    /// Marks as not Ready every Ready node whose agent has not been heard for
    /// longer than the grace; says how many. Wait for one grace after the
    /// server's start before the first sweep: agents need that time to come back.
    async fn sweep(&self, grace: Duration, now: Timestamp) -> Answer<usize>;
}
