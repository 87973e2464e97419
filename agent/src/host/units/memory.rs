//! The service manager's double: units that run once they are started, unless they
//! are said to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ticks::Ticks;
use super::{UnitState, Units, UnitsError};
use async_trait::async_trait;

/// A service manager in memory, shared by its clones.
#[derive(Clone, Default)]
pub struct MemoryUnits {
    inner: Arc<Mutex<Inner>>,
    ticks: Ticks,
}

#[derive(Default)]
struct Inner {
    units: BTreeMap<String, UnitState>,
    failing: BTreeSet<String>,
    told: Vec<String>,
}

impl MemoryUnits {
    /// Lets a unit end with exit status 1 whenever it is started, or no more.
    pub fn fail(&self, unit: &str, fails: bool) {
        let mut inner = self.inner();
        if fails {
            inner.failing.insert(unit.to_owned())
        } else {
            inner.failing.remove(unit)
        };
        drop(inner);
        self.ticks.tick();
    }

    /// What it was told, such as `start kubelet.service`.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.inner().told.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, what: String, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner();
        inner.told.push(what);
        change(&mut inner);
        drop(inner);
        self.ticks.tick();
    }
}

#[async_trait]
impl Units for MemoryUnits {
    async fn look(&self, unit: &str) -> Result<UnitState, UnitsError> {
        self.ticks.look();
        let inner = self.inner();
        let absent =
            UnitState { active: "inactive".to_owned(), sub: "dead".to_owned(), ..Default::default() };
        Ok(inner.units.get(unit).cloned().unwrap_or(absent))
    }

    async fn start(&self, unit: &str) -> Result<(), UnitsError> {
        self.change(format!("start {unit}"), |inner| {
            let fails = inner.failing.contains(unit);
            let state = if fails {
                UnitState {
                    active: "activating".to_owned(),
                    sub: "auto-restart".to_owned(),
                    result: "exit-code".to_owned(),
                    status: 1,
                    restarts: 1,
                }
            } else {
                UnitState {
                    active: "active".to_owned(),
                    sub: "running".to_owned(),
                    result: "success".to_owned(),
                    ..Default::default()
                }
            };
            inner.units.insert(unit.to_owned(), state);
        });
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<(), UnitsError> {
        self.change(format!("stop {unit}"), |inner| {
            inner.units.remove(unit);
        });
        Ok(())
    }

    async fn reload(&self) -> Result<(), UnitsError> {
        self.change("reload".to_owned(), |_| {});
        Ok(())
    }

    async fn changed(&self) {
        self.ticks.changed().await;
    }
}
