//! A machine and a server in memory, and joins between them.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::{Arch, HostFacts};
use berth_domain::phase::Phase;
use berth_domain::pods::PodRoutes;
use berth_domain::profile::Profile;
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MINT_ENTROPY};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::server::Double;
use crate::join::{Checks, JoinWorld, Observer, Patience, Progress, Ready, TokenSource, Wishes, join};
use crate::plan::{Binaries, Body, Expected, Found, Installed, Plan, Seen, Step};
use crate::ports::doubles::{ManualClock, MemoryDepot, MemoryJournal, MemoryVault};
use crate::ports::{Applied, ApplyError, Clock, Host, RolledBack, Services, Undone};

/// A machine in memory. Its clock is right unless it is set.
pub(crate) struct World {
    pub(crate) server: Double,
    pub(crate) vault: MemoryVault,
    pub(crate) journal: MemoryJournal,
    pub(crate) host: Machine,
    pub(crate) depot: MemoryDepot,
    pub(crate) checks: Health,
    pub(crate) services: Programs,
    pub(crate) token: Pocket,
    pub(crate) wishes: Wishes,
    pub(crate) patience: Patience,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) watched: Watched,
}

/// Where the token lies.
#[derive(Default)]
pub(crate) struct Pocket(pub(crate) Mutex<Option<JoinToken>>);

impl Pocket {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().expect("unpoisoned").is_none()
    }
}

impl TokenSource for Pocket {
    fn token(&self) -> Result<JoinToken, Diagnosis> {
        let missing = || Diagnosis::new(Code::TokenMissing, Phase::Authentication);
        self.0.lock().expect("unpoisoned").clone().ok_or_else(missing)
    }

    fn forget(&self) -> Result<(), Diagnosis> {
        *self.0.lock().expect("unpoisoned") = None;
        Ok(())
    }
}

/// A host that remembers what was applied, and a disk that is full for a while.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) applied: Mutex<Vec<Plan>>,
    pub(crate) full_for: AtomicU32,
}

impl Machine {
    /// Whether a plan with this path was applied.
    pub(crate) fn has(&self, path: &str) -> bool {
        let applied = self.applied.lock().expect("unpoisoned");
        applied.iter().flat_map(|plan| &plan.steps).any(|step| step.path().to_str() == Some(path))
    }
}

#[async_trait]
impl Host for Machine {
    async fn survey(&self) -> HostFacts {
        let mut facts = HostFacts::default();
        facts.identity.hostname = Some("n1".to_owned());
        facts.arch = Some(Arch::Amd64);
        facts
    }

    fn installed(&self) -> Installed {
        let binaries = Binaries { kubelet: Some("/usr/bin/kubelet".into()), ..Binaries::default() };
        Installed { binaries, live: true, ..Installed::default() }
    }

    /// What was installed stands; of the rest nothing is seen.
    fn see(&self, plan: &Plan) -> Seen {
        let mut seen = Seen::default();
        for step in &plan.steps {
            let Step::Install { path, mode, size, digest, .. } = step else { continue };
            let stands =
                self.applied.lock().expect("unpoisoned").iter().any(|plan| plan.steps.contains(step));
            let body = Body::Large { size: *size, digest: *digest };
            let found = if stands { Found::File { mode: *mode, body } } else { Found::Absent };
            seen.found.insert(path.clone(), found);
        }
        seen
    }

    fn apply(&self, plan: &Plan, _now: Timestamp) -> Result<Applied, ApplyError> {
        let kubelet = plan.steps.iter().any(|step| step.path().starts_with("/var/lib/kubelet/config.yaml"));
        if kubelet && counted_down(&self.full_for) {
            return Err(ApplyError::NotWritten {
                path: "/var/lib/kubelet/config.yaml".into(),
                cause: std::io::ErrorKind::StorageFull.into(),
                rolled_back: RolledBack::Nothing,
            });
        }
        self.applied.lock().expect("unpoisoned").push(plan.clone());
        Ok(Applied::default())
    }

    fn undo(&self, _now: Timestamp) -> Result<Undone, ApplyError> {
        Ok(Undone::default())
    }
}

/// Checks that do not hold for a while.
#[derive(Default)]
pub(crate) struct Health {
    pub(crate) unfit_for: AtomicU32,
    pub(crate) misfit_for: AtomicU32,
    pub(crate) unhealthy_for: AtomicU32,
}

impl Checks for Health {
    fn preflight(&self, _facts: &HostFacts) -> Vec<Diagnosis> {
        let bad = counted_down(&self.unfit_for);
        bad.then(|| Diagnosis::new(Code::SwapOn, Phase::Initialization)).into_iter().collect()
    }

    fn fits(&self, _profile: &Profile, _facts: &HostFacts, _installed: &Installed) -> Vec<Diagnosis> {
        let bad = counted_down(&self.misfit_for);
        bad.then(|| Diagnosis::new(Code::ToolMissing, Phase::Configuration)).into_iter().collect()
    }

