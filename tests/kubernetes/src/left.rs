//! A cluster that outlives who started it: found by its folder, looked at, and
//! ended.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::Api;
use crate::components::{Addresses, Component, KUBECONFIGS, PKI};
use crate::hollow::remove_sockets;
use crate::modules::version;
use crate::pki::keep;
use crate::process::{IDS, TICK, belongs, kill, log_file};

/// A cluster in a folder.
pub struct Left {
    folder: PathBuf,
    state: State,
}

/// A process of such a cluster.
pub struct Standing {
    /// A component, or a hollow node.
    pub name: String,
    /// Its process, if it runs.
    pub id: Option<u32>,
    /// Its memory in KiB, if it runs.
    pub memory: Option<u64>,
    /// Whether a component answers that it is ready.
    pub ready: Option<bool>,
}

impl Left {
    /// The cluster in this folder, if there is one.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        // The processes know the folder by this name.
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(None) };
        if !folder.join(STATE).exists() {
            return Ok(None);
        }
        let state = State::read(&folder)?;
        Ok(Some(Self { folder, state }))
    }

    /// The kubeconfig of its administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join(KUBECONFIGS).join("admin.conf")
    }

    /// Each of its processes, as it stands.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub fn standing(&self) -> Result<Vec<Standing>> {
        let mut ids = self.ids()?;
        let mut all = Vec::new();
        for component in Component::ALL {
            let name = component.to_string();
            let at = ids.iter().position(|(of, _)| *of == name);
            let id = at.map(|at| ids.remove(at).1);
            let ready = match id {
                Some(_) => {
                    let pki = self.folder.join(PKI);
                    let admin = "apiserver-kubelet-client";
                    let api = Api::of_component(self.state.address(component)?, &pki, "ca.crt", admin)?;
                    self.state.health_api(component, &self.folder, &api)?.answers(component.health_path())
                }
                None => false,
            };
            all.push(Standing { name, id, memory: id.and_then(memory), ready: Some(ready) });
        }
        let nodes = ids.into_iter();
        all.extend(nodes.map(|(name, id)| Standing { name, id: Some(id), memory: memory(id), ready: None }));
        Ok(all)
    }

    /// Ends it and removes its folder.
    ///
    /// # Errors
    /// A process does not go, or the folder cannot be removed.
    pub fn end(self) -> Result<()> {
        let ids = self.ids()?;
        for (_, id) in &ids {
            kill(*id, Signal::KILL)?;
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while let Some((name, id)) = ids.iter().find(|(_, id)| belongs(*id, &self.folder)) {
            if Instant::now() > deadline {
                bail!("{name} (process {id}) does not end");
            }
            thread::sleep(TICK);
        }
        for (name, _) in &ids {
            remove_sockets(&log_file(&self.folder, name));
        }
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }

    /// Names and ids of its processes that run.
    fn ids(&self) -> Result<Vec<(String, u32)>> {
        let folder = self.folder.join(IDS);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.context("reading the ids of a cluster's processes")?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let id = fs::read_to_string(&path).ok().and_then(|id| id.trim().parse().ok());
            found.extend(id.filter(|id| belongs(*id, &self.folder)).map(|id| (name, id)));
        }
        found.sort();
        Ok(found)
    }
}

/// Where the components of a cluster listen, as its folder keeps it.
#[derive(Clone, Debug)]
pub(crate) struct State(Value);

impl State {
    pub(crate) fn new(addresses: &Addresses) -> Self {
        let listening = |component: Component| (component.to_string(), json!(addresses.of(component)));
        let listening: serde_json::Map<_, _> = Component::ALL.into_iter().map(listening).collect();
        Self(json!({"version": version(), "listening": listening}))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        keep(&folder.join(STATE), &format!("{:#}\n", self.0))
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?))
    }

    fn address(&self, component: Component) -> Result<SocketAddr> {
        let text = self.0.pointer(&format!("/listening/{component}")).and_then(Value::as_str);
        let text = text.with_context(|| format!("{STATE} does not say where {component} listens"))?;
        text.parse().with_context(|| format!("{STATE} says that {component} listens at {text}"))
    }

    /// A way to ask a component whether it is ready. `admin` asks the API server.
    pub(crate) fn health_api(&self, component: Component, folder: &Path, admin: &Api) -> Result<Api> {
        let pki = folder.join(PKI);
        let address = self.address(component)?;
        match component {
            Component::Etcd => Api::of_component(address, &pki, "etcd/ca.crt", "apiserver-etcd-client"),
            Component::ApiServer => Ok(admin.clone()),
            Component::ControllerManager | Component::Scheduler => {
                let ca = fs::read(pki.join("ca.crt")).context("reading the cluster's CA")?;
                Api::with_token(address, &ca, None)
            }
        }
    }
}

/// Resident memory in KiB.
fn memory(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

const STATE: &str = "cluster.json";
const GONE_WITHIN: Duration = Duration::from_secs(10);
