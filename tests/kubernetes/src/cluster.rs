//! A cluster: started, its components stopped, killed, paused and started again,
//! and everybody's way into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::api::Api;
use crate::audit::AuditLog;
use crate::caretaker::Caretaker;
use crate::components::{AUDIT_LOG, AUDIT_POLICY, Addresses, Component, KUBECONFIGS, PKI, audit_policy};
use crate::hollow::NODES;
use crate::kubeconfig::{self, Credentials};
use crate::options::Options;
use crate::pki::{Identity, Pki, YEAR, keep};
use crate::process::{IDS, LOGS};
use crate::programs::{Program, Programs, programs_for_tests};
use crate::running::Running;

/// A cluster. One that was started here is ended, and its files removed, with
/// this value or with this process. One that was borrowed can be asked, and take
/// hollow nodes; its components, keys and audit log are out of reach, and methods
/// about them say so.
pub struct Cluster {
    pub(crate) folder: PathBuf,
    pub(crate) programs: Programs,
    kubeconfig: PathBuf,
    api: Api,
    // In the order of their end: processes before the caretaker of the folder.
    running: Option<Running>,
    own: Option<Own>,
    caretaker: Caretaker,
}

/// What is ours only if we started the cluster.
struct Own {
    pki: Pki,
    /// How many kubeconfigs were made: each has a name of its own.
    identities: AtomicU32,
}

impl Cluster {
    /// Starts a cluster and waits until all its components are ready.
    ///
    /// # Errors
    /// A program is missing, or a component ended or was not ready in time: with
    /// the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let programs = Programs::of_this_machine()?;
        for _ in 1..ATTEMPTS {
            match Self::attempt(options, &programs) {
                // Another process took a port between our choice and its use.
                Err(error) if format!("{error:#}").contains("address already in use") => {}
                done => return done,
            }
        }
        Self::attempt(options, &programs)
    }

    /// The cluster for a test: the one that `BERTH_TEST_KUBECONFIG` names, unless
    /// the test wants flags; else a new one. Nothing, said loudly, where the
    /// programs are missing.
    ///
    /// # Errors
    /// It does not start; or programs are missing where `CI` is true.
    pub fn for_tests(options: &Options) -> Result<Option<Self>> {
        let borrowed = std::env::var_os(BORROWED).filter(|path| !path.is_empty()).map(PathBuf::from);
        let borrowed = borrowed.filter(|_| options.flags.is_empty());
        let wanted = if borrowed.is_some() { [Program::Kubectl].as_slice() } else { &Program::USUAL };
        if programs_for_tests(wanted)?.is_none() {
            return Ok(None);
        }
        let cluster = borrowed.map_or_else(|| Self::start(options), |file| Self::from_kubeconfig(&file));
        cluster.map(Some)
    }

    /// Borrows a cluster of the user's own.
    ///
    /// # Errors
    /// The file cannot be read, or names neither a certificate nor a token.
    pub fn from_kubeconfig(kubeconfig: &Path) -> Result<Self> {
        let programs = Programs::of_this_machine()?;
        let kubeconfig = fs::canonicalize(kubeconfig);
        let kubeconfig = kubeconfig.context("finding the kubeconfig of a borrowed cluster")?;
        let (folder, caretaker) = furnished_folder(None)?;
        let api = crate::kubectl::api_of(&programs, &folder, &kubeconfig)?;
        Ok(Self { folder, programs, kubeconfig, api, running: None, own: None, caretaker })
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
        self.new_kubeconfig(user, Credentials::Certificate(identity))
    }

    /// A new kubeconfig for whoever has a token: a bootstrap token, say.
    ///
    /// # Errors
    /// The cluster is borrowed.
    pub fn kubeconfig_of_token(&self, user: &str, token: &str) -> Result<PathBuf> {
        self.new_kubeconfig(user, Credentials::Token(token))
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
        self.running()?.take(component)?.stop(GRACE)
    }

    /// Kills a component: no last words.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn kill(&self, component: Component) -> Result<()> {
        self.running()?.take(component).map(drop)
    }

    /// Starts a component that was stopped or killed, on the same port and data,
    /// and waits until it is ready.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component runs or does not become ready.
    pub fn start_again(&self, component: Component) -> Result<()> {
        self.running()?.start_again(component)
    }

    /// Lets a component hang: connections stay open and nothing answers.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn pause(&self, component: Component) -> Result<()> {
        self.running()?.signal(component, Signal::STOP)
    }

    /// Lets a component that hangs go on.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn resume(&self, component: Component) -> Result<()> {
        self.running()?.signal(component, Signal::CONT)
    }

    /// The process of a component.
    ///
    /// # Errors
    /// The cluster is borrowed, or the component does not run.
    pub fn process(&self, component: Component) -> Result<u32> {
        self.running()?.id(component)
    }

    /// Waits until a node is Ready; how long that took from this call on.
    ///
    /// # Errors
    /// It was not Ready in time; says what is known of it.
    pub fn wait_for_node(&self, name: &str, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            // The API server may be away for a while: some tests see to it.
            let known = match self.api.request("GET", &format!("/api/v1/nodes/{name}"), None) {
                Ok((200, node)) if crate::hollow::is_ready(&node) => return Ok(began.elapsed()),
                Ok((_, answer)) => answer,
                Err(error) => format!("{error:#}"),
            };
            if began.elapsed() > within {
                bail!("node {name} is not Ready after {within:?}; what is known of it: {known}");
            }
            thread::sleep(POLL);
        }
    }

    /// Lets the cluster outlive this process; [`Left`](crate::Left) finds it by
    /// its folder.
    ///
    /// # Errors
    /// The cluster is borrowed, or its caretaker cannot be dismissed.
    pub fn leave(self) -> Result<PathBuf> {
        let running = self.running.context(NOT_OURS)?;
        self.caretaker.dismiss()?;
        running.leave();
        Ok(self.folder)
    }

    fn attempt(options: &Options, programs: &Programs) -> Result<Self> {
        let (folder, caretaker) = furnished_folder(options.folder.as_deref())?;
        let addresses = Addresses::choose(options.address)?;
        let pki = Pki::make(&folder.join(PKI), options.address)?;
        let identity = |name: &str, user: &str, groups: &[&str]| -> Result<(PathBuf, Identity)> {
            let identity = pki.identity(user, groups, YEAR)?;
            let path = folder.join(KUBECONFIGS).join(format!("{name}.conf"));
            kubeconfig::write(
                &path,
                addresses.api_server,
                pki.ca_pem(),
                user,
                Credentials::Certificate(&identity),
            )?;
            Ok((path, identity))
        };
        let (kubeconfig, admin) = identity("admin", "kubernetes-admin", &["system:masters"])?;
        identity("controller-manager", "system:kube-controller-manager", &[])?;
        identity("scheduler", "system:kube-scheduler", &[])?;
        keep(&folder.join(AUDIT_POLICY), &audit_policy().to_string())?;
        let (certificate, key) = (admin.certificate.as_bytes(), admin.key.as_bytes());
        let api = Api::with_certificate(addresses.api_server, pki.ca_pem().as_bytes(), certificate, key)?;

        let running = Running::start(&folder, programs, &addresses, options, &api)?;
        let own = Some(Own { pki, identities: AtomicU32::new(0) });
        let programs = programs.clone();
        Ok(Self { folder, programs, kubeconfig, api, running: Some(running), own, caretaker })
    }

    fn new_kubeconfig(&self, user: &str, credentials: Credentials<'_>) -> Result<PathBuf> {
        let own = self.own()?;
        let number = own.identities.fetch_add(1, Ordering::Relaxed);
        let file = format!("{}-{number}.conf", user.replace(['/', ':'], "-"));
        let path = self.folder.join(KUBECONFIGS).join(file);
        kubeconfig::write(&path, self.api.address(), own.pki.ca_pem(), user, credentials)?;
        Ok(path)
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().context(NOT_OURS)
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context(NOT_OURS)
    }
}