    fn health(&self, _facts: &HostFacts) -> Vec<Diagnosis> {
        let bad = counted_down(&self.unhealthy_for);
        bad.then(|| Diagnosis::new(Code::DiskSpaceTooLow, Phase::Registration)).into_iter().collect()
    }
}

/// Programs that do not start, or do not run well, for a while.
#[derive(Default)]
pub(crate) struct Programs {
    pub(crate) unstarted_for: AtomicU32,
    pub(crate) unwell_for: AtomicU32,
    pub(crate) started: Mutex<Vec<&'static str>>,
    pub(crate) unrouted_for: AtomicU32,
    pub(crate) routes: Mutex<Option<PodRoutes>>,
}

#[async_trait]
impl Services for Programs {
    async fn start(&self, plan: &Plan, _expected: &Expected) -> Result<(), Diagnosis> {
        if counted_down(&self.unstarted_for) {
            return Err(Diagnosis::new(Code::ServiceManagerFailed, Phase::Registration));
        }
        *self.started.lock().expect("unpoisoned") = plan.units().map(|unit| unit.name()).collect();
        Ok(())
    }

    async fn failing(&self) -> Vec<Diagnosis> {
        let bad = counted_down(&self.unwell_for);
        bad.then(|| Diagnosis::new(Code::KubeletFailing, Phase::Registration)).into_iter().collect()
    }

    async fn route(&self, routes: &PodRoutes) -> Result<(), Diagnosis> {
        if counted_down(&self.unrouted_for) {
            return Err(Diagnosis::new(Code::PodRoutesNotLaid, Phase::Registration));
        }
        *self.routes.lock().expect("unpoisoned") = Some(routes.clone());
        Ok(())
    }

    async fn changed(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn counted_down(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// What an observer saw, and where it ends the process.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) progress: Mutex<Vec<Progress>>,
    pub(crate) points: Mutex<Vec<&'static str>>,
    pub(crate) crash_at: Mutex<Option<&'static str>>,
}

impl Watched {
    /// The codes that were waited for.
    pub(crate) fn waits(&self) -> Vec<Code> {
        let progress = self.progress.lock().expect("unpoisoned");
        let mut codes: Vec<Code> =
            progress.iter().filter_map(|stands| stands.waiting_for.as_ref().map(Diagnosis::code)).collect();
        codes.dedup();
        codes
    }
}

impl Observer for Watched {
    fn progress(&self, progress: &Progress) {
        self.progress.lock().expect("unpoisoned").push(progress.clone());
    }

    fn unpinned(&self) {
        self.points.lock().expect("unpoisoned").push("unpinned");
    }

    fn passing(&self, point: &'static str) {
        self.points.lock().expect("unpoisoned").push(point);
        let crash = *self.crash_at.lock().expect("unpoisoned") == Some(point);
        if crash {
            std::panic::resume_unwind(Box::new(point));
        }
    }
}

impl World {
    /// A world whose token is this one, at both ends.
    pub(crate) fn with_token(text: &str) -> Self {
        let token: JoinToken = text.parse().expect("a token");
        let world = Self::new();
        let clock = Arc::clone(&world.server.clock);
        let server = Double::new(Arc::clone(&world.server.ca), token.clone(), clock);
        Self { server, token: Pocket(Mutex::new(Some(token))), ..world }
    }

    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_790_000_000_000)));
        let ca = Arc::new(Authority::new("cluster"));
        let token = JoinToken::mint(&Zeroizing::new([9; MINT_ENTROPY]), ca.pin);
        Self {
            server: Double::new(ca, token.clone(), clock),
            vault: MemoryVault::default(),
            journal: MemoryJournal::default(),
            host: Machine::default(),
            depot: MemoryDepot::default(),
            checks: Health::default(),
            services: Programs::default(),
            token: Pocket(Mutex::new(Some(token))),
            wishes: Wishes { agent_version: "0.1.0".to_owned(), ..Wishes::default() },
            patience: Patience { deadline: Some(Instant::now() + Duration::from_secs(600)), no_wait: false },
            stop: watch::channel(false).0,
            watched: Watched::default(),
        }
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        &self.server.clock
    }

    /// One run of the agent.
    pub(crate) async fn join(&self) -> Result<Ready, Diagnosis> {
        let world = JoinWorld {
            server: &self.server,
            host: &self.host,
            depot: &self.depot,
            checks: &self.checks,
            services: &self.services,
            vault: &self.vault,
            journal: &self.journal,
            clock: self.clock() as &dyn Clock,
            token: &self.token,
            wishes: &self.wishes,
            patience: self.patience,
            stop: self.stop.subscribe(),
        };
        join(&world, &self.watched).await
    }

    /// One run that is killed at a point.
    pub(crate) async fn crash(&self, point: &'static str) {
        *self.watched.crash_at.lock().expect("unpoisoned") = Some(point);
        let ended = AssertUnwindSafe(self.join()).catch_unwind().await;
        assert!(ended.is_err(), "{point} was not passed");
        *self.watched.crash_at.lock().expect("unpoisoned") = None;
    }

    /// What the server heard so far, with commas between.
    pub(crate) fn heard(&self) -> String {
        self.server.script().heard.join(",")
    }
}
