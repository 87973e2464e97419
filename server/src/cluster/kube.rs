//! The Kubernetes backend: what the server keeps are objects of the cluster that
//! its nodes join. Any number of replicas write them, and none leads.
//!
//! A verb runs the same rules as on the other backends, over what this replica
//! knows from its watches, and is done once the API server took the object it
//! changed, as it was read. What only shows progress is written a little later.

mod calls;
mod cleaning;
mod feed;
mod later;
mod limits;
mod minting;
pub mod objects;
mod operations;
mod ports;
mod redeem;
mod scratch;
mod shared;
mod told;
mod turns;
mod verbs;
mod view;
mod write;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_domain::timestamp::Timestamp;
use berth_telemetry::metrics::{EventMeter, QueueMeter};
use kube::Client;
use tokio_util::task::TaskTracker;

use crate::ports::Clock;
use calls::Calls;
use objects::{JoinToken, MachineBan, NodeJoin};
use shared::{KINDS, Shared};

pub use calls::CallError;
pub use minting::{Command, Minting};
pub use told::MOST_EVENTS_WAITING;

/// How the backend is run. The defaults are right for a server; tests turn them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Berth's own namespace: its tokens, Secrets and Leases.
    pub namespace: String,
    /// Names this replica among others, in the Lease of whoever cleans up.
    pub replica: String,
    /// How long one call may take, and one verb with all its calls may go on
    /// after others changed its objects.
    pub patience: Duration,
    /// How much later a wait is written; a step that a join has passed, [`PROGRESS`]
    /// times as much.
    pub behind: Duration,
    /// The most redemptions that may wait.
    pub queue: usize,
    /// Looks at the API server for what is not known here: at once, and one each.
    pub looks: u32,
    /// Between two such looks.
    pub looks_every: Duration,
    /// Records of strangers that are written: at once, and one each.
    pub strangers: u32,
    /// Between two such records.
    pub strangers_every: Duration,
    /// How often it is looked for what can be cleaned up.
    pub clean_every: Duration,
    /// What counts the redemptions that wait.
    pub redemptions: QueueMeter,
    /// What counts the Events that wait, [`MOST_EVENTS_WAITING`] at most.
    pub events: QueueMeter,
    /// What counts what becomes of Events.
    pub told: EventMeter,
}

impl Settings {
    /// How much later a step on the way to Ready is written: a join that is quick has
    /// none written but the first and the last.
    pub(in crate::cluster::kube) const fn progress_behind(&self) -> Duration {
        self.behind.saturating_mul(PROGRESS)
    }

    /// How much later it is written what the cluster's signer has made: its request keeps
    /// it for an hour, and the next step takes it along.
    pub(in crate::cluster::kube) const fn issued_behind(&self) -> Duration {
        self.behind.saturating_mul(ISSUED)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: "berth-system".to_owned(),
            replica: uuid::Uuid::now_v7().to_string(),
            patience: Duration::from_secs(5),
            behind: Duration::from_secs(1),
            queue: 4_096,
            looks: 50,
            looks_every: Duration::from_millis(50),
            strangers: 50,
            strangers_every: Duration::from_millis(200),
            clean_every: Duration::from_secs(60),
            redemptions: QueueMeter::default(),
            events: QueueMeter::default(),
            told: EventMeter::default(),
        }
    }
}

/// How many times longer than a wait a step that a join has passed may go unwritten.
pub const PROGRESS: u32 = 3;

/// How many times longer than a wait a certificate may go unrecorded.
const ISSUED: u32 = 30;

/// One replica's part of the backend.
pub struct Kube {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    minting: Mutex<bool>,
}

/// The objects were not read in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the cluster's objects could not be read within {}; is the API server there, are the CRDs installed \
     (kubectl apply -f deploy/kubernetes/crds), and may this account watch them?",
    humantime::format_duration(*.waited)
)]
pub struct NotRead {
    /// How long it was waited for.
    pub waited: Duration,
}

impl Kube {
    /// Starts to follow the cluster's objects. Until they are read for the first
    /// time, verbs are answered with Unavailable; see [`Kube::ready`]. That the API
    /// server is away is no error: it is waited for.
    #[must_use]
    pub fn start(client: Client, settings: Settings, clock: Arc<dyn Clock>) -> Arc<Self> {
        let calls = Calls::new(client, settings.namespace.clone(), settings.patience);
        let (shared, stories) = Shared::new(calls, settings, clock);
        let shared = Arc::new(shared);
        let tasks = TaskTracker::new();
        tasks.spawn(feed::follow::<JoinToken>(Arc::clone(&shared)));
        tasks.spawn(follow_bans(Arc::clone(&shared)));
        tasks.spawn(feed::follow::<NodeJoin>(Arc::clone(&shared)));
        tasks.spawn(later::write_behind(Arc::clone(&shared)));
        tasks.spawn(cleaning::clean(Arc::clone(&shared)));
        tasks.spawn(told::write(Arc::clone(&shared), stories));
        Arc::new(Self { shared, tasks, minting: Mutex::new(false) })
    }

    /// Mints the JoinTokens that people apply, from now on. A second time changes nothing.
    pub fn mint_applied(&self, minting: Minting) {
        let mut is_minting = self.minting.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_minting, true) {
            self.tasks.spawn(minting::mint_applied(Arc::clone(&self.shared), minting));
        }
    }

    /// Waits until all objects were read once.
    ///
    /// # Errors
    /// They were not, in that time. It goes on trying all the same.
    pub async fn ready(&self, within: Duration) -> Result<(), NotRead> {
        let mut listed = self.shared.listed.subscribe();
        let all = listed.wait_for(|listed| *listed >= KINDS);
        match tokio::time::timeout(within, all).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotRead { waited: within }),
        }
    }

    /// How long the API server has been away, if it is.
    #[must_use]
    pub fn away(&self) -> Option<Duration> {
        self.shared.calls.outage().lasting()
    }

    /// How many objects came that could not be read, and were passed over.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.shared.malformed.load(Ordering::Relaxed)
    }

    /// Removes what ended long ago, as whoever holds the Lease does now and then.
    ///
    /// # Errors
    /// The API server is away.
    pub async fn clean(&self, now: Timestamp) -> Result<(), CallError> {
        self.shared.clean_once(now).await
    }

    /// Writes down what waits to be written, and ends. Verbs called later are
    /// answered with Unavailable.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        // Each task ends by itself within its patience.
        self.tasks.wait().await;
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// A ban is an event of a join: the joins are read first.
async fn follow_bans(shared: Arc<Shared>) {
    let mut listed = shared.listed.subscribe();
    tokio::select! {
        () = shared.stop.cancelled() => return,
        listed = listed.wait_for(|listed| *listed >= KINDS - 1) => if listed.is_err() { return },
    }
    feed::follow::<MachineBan>(shared).await;
}
