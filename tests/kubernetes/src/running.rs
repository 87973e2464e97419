//! The components of a cluster that was started here: run, asked whether they are
//! ready, signalled, ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::api::Api;
use crate::components::{Addresses, Component, command_line};
use crate::left::State;
use crate::options::Options;
use crate::process::{Process, command_in};
use crate::programs::Programs;

/// The components, with all that it takes to start one again as it was.
pub(crate) struct Running {
    folder: PathBuf,
    programs: Programs,
    state: State,
    admin: Api,
    lines: BTreeMap<Component, Vec<String>>,
    processes: Mutex<BTreeMap<Component, Process>>,
}

impl Running {
    /// Starts all of them at once: each waits for those it needs.
    pub(crate) fn start(
        folder: &Path,
        programs: &Programs,
        addresses: &Addresses,
        options: &Options,
        admin: &Api,
    ) -> Result<Self> {
        let state = State::new(addresses);
        state.write(folder)?;
        let line = |component| (component, command_line(component, folder, addresses, options));
        let running = Self {
            folder: folder.to_owned(),
            programs: programs.clone(),
            state,
            admin: admin.clone(),
            lines: Component::ALL.into_iter().map(line).collect(),
            processes: Mutex::default(),
        };
        for component in Component::ALL {
            running.spawn(component)?;
        }
        running.wait_until_ready(&Component::ALL)?;
        Ok(running)
    }

    /// Starts one that was stopped or killed and waits until it is ready.
    pub(crate) fn start_again(&self, component: Component) -> Result<()> {
        if self.processes().contains_key(&component) {
            bail!("{component} runs: stop or kill it first");
        }
        self.spawn(component)?;
        self.wait_until_ready(&[component])
    }

    pub(crate) fn take(&self, component: Component) -> Result<Process> {
        self.processes().remove(&component).with_context(|| format!("{component} does not run"))
    }

    pub(crate) fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        let mut processes = self.processes();
        processes.get_mut(&component).with_context(|| format!("{component} does not run"))?.signal(signal)
    }

    pub(crate) fn id(&self, component: Component) -> Result<u32> {
        let processes = self.processes();
        processes.get(&component).map(Process::id).with_context(|| format!("{component} does not run"))
    }

    /// Lets all of them outlive this process.
    pub(crate) fn leave(self) {
        let processes = self.processes.into_inner().unwrap_or_else(PoisonError::into_inner);
        processes.into_values().for_each(Process::leave);
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Component, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, component: Component) -> Result<()> {
        let mut command = command_in(&self.folder, &self.programs.path(component.program())?);
        command.args(self.lines.get(&component).into_iter().flatten());
        let process = Process::start(&self.folder, &component.to_string(), command)?;
        self.processes().insert(component, process);
        Ok(())
    }

    fn wait_until_ready(&self, wanted: &[Component]) -> Result<()> {
        let began = Instant::now();
        let mut waiting = Vec::new();
        for component in wanted {
            waiting.push((*component, self.state.health_api(*component, &self.folder, &self.admin)?));
        }
        loop {
            waiting.retain(|(component, api)| !api.answers(component.health_path()));
            if waiting.is_empty() {
                return Ok(());
            }
            for (component, _) in &waiting {
                self.hope_for(*component, began.elapsed())?;
            }
            thread::sleep(POLL);
        }
    }

    /// Fails if the component cannot become ready any more, or is too late.
    fn hope_for(&self, component: Component, waited: Duration) -> Result<()> {
        let mut processes = self.processes();
        let process = processes.get_mut(&component).with_context(|| format!("{component} does not run"))?;
        let how = match process.ended()? {
            Some(status) => format!("ended with {status}"),
            None if waited > READY_WITHIN => "is not ready".to_owned(),
            None => return Ok(()),
        };
        bail!("{component} {how} after {:.1} s; it said:\n{}", waited.as_secs_f64(), process.last_words());
    }
}

const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
