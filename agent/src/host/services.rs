//! The programs that make the machine a node, as systemd runs them: started,
//! watched until all is well, and stopped again by `reset`.

mod end;
mod images;
mod judge;
mod packets;
mod probes;
mod record;
mod routes;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;
use tokio::time::{Instant, sleep};

use self::judge::{Seen, SeenUnit};
use self::probes::Probes;
use self::record::Record;
use super::cri::{Cri, answered};
use super::survey;
use super::units::{UnitState, Units, UnitsError};
use crate::files::Tree;
use crate::plan::{CONTAINERD, Expected, Live, Plan};
use crate::ports::Services;

/// A cause younger than this may be one that comes with every start.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a unit that has ended must run before it is believed to run.
const STEADY: Duration = Duration::from_secs(4);

/// Between two looks while something is not well.
const STEP: Duration = Duration::from_millis(100);

/// Between two looks while all is well, where no signal tells of a change.
const QUIET: Duration = Duration::from_secs(5);

/// How long the runtime may take to say how it stands.
const ANSWER: Duration = Duration::from_secs(2);

/// The services of this machine.
pub struct NodeServices {
    units: Arc<dyn Units>,
    record: Record,
    live: bool,
    watched: Mutex<Watched>,
    probes: Probes,
}

#[derive(Default)]
struct Watched {
    expected: Option<Expected>,
    /// Since when each cause is seen.
    since: BTreeMap<Code, Instant>,
    /// By unit: how often it was started again by itself, and since when so often.
    restarts: BTreeMap<String, (u32, Instant)>,
    /// By unit: its last words, and of which run.
    words: BTreeMap<String, (u32, String)>,
    is_well: bool,
}

impl NodeServices {
    /// The services of the machine whose root is `root`; nothing runs elsewhere than
    /// on the running system.
    ///
    /// # Errors
    /// The root is no directory that can be opened.
    pub fn of(root: &Path, units: Arc<dyn Units>) -> io::Result<Self> {
        Ok(Self {
            units,
            record: Record::of(&Tree::open(root)?),
            live: root == Path::new("/"),
            watched: Mutex::default(),
            probes: Probes::default(),
        })
    }

    /// The same, as if the root were the running system's.
    #[cfg(any(test, feature = "doubles"))]
    #[must_use]
    pub const fn as_if_live(mut self) -> Self {
        self.live = true;
        self
    }

