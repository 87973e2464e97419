//! The programs of a cluster and where they lie: first in the directory that
//! `KUBEBUILDER_ASSETS` names, then in the cache that `cargo xtask cluster build`
//! fills.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::modules;

/// A program that is built from the pinned modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store of a cluster.
    Etcd,
    /// What everybody talks to.
    ApiServer,
    /// Signs requests, cleans tokens, watches nodes.
    ControllerManager,
    /// Gives pods to nodes.
    Scheduler,
    /// The command line.
    Kubectl,
    /// A kubelet whose containers are not real.
    Kubemark,
    /// Prepares a cluster for `kubeadm join`.
    Kubeadm,
    /// The kubelet itself: only for machines that are real.
    Kubelet,
}

impl Program {
    /// What a cluster of hollow nodes needs: all but the kubelet.
    pub const USUAL: [Self; 7] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubectl,
        Self::Kubemark,
        Self::Kubeadm,
    ];

    /// Its file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Kubemark => "kubemark",
            Self::Kubeadm => "kubeadm",
            Self::Kubelet => "kubelet",
        }
    }
}

/// The directories where programs are looked for, best first.
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Where this machine has them; they may be missing.
    ///
    /// # Errors
    /// No cache directory can be named.
    pub fn of_this_machine() -> Result<Self> {
        let given = std::env::var_os(ASSETS).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Ok(Self { folders: given.into_iter().chain([cache()?]).collect() })
    }

    /// The path of a program.
    ///
    /// # Errors
    /// It is nowhere; says how to get it.
    pub fn path(&self, program: Program) -> Result<PathBuf> {
        self.find(program).with_context(|| self.advice(&[program]))
    }

    /// Those of `wanted` that are nowhere.
    #[must_use]
    pub fn missing(&self, wanted: &[Program]) -> Vec<Program> {
        wanted.iter().copied().filter(|program| self.find(*program).is_none()).collect()
    }

    /// What to do about programs that are missing.
    #[must_use]
    pub fn advice(&self, missing: &[Program]) -> String {
        let names: Vec<&str> = missing.iter().map(|program| program.name()).collect();
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        format!(
            "no {} in {}; to mend: cargo xtask cluster build, or {ASSETS}=DIRECTORY that has it",
            names.join(", "),
            folders.join(" or ")
        )
    }

    fn find(&self, program: Program) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(program.name())).find(|path| path.is_file())
    }
}

/// The programs for a test. Where some are missing, says so past libtest's
/// capture and gives nothing, so that the test can leave.
///
/// # Errors
/// Some are missing where `CI` is true: there a test that did not run has failed.
pub fn programs_for_tests(wanted: &[Program]) -> Result<Option<Programs>> {
    let programs = Programs::of_this_machine()?;
    let missing = programs.missing(wanted);
    if missing.is_empty() {
        return Ok(Some(programs));
    }
    let advice = programs.advice(&missing);
    if std::env::var_os("CI").is_some_and(|ci| ["true", "1"].map(OsString::from).contains(&ci)) {
        bail!("the test did not run: {advice}");
    }
    writeln!(std::io::stderr(), "NOT RUN: a test that needs a cluster: {advice}")
        .context("saying that a test did not run")?;
    Ok(None)
}

/// The directory for programs of the pinned version.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(berth_cache()?.join("kubernetes").join(modules::release()).join("bin"))
}

/// The directory for what is built once and outlives any clone.
///
/// # Errors
/// Neither HOME nor XDG_CACHE_HOME is set.
pub fn berth_cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| home.join(".cache")));
    let base = base.context("no place for a cache; to mend: set HOME or XDG_CACHE_HOME")?;
    Ok(base.join("berth"))
}

/// The variable of Kubernetes' own test environments.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";
