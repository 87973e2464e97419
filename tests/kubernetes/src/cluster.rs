//! A cluster: started, its components stopped, killed, paused and started again,
//! and everybody's way into it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::api::Api;
use crate::audit::AuditLog;
use crate::caretaker::Caretaker;
use crate::components::{
    AUDIT_LOG, AUDIT_POLICY, Addresses, Component, KUBECONFIGS, LOCAL, PKI, audit_policy, command_line,
};
use crate::left::State;
use crate::pki::{Identity, Pki, YEAR, keep};
use crate::process::{IDS, LOGS, Process, command_in};
use crate::programs::{Programs, programs_for_tests};
use crate::{Program, kubeconfig};

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server listens; the others stay on loopback.
    pub address: IpAddr,
    /// Further flags. Each takes the place of ours with the same name.
    pub flags: Vec<(Component, String)>,
    /// True if etcd shall keep its writes through a crash of the machine.
    pub durable: bool,
    /// A new folder for all files; a temporary one if none is named.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: LOCAL, flags: Vec::new(), durable: false, folder: None }
    }
}

impl Options {
    /// The same with one more flag, such as `--controllers=*,-csrsigning`.
    #[must_use]
    pub fn flag(mut self, component: Component, flag: &str) -> Self {
        self.flags.push((component, flag.to_owned()));
        self
    }
}

/// A cluster. One that was started here is ended, and its files removed, with
/// this value or with this process. One that was borrowed can be asked, and take
/// hollow nodes; its components, keys and audit log are out of reach, and methods
/// about them say so.
pub struct Cluster {
    pub(crate) folder: PathBuf,
    pub(crate) programs: Programs,
    kubeconfig: PathBuf,
    api: Api,
    // In the order of their end: processes before the folder.
    own: Option<Own>,
    _borrowed: Option<tempfile::TempDir>,
}

/// What is ours only if we started it.
struct Own {
    pki: Pki,
    state: State,
    lines: BTreeMap<Component, Vec<String>>,
    running: Mutex<BTreeMap<Component, Process>>,
    identities: AtomicU32,
    caretaker: Caretaker,
}