    /// The plan's units that run, started since their files last changed.
    pub async fn running(&self, plan: &Plan) -> Vec<&'static str> {
        let record = self.record.load().unwrap_or_default();
        let mut running = Vec::new();
        for live in plan.live.iter().filter(|_| self.live) {
            if let Live::Unit { name, reads } = live
                && record.reads(name) == Some(*reads)
                && self.units.look(name).await.is_ok_and(|state| state.is_running())
            {
                running.push(*name);
            }
        }
        running
    }

    async fn start_unit(&self, live: &Live) -> Result<(), Diagnosis> {
        let Live::Unit { name, reads } = live else { return Ok(()) };
        let kept = |error: io::Error| self.record.not_kept(error, Phase::Registration);
        let stands = self.units.look(name).await.map_err(refused)?;
        let mut record = self.record.load().map_err(kept)?;
        let entry = record.unit(name, || stands.is_running());
        if entry.reads == Some(*reads) && stands.is_running() {
            return Ok(());
        }
        entry.reads = None;
        // Before the effect: whatever a crash cuts off is known to be ours.
        self.record.save(&record).map_err(kept)?;
        self.units.start(name).await.map_err(refused)?;
        record.unit(name, || false).reads = Some(*reads);
        self.record.save(&record).map_err(kept)
    }

    /// Has the runtime take in what lies beside the node's state. What it does not
    /// take is missed when it is needed, and told then.
    async fn take_in_images(&self) {
        let known = self.record.load().unwrap_or_default().images;
        let taken = tokio::task::spawn_blocking(move || images::take_in(&known)).await.unwrap_or_default();
        if !taken.is_empty()
            && let Ok(mut record) = self.record.load()
        {
            record.images.extend(taken);
            // Otherwise they are taken in again the next time.
            let _ = self.record.save(&record);
        }
    }

    /// How everything stands now.
    async fn look(&self, expected: &Expected) -> Seen {
        let record = self.record.load().unwrap_or_default();
        let mut units = Vec::new();
        for name in record.units() {
            if let Ok(state) = self.units.look(name).await {
                let said =
                    if state.has_failed() { self.last_words(name, state.restarts).await } else { None };
                units.push(self.seen_unit(name, state, said));
            }
        }
        Seen {
            units,
            runtime: answered(Path::new(&expected.socket), ANSWER, Cri::conditions).await,
            inotify: survey::sysctl(Path::new("/proc"), survey::INOTIFY_INSTANCES),
            network_files: judge::network_files(),
            api: self.probes.api(),
            image: self.probes.image(),
        }
    }

    fn seen_unit(&self, name: &str, state: UnitState, said: Option<String>) -> SeenUnit {
        let mut watched = self.watched();
        let now = Instant::now();
        let entry = watched.restarts.entry(name.to_owned()).or_insert((state.restarts, now));
        if entry.0 != state.restarts {
            *entry = (state.restarts, now);
        }
        let unsteady = entry.0 > 0 && now.duration_since(entry.1) < STEADY;
        let said = said.or_else(|| watched.words.get(name).map(|(_, said)| said.clone()));
        SeenUnit { name: name.to_owned(), failing: state.has_failed() || unsteady, state, said }
    }

    /// What the unit's program said last, from the journal; read once a run.
    async fn last_words(&self, name: &str, run: u32) -> Option<String> {
        if let Some((of, said)) = self.watched().words.get(name)
            && *of == run
        {
            return Some(said.clone());
        }
        let unit = name.to_owned();
        let said = tokio::task::spawn_blocking(move || words::of(&unit)).await.ok()??;
        self.watched().words.insert(name.to_owned(), (run, said.clone()));
        Some(said)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Services for NodeServices {
    async fn start(&self, plan: &Plan, expected: &Expected) -> Result<(), Diagnosis> {
        if !self.live || plan.units().next().is_none() {
            return Ok(());
        }
        let kept = |error: io::Error| self.record.not_kept(error, Phase::Registration);
        let mut record = self.record.load().map_err(kept)?;
        record.expect(expected);
        self.record.save(&record).map_err(kept)?;
        for unit in plan.units() {
            self.start_unit(unit).await?;
            if unit.name() == CONTAINERD {
                self.take_in_images().await;
            }
        }
        self.probes.begin(expected);
        *self.watched() = Watched { expected: Some(expected.clone()), ..Watched::default() };
        Ok(())
    }

    async fn failing(&self) -> Vec<Diagnosis> {
        if !self.live {
            return Vec::new();
        }
        let expected = self.watched().expected.clone();
        // A later process of the agent: what the one before has started still runs.
        let Some(expected) = expected.or_else(|| self.record.load().ok()?.expected()) else {
            return Vec::new();
        };
        let found = judge::failing(&self.look(&expected).await, Phase::Registration);
        let mut watched = self.watched();
        let now = Instant::now();
        watched.since.retain(|code, _| found.iter().any(|why| why.code() == *code));
        watched.is_well = found.is_empty();
        let settled =
            |why: &Diagnosis| now.duration_since(*watched.since.entry(why.code()).or_insert(now)) >= SETTLED;
        found.into_iter().filter(settled).collect()
    }

    async fn route(&self, routes: &PodRoutes) -> Result<(), Diagnosis> {
        if !self.live {
            return Ok(());
        }
        let routes = routes.clone();
        let laid = tokio::task::spawn_blocking(move || routes::lay(&routes)).await;
        laid.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| Diagnosis::new(Code::PodRoutesNotLaid, Phase::Registration).with("error", error))
    }

    async fn changed(&self) {
        if !self.live {
            std::future::pending::<()>().await;
        }
        let step = if self.watched().is_well { QUIET } else { STEP };
        tokio::select! {
            () = self.units.changed() => {}
            () = self.probes.changed() => {}
            () = sleep(step) => {}
        }
    }
}

fn refused(error: UnitsError) -> Diagnosis {
    error.into_diagnosis(Phase::Registration)
}

#[cfg(test)]
mod tests;