/// The folder for a cluster's files, and who clears it away.
fn furnished_folder(named: Option<&Path>) -> Result<(PathBuf, Caretaker)> {
    let folder = match named {
        Some(named) => empty_folder(named)?,
        None => {
            let folder = tempfile::Builder::new().prefix("berth-cluster-").tempdir();
            folder.context("making a temporary folder for a cluster")?.keep()
        }
    };
    let caretaker = Caretaker::start(&folder)?;
    for name in [PKI, KUBECONFIGS, IDS, LOGS, NODES] {
        fs::create_dir(folder.join(name))
            .with_context(|| format!("making {name} in {}", folder.display()))?;
    }
    Ok((folder, caretaker))
}

/// The folder, made if it was not there; a folder with something in it is not
/// ours to clear away.
fn empty_folder(named: &Path) -> Result<PathBuf> {
    fs::create_dir_all(named).with_context(|| format!("making {}", named.display()))?;
    let folder = fs::canonicalize(named).with_context(|| format!("finding {}", named.display()))?;
    let mut entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty; to mend: name a new folder for the cluster", folder.display());
    }
    Ok(folder)
}

/// The variable that names a kubeconfig for tests to use.
pub const BORROWED: &str = "BERTH_TEST_KUBECONFIG";
const NOT_OURS: &str = "this cluster is borrowed: its processes, keys and logs are not ours";
const ATTEMPTS: u32 = 3;
/// What a component has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
