//! The port of the programs that make the machine a node, as they run.

use async_trait::async_trait;
use berth_domain::diagnosis::Diagnosis;
use berth_domain::pods::PodRoutes;

use crate::plan::{Expected, Plan};

/// The runtime and the kubelet, and what they need to do their work.
#[async_trait]
pub trait Services: Send + Sync {
    /// Starts the plan's units, or starts anew those whose files have changed since
    /// they were started. How they stood before is recorded first. Below another root
    /// than the running system nothing is started.
    ///
    /// # Errors
    /// The service manager refuses; a unit that ends again is no error, but failing.
    async fn start(&self, plan: &Plan, expected: &Expected) -> Result<(), Diagnosis>;

    /// What stands in the way of what was started, most important first; empty while
    /// all is well, or nothing was started. What has just come up is not told yet.
    async fn failing(&self) -> Vec<Diagnosis>;

    /// Lays the routes to the pods of other nodes, and takes away those that it has
    /// laid before and that are no longer among them. Nothing is laid below another
    /// root than the running system.
    ///
    /// # Errors
    /// What the system said.
    async fn route(&self, routes: &PodRoutes) -> Result<(), Diagnosis>;

    /// Ends when [`Services::failing`] may say something else.
    async fn changed(&self);
}
