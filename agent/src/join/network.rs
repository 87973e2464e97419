//! The network of the node's pods, where the agent makes it: laid as the server says
//! where pods are, and tried again until it stands.

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;

use crate::plan;
use crate::ports::{Clock, Host, Services};

/// What was last told, and whether it stands.
pub struct PodNetwork<'a> {
    host: &'a dyn Host,
    services: &'a dyn Services,
    clock: &'a dyn Clock,
    wanted: Option<PodRoutes>,
    problem: Option<Diagnosis>,
}

impl<'a> PodNetwork<'a> {
    /// Nothing was told yet.
    pub fn new(host: &'a dyn Host, services: &'a dyn Services, clock: &'a dyn Clock) -> Self {
        Self { host, services, clock, wanted: None, problem: None }
    }

    /// Lays what the server says.
    pub async fn told(&mut self, routes: PodRoutes) {
        self.wanted = Some(routes);
        self.lay().await;
    }

    /// What stands in its way, tried once more if anything did.
    pub async fn problem(&mut self) -> Option<Diagnosis> {
        if self.problem.is_some() {
            self.lay().await;
        }
        self.problem.clone()
    }

    /// Routes first: a runtime that has its configuration starts pods.
    async fn lay(&mut self) {
        let Some(routes) = &self.wanted else { return };
        self.problem = match self.services.route(routes).await {
            Ok(()) => {
                let applied = self.host.apply(&plan::network(routes), self.clock.now());
                applied.err().map(|error| error.into_diagnosis(Phase::Registration))
            }
            Err(why) => Some(why),
        };
    }
}
