//! The cluster's `NodeProfile` objects as the profiles see them: from one watch,
//! each judged when it changes, with the verdict in its status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_domain::labels::Taint;
use berth_domain::name::PoolName;
use kube::api::PostParams;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::kube::objects::NodeProfile;
use crate::kubernetes::watch::{Standing, follow};
use crate::kubernetes::{Failure, within};
use crate::ports::Clock;
use crate::profiles::kubernetes::{PoolProfile, PoolProfiles};

/// The profile of pools that have none of their own.
const DEFAULT: &str = "default";

/// Verdicts that wait to be written; one that is lost is written with the next change.
const VERDICTS: usize = 64;

/// The `NodeProfile` objects.
pub(super) struct Pools {
    objects: Api<NodeProfile>,
    standing: Standing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<String, PoolProfile>,
    listed: Option<BTreeMap<String, PoolProfile>>,
}

impl Pools {
    pub(super) fn new(client: Client) -> Self {
        Self { objects: Api::all(client), standing: Standing::default(), state: Mutex::default() }
    }

    /// Watches until `end`.
    pub(super) async fn run(&self, clock: &Arc<dyn Clock>, end: &CancellationToken) {
        let (changed, changes) = mpsc::channel(VERDICTS);
        let watching = follow(self.objects.clone(), Config::default(), &self.standing, clock, |event| {
            self.told(event, &changed);
        });
        tokio::select! {
            () = end.cancelled() => {}
            () = watching => {}
            () = self.write_verdicts(changes, clock) => {}
        }
    }

    /// Waits until every profile has been told once.
    pub(super) async fn filled(&self) {
        self.standing.filled().await;
    }

    fn told(&self, event: Event<NodeProfile>, changed: &mpsc::Sender<NodeProfile>) {
        let mut state = self.state();
        match event {
            Event::Init => state.listed = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let profile = read(&object);
                if let Some(listed) = &mut state.listed {
                    listed.insert(profile.name.clone(), profile);
                }
                // Full: the next change brings it again.
                let _ = changed.try_send(object);
            }
            Event::InitDone => {
                if let Some(listed) = state.listed.take() {
                    state.known = listed;
                }
            }
            Event::Apply(object) => {
                let profile = read(&object);
                state.known.insert(profile.name.clone(), profile);
                let _ = changed.try_send(object);
            }
            Event::Delete(object) => {
                state.known.remove(&object.metadata.name.unwrap_or_default());
            }
        }
    }

    /// Says in each profile's status whether it is in use, once a generation:
    /// whichever replica comes first.
    async fn write_verdicts(&self, mut changes: mpsc::Receiver<NodeProfile>, clock: &Arc<dyn Clock>) {
        while let Some(mut object) = changes.recv().await {
            let observed = object.status.as_ref().and_then(|status| status.observed_generation);
            if observed == object.metadata.generation {
                continue;
            }
            let problem = read(&object).problem();
            object.status = Some(object.judged(problem.as_deref(), clock.now()));
            let name = object.metadata.name.clone().unwrap_or_default();
            let written = within(self.objects.replace_status(&name, &PostParams::default(), &object)).await;
            match written {
                Err(failure @ (Failure::Forbidden(_) | Failure::Admission { .. })) => {
                    tracing::warn!(profile = name, error = %failure, "a NodeProfile's status may not be written");
                }
                // Another replica was faster, or the next change tries again.
                Err(failure) => {
                    tracing::debug!(profile = name, error = %failure, "a NodeProfile's status was not written");
                }
                Ok(_) => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolProfiles for Pools {
    fn of(&self, pool: &PoolName) -> Option<PoolProfile> {
        let state = self.state();
        state.known.get(pool.as_str()).or_else(|| state.known.get(DEFAULT)).cloned()
    }
}

fn read(object: &NodeProfile) -> PoolProfile {
    let spec = object.spec.clone();
    let taint = |taint: crate::cluster::kube::objects::TokenTaint| Taint {
        key: taint.key,
        value: taint.value,
        effect: taint.effect,
    };
    PoolProfile {
        name: object.metadata.name.clone().unwrap_or_default(),
        kubelet: spec.kubelet,
        labels: spec.labels,
        taints: spec.taints.into_iter().map(taint).collect(),
        approval: spec.approval,
        api_endpoints: spec.api_endpoints,
        cluster_dns: spec.cluster_dns,
        cluster_domain: spec.cluster_domain,
        network: spec.pod_network,
    }
}
