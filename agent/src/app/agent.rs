//! The agent's adapters, made from what it was told: the one place where they
//! meet the ports.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::phase::Phase;
use berth_program::clock::SystemClock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::preflight::Preflight;
use super::remembered::Remembered;
use super::{Context, Failure};
use crate::attendance::{AttendWorld, Told};
use crate::bundle::FileDepot;
use crate::cli;
use crate::config::Settings;
use crate::host::Machine;
use crate::host::services::NodeServices;
use crate::host::units::Systemd;
use crate::join::{JoinWorld, Patience, TokenSource, Wishes};
use crate::journal::FileJournal;
use crate::line::{Line, Relay};
use crate::ports::{Journal as _, Standing};
use crate::vault::FileVault;

/// The agent below one root.
pub(super) struct Agent {
    pub(super) host: Machine,
    depot: FileDepot,
    pub(super) vault: FileVault,
    pub(super) journal: FileJournal,
    pub(super) clock: SystemClock,
    pub(super) line: Line,
    pub(super) server: Remembered,
    checks: Preflight,
    pub(super) services: NodeServices,
    pub(super) units: Arc<Systemd>,
    wishes: Wishes,
}

impl Agent {
    /// The agent of these settings. It asks the server that it was told of, or
    /// else the one that was joined before.
    pub(super) fn new(with: &Context<'_>) -> Result<Self, Failure> {
        let server = server(with)?;
        let host = Machine::at(with.root).map_err(Failure::State)?;
        let mut line = Line::new(server.server.clone());
        if let Some(name) = &server.server_name {
            line = line.with_server_name(name.clone());
        }
        if let Some(spans) = &with.spans {
            line = line.with_relay(Relay::start(spans.clone()));
        }
        let units = Arc::new(Systemd::default());
        Ok(Self {
            depot: FileDepot::below(with.root).map_err(Failure::State)?,
            vault: FileVault::below(with.root).map_err(Failure::State)?,
            journal: FileJournal::below(with.root).map_err(Failure::State)?,
            clock: SystemClock,
            line,
            server,
            checks: Preflight::new(with, host.files().clone()),
            services: NodeServices::of(with.root, Arc::clone(&units) as _).map_err(Failure::State)?,
            units,
            host,
            wishes: wishes(&with.settings),
        })
    }

    /// How far the machine has come.
    pub(super) fn standing(&self) -> Result<Standing, Failure> {
        let loaded = self.journal.load();
        let loaded =
            loaded.map_err(|error| Failure::diagnosed(error.into_diagnosis(Phase::Initialization)))?;
        Ok(loaded.entry.standing)
    }

    /// What a join can touch.
    pub(super) fn join_world<'a>(
        &'a self,
        token: &'a dyn TokenSource,
        patience: Patience,
        stop: watch::Receiver<bool>,
    ) -> JoinWorld<'a> {
        JoinWorld {
            server: &self.line,
            host: &self.host,
            depot: &self.depot,
            checks: &self.checks,
            services: &self.services,
            vault: &self.vault,
            journal: &self.journal,
            clock: &self.clock,
            token,
            wishes: &self.wishes,
            patience,
            stop,
        }
    }

    /// What attendance can touch.
    pub(super) fn attend_world<'a>(
        &'a self,
        tell: &'a (dyn Fn(&Told) + Send + Sync),
        stop: watch::Receiver<bool>,
    ) -> AttendWorld<'a> {
        AttendWorld {
            server: &self.line,
            host: &self.host,
            checks: &self.checks,
            services: &self.services,
            vault: &self.vault,
            journal: &self.journal,
            clock: &self.clock,
            tell,
            stop,
        }
    }
}

/// How long a join may wait, from now.
pub(super) fn patience(settings: &Settings) -> Patience {
    let until = |timeout: Duration| Instant::now().checked_add(timeout);
    Patience { deadline: settings.timeout.value.and_then(until), no_wait: settings.no_wait.value }
}

fn server(with: &Context<'_>) -> Result<Remembered, Failure> {
    let settings = &with.settings;
    match &settings.server.value {
        Some(server) => {
            Ok(Remembered { server: server.clone(), server_name: settings.server_name.value.clone() })
        }
        None => Remembered::load(with.root).ok_or(Failure::NoServer),
    }
}

fn wishes(settings: &Settings) -> Wishes {
    Wishes {
        pins: settings.ca_pins.value.iter().map(|pin| pin.0).collect(),
        node_name: settings.node_name.value.clone(),
        pool: settings.pool.value.clone(),
        agent_version: cli::VERSION.to_owned(),
    }
}