impl Cluster {
    /// Starts a cluster and waits until all its components are ready.
    ///
    /// # Errors
    /// A program is missing, or a component ended or was not ready in time: with
    /// the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let programs = Programs::of_this_machine()?;
        let mut attempts = 1..=ATTEMPTS;
        loop {
            let attempt = attempts.next();
            match Self::attempt(options, &programs) {
                // Another process took a port between our choice and its use.
                Err(error)
                    if attempt.is_some() && format!("{error:#}").contains("address already in use") => {}
                done => return done,
            }
        }
    }

    /// The cluster for a test: the one that `BERTH_TEST_KUBECONFIG` names, unless
    /// the test wants flags; else a new one. Nothing, said loudly, where the
    /// programs are missing.
    ///
    /// # Errors
    /// It does not start; or programs are missing where `CI` is true.
    pub fn for_tests(options: &Options) -> Result<Option<Self>> {
        let borrowed = std::env::var_os(BORROWED).filter(|path| !path.is_empty()).map(PathBuf::from);
        match (borrowed, programs_for_tests(&Program::USUAL)?) {
            (Some(kubeconfig), _) if options.flags.is_empty() => Self::from_kubeconfig(&kubeconfig).map(Some),
            (_, Some(_)) => Self::start(options).map(Some),
            (_, None) => Ok(None),
        }
    }

    /// Borrows a cluster of the user's own.
    ///
    /// # Errors
    /// The file cannot be read, or names neither a certificate nor a token.
    pub fn from_kubeconfig(kubeconfig: &Path) -> Result<Self> {
        let programs = Programs::of_this_machine()?;
        let folder = temporary_folder()?;
        for name in [IDS, LOGS] {
            fs::create_dir(folder.path().join(name)).context("making a folder for a borrowed cluster")?;
        }
        let kubeconfig = fs::canonicalize(kubeconfig);
        let kubeconfig = kubeconfig.context("finding the kubeconfig of a borrowed cluster")?;
        let api = crate::kubectl::api_of(&programs, folder.path(), &kubeconfig)?;
        let path = folder.path().to_owned();
        Ok(Self { folder: path, programs, kubeconfig, api, own: None, _borrowed: Some(folder) })
    }

    /// The kubeconfig of an administrator (`system:masters`).
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server, asked as an administrator.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The folder of all files; logs are below `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster's keys, its CA's among them.
    ///
    /// # Errors
    /// The cluster is borrowed.
    pub fn pki(&self) -> Result<&Pki> {
        Ok(&self.own()?.pki)
    }

    /// A new kubeconfig for a user in these groups, two at most, good for a year.
    ///
    /// # Errors
    /// The cluster is borrowed, or there are more groups.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        self.kubeconfig_with(user, &self.pki()?.identity(user, groups, YEAR)?)
    }

    /// A new kubeconfig for a user whose certificate is at hand.
    ///
    /// # Errors
    /// The cluster is borrowed.
    pub fn kubeconfig_with(&self, user: &str, identity: &Identity) -> Result<PathBuf> {
        let own = self.own()?;
        let number = own.identities.fetch_add(1, Ordering::Relaxed);
        let file = format!("{}-{number}.conf", user.replace(['/', ':'], "-"));
        let path = self.folder.join(KUBECONFIGS).join(file);
        kubeconfig::write(&path, self.api.address(), own.pki.ca_pem(), user, identity)?;
        Ok(path)
    }

    /// The kubeconfig that a node of this name has once it has joined.
    ///
    /// # Errors
    /// The cluster is borrowed.
    pub fn node_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        self.kubeconfig_for(&format!("system:node:{name}"), &["system:nodes"])
    }

    /// What the API server records of requests, from now on.
    ///
    /// # Errors
    /// The cluster is borrowed.
    pub fn audit_from_now(&self) -> Result<AuditLog> {
        self.own()?;
        AuditLog::from_now(self.folder.join(AUDIT_LOG))
    }

    /// Asks a component to end, and waits until it has.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn stop(&self, component: Component) -> Result<()> {
        self.take(component)?.stop(GRACE)
    }

    /// Kills a component: no last words.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn kill(&self, component: Component) -> Result<()> {
        self.take(component).map(drop)
    }

    /// Starts a component that was stopped or killed, on the same port and data,
    /// and waits until it is ready.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component runs or does not become ready.
    pub fn start_again(&self, component: Component) -> Result<()> {
        let own = self.own()?;
        if own.running().contains_key(&component) {
            bail!("{component} runs: stop or kill it first");
        }
        own.spawn(component, &self.folder, &self.programs)?;
        own.wait_until_ready(&[component], &self.folder, &self.api)
    }

    /// Lets a component hang: connections stay open and nothing answers.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn pause(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::STOP)
    }

    /// Lets a component that hangs go on.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn resume(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::CONT)
    }

    /// Waits until a node is Ready; how long that took from this call on.
    ///
    /// # Errors
    /// It was not Ready in time; says what is known of it.
    pub fn wait_for_node(&self, name: &str, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let (status, node) = self.api.request("GET", &format!("/api/v1/nodes/{name}"), None)?;
            if status == 200 && crate::hollow::is_ready(&node) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                bail!("node {name} is not Ready after {within:?}; the API server says: {node}");
            }
            thread::sleep(POLL);
        }
    }

    /// Lets the cluster outlive this process; [`Left`](crate::Left) finds it by
    /// its folder.
    ///
    /// # Errors
    /// The cluster is borrowed, or its caretaker cannot be dismissed.
    pub fn leave(mut self) -> Result<PathBuf> {
        let own = self.own.take().context(NOT_OURS)?;
        let running = own.running.into_inner().unwrap_or_else(PoisonError::into_inner);
        own.caretaker.dismiss()?;
        running.into_values().for_each(Process::leave);
        Ok(self.folder.clone())
    }

    fn attempt(options: &Options, programs: &Programs) -> Result<Self> {
        let folder = new_folder(options.folder.as_deref())?;
        let caretaker = Caretaker::start(&folder)?;
        for name in [PKI, KUBECONFIGS, IDS, LOGS, "nodes"] {
            fs::create_dir(folder.join(name))
                .with_context(|| format!("making {name} in {}", folder.display()))?;
        }
        let addresses = Addresses::choose(options.address)?;
        let pki = Pki::make(&folder.join(PKI), options.address)?;
        let identity = |name: &str, user: &str, groups: &[&str]| -> Result<(PathBuf, Identity)> {
            let identity = pki.identity(user, groups, YEAR)?;
            let path = folder.join(KUBECONFIGS).join(format!("{name}.conf"));
            kubeconfig::write(&path, addresses.api_server, pki.ca_pem(), user, &identity)?;
            Ok((path, identity))
        };
        let (kubeconfig, admin) = identity("admin", "kubernetes-admin", &["system:masters"])?;
        identity("controller-manager", "system:kube-controller-manager", &[])?;
        identity("scheduler", "system:kube-scheduler", &[])?;
        keep(&folder.join(AUDIT_POLICY), &audit_policy().to_string())?;
        let state = State::new(&addresses);
        state.write(&folder)?;
        let (certificate, key) = (admin.certificate.as_bytes(), admin.key.as_bytes());
        let api = Api::with_certificate(addresses.api_server, pki.ca_pem().as_bytes(), certificate, key)?;

        let line = |component| (component, command_line(component, &folder, &addresses, options));
        let lines = Component::ALL.into_iter().map(line).collect();
        let own =
            Own { pki, state, lines, running: Mutex::default(), identities: AtomicU32::new(0), caretaker };
        for component in Component::ALL {
            own.spawn(component, &folder, programs)?;
        }
        own.wait_until_ready(&Component::ALL, &folder, &api)?;
        let programs = programs.clone();
        Ok(Self { folder, programs, kubeconfig, api, own: Some(own), _borrowed: None })
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().context(NOT_OURS)
    }

    fn take(&self, component: Component) -> Result<Process> {
        let process = self.own()?.running().remove(&component);
        process.with_context(|| format!("{component} does not run"))
    }

    fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        let mut running = self.own()?.running();
        running.get_mut(&component).with_context(|| format!("{component} does not run"))?.signal(signal)
    }
}

impl Own {
    fn running(&self) -> MutexGuard<'_, BTreeMap<Component, Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, component: Component, folder: &Path, programs: &Programs) -> Result<()> {
        let mut command = command_in(folder, &programs.path(component.program())?);
        command.args(self.lines.get(&component).into_iter().flatten());
        let process = Process::start(folder, &component.to_string(), command)?;
        self.running().insert(component, process);
        Ok(())
    }

    fn wait_until_ready(&self, wanted: &[Component], folder: &Path, api: &Api) -> Result<()> {
        let began = Instant::now();
        let mut waiting = Vec::new();
        for component in wanted {
            waiting.push((*component, self.state.health_api(*component, folder, api)?));
        }
        while !waiting.is_empty() {
            waiting.retain(|(component, api)| !api.answers(component.health_path()));
            for (component, _) in &waiting {
                let mut running = self.running();
                let process =
                    running.get_mut(component).with_context(|| format!("{component} does not run"))?;
                let ended = process.ended()?;
                if ended.is_some() || began.elapsed() > READY_WITHIN {
                    let how =
                        ended.map_or("is not ready".to_owned(), |status| format!("ended with {status}"));
                    bail!(
                        "{component} {how} after {:.1} s; it said:\n{}",
                        began.elapsed().as_secs_f64(),
                        process.last_words()
                    );
                }
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The folder, made if it was not there; a folder with something in it is not
/// ours to clear away.
fn new_folder(named: Option<&Path>) -> Result<PathBuf> {
    let Some(named) = named else { return Ok(temporary_folder()?.keep()) };
    fs::create_dir_all(named).with_context(|| format!("making {}", named.display()))?;
    let folder = fs::canonicalize(named).with_context(|| format!("finding {}", named.display()))?;
    let mut entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty; to mend: name a new folder for the cluster", folder.display());
    }
    Ok(folder)
}

fn temporary_folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("berth-cluster-").tempdir().context("making a temporary folder")
}

/// The variable that names a kubeconfig for tests to use.
pub const BORROWED: &str = "BERTH_TEST_KUBECONFIG";
const NOT_OURS: &str = "this cluster is borrowed: its processes, keys and logs are not ours";
const ATTEMPTS: u32 = 3;
const READY_WITHIN: Duration = Duration::from_secs(90);
/// What a component has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
