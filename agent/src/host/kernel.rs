//! The running kernel: modules loaded and settings set, each recorded before it is
//! changed, and put back by `undo`. Below another root than `/` nothing is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::program;
use crate::files::{State, Tree};
use crate::plan::{Live, Plan};
use crate::ports::{ApplyError, Left, Undone};

/// How long modprobe may take: a module may look for its hardware.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel of the running system.
#[derive(Clone)]
pub(super) struct Kernel {
    proc: PathBuf,
    state: State,
    live: bool,
}

/// What Berth has changed, and what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    /// Modules that were not loaded.
    modules: BTreeSet<String>,
    /// By name: the value that was there, and ours.
    settings: BTreeMap<String, (String, String)>,
}

impl Kernel {
    /// The kernel, as it is set below `proc`; untouched unless the root is `/`.
    pub(super) fn new(tree: &Tree, proc: &Path, live: bool) -> Self {
        Self { proc: proc.to_owned(), state: State::at(tree.clone(), crate::files::STATE_DIRECTORY), live }
    }

    /// Makes the plan's modules and settings so. What is so already is not touched.
    pub(super) fn apply(&self, plan: &Plan) -> Result<Vec<String>, ApplyError> {
        let mut changed = Vec::new();
        for live in plan.live.iter().filter(|_| self.live) {
            let did = match live {
                Live::Module { name } => self.load(name)?,
                Live::Setting { name, value } => self.set(name, value)?,
                Live::Unit { .. } => false,
            };
            if did {
                changed.push(live.name().to_owned());
            }
        }
        Ok(changed)
    }

    /// What a module or setting is now, in a word; nothing elsewhere than on the
    /// running system.
    pub(super) fn stands(&self, live: &Live) -> Option<String> {
        match live {
            Live::Module { name } if self.live => {
                Some(if self.is_loaded(name) { "loaded" } else { "not loaded" }.to_owned())
            }
            Live::Setting { name, .. } if self.live => self.value(name).ok(),
            Live::Module { .. } | Live::Setting { .. } | Live::Unit { .. } => None,
        }
    }

    /// Puts settings back that nobody else has changed, and takes modules out that
    /// nobody uses.
    pub(super) fn undo(&self, undone: &mut Undone) -> Result<(), ApplyError> {
        let record = self.record()?;
        for (name, (before, ours)) in record.settings.iter().filter(|_| self.live) {
            let path = self.path(name);
            match self.value(name) {
                Ok(stands) if stands == *ours => {
                    fs::write(&path, before).map_err(|cause| not_set(name, &stands, before, &cause))?;
                    undone.restored.push(path);
                }
                Ok(stands) if stands == *before => {}
                Ok(_) => undone.left.push(Left { path, why: "somebody else has changed it since" }),
                // It went with its module.
                Err(_) => {}
            }
        }
        for name in record.modules.iter().filter(|name| self.live && self.is_loaded(name)) {
            match program::run("modprobe", &["--remove", name], PATIENCE) {
                Ok(_) => undone.removed.push(module_path(name)),
                Err(_) => undone.left.push(Left { path: module_path(name), why: "the kernel uses it" }),
            }
        }
        self.state.remove(RECORD).map_err(|cause| self.not_kept(cause))
    }

    fn load(&self, name: &'static str) -> Result<bool, ApplyError> {
        if self.is_loaded(name) {
            return Ok(false);
        }
        let mut record = self.record()?;
        record.modules.insert(name.to_owned());
        self.keep(&record)?;
        let loaded = program::run("modprobe", &[name], PATIENCE);
        loaded.map_err(|cause| ApplyError::Module { name, path: module_path(name), cause })?;
        Ok(true)
    }

    fn set(&self, name: &'static str, value: &'static str) -> Result<bool, ApplyError> {
        let stands = match self.value(name) {
            Ok(stands) if stands == value => return Ok(false),
            Ok(stands) => stands,
            Err(cause) => return Err(not_set(name, "not there", value, &cause)),
        };
        let mut record = self.record()?;
        let before = record.settings.get(name).map_or_else(|| stands.clone(), |(before, _)| before.clone());
        record.settings.insert(name.to_owned(), (before, value.to_owned()));
        self.keep(&record)?;
        fs::write(self.path(name), value).map_err(|cause| not_set(name, &stands, value, &cause))?;
        Ok(true)
    }

    fn value(&self, name: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path(name))?.trim().to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proc.join("sys").join(name.replace('.', "/"))
    }

    fn is_loaded(&self, name: &str) -> bool {
        let is_it = |line: &str| (line.split(' ').next() == Some(name)).then_some(());
        super::survey::find(&self.proc.join("modules"), is_it).is_some()
    }

    fn record(&self) -> Result<Record, ApplyError> {
        let failed = |cause| ApplyError::Record { path: self.state.path(RECORD), cause };
        let Some(content) = self.state.read(RECORD).map_err(failed)? else { return Ok(Record::default()) };
        serde_json::from_slice(&content).map_err(|error| failed(error.into()))
    }

    fn keep(&self, record: &Record) -> Result<(), ApplyError> {
        let written = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        written.and_then(|content| self.state.write(RECORD, &content)).map_err(|cause| self.not_kept(cause))
    }

    fn not_kept(&self, cause: io::Error) -> ApplyError {
        let rolled_back = crate::ports::RolledBack::Nothing;
        ApplyError::NotWritten { path: self.state.path(RECORD), cause, rolled_back }
    }
}

fn module_path(name: &str) -> PathBuf {
    Path::new("/sys/module").join(name)
}

fn not_set(name: &str, found: &str, wanted: &str, cause: &io::Error) -> ApplyError {
    let path = PathBuf::from(format!("/proc/sys/{}", name.replace('.', "/")));
    let found = format!("{found} ({cause})");
    ApplyError::Setting { name: name.to_owned(), path, found, wanted: wanted.to_owned() }
}

const RECORD: &str = "kernel.json";

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel whose settings are files, with one that it lets nobody write.
    fn kernel() -> (tempfile::TempDir, Kernel) {
        let directory = tempfile::tempdir().expect("a directory");
        let proc = directory.path().join("proc");
        fs::create_dir_all(proc.join("sys/net/ipv4")).expect("directories");
        fs::write(proc.join("sys/net/ipv4/ip_forward"), "0\n").expect("a setting");
        fs::write(proc.join("modules"), "overlay 155648 0 - Live 0x0000000000000000\n").expect("modules");
        let tree = Tree::open(directory.path()).expect("a root");
        let kernel = Kernel::new(&tree, &proc, true);
        (directory, kernel)
    }

    fn plan(live: Live) -> Plan {
        Plan { steps: Vec::new(), live: vec![live] }
    }

    #[test]
    fn a_setting_is_set_once_and_put_back() {
        let (_directory, kernel) = kernel();
        let forward = plan(Live::Setting { name: "net.ipv4.ip_forward", value: "1" });
        assert_eq!(kernel.apply(&forward).expect("it can be set"), ["net.ipv4.ip_forward"]);
        assert_eq!(kernel.value("net.ipv4.ip_forward").expect("a setting"), "1");
        assert_eq!(kernel.apply(&forward).expect("it is set"), [""; 0]);
        let mut undone = Undone::default();
        kernel.undo(&mut undone).expect("it can be put back");
        assert_eq!(kernel.value("net.ipv4.ip_forward").expect("a setting"), "0");
        assert_eq!(undone.restored.len(), 1);
        kernel.undo(&mut undone).expect("nothing is left to do");
        assert_eq!(undone.restored.len(), 1);
    }

    #[test]
    fn what_somebody_else_has_set_since_stays() {
        let (_directory, kernel) = kernel();
        let forward = plan(Live::Setting { name: "net.ipv4.ip_forward", value: "1" });
        kernel.apply(&forward).expect("it can be set");
        fs::write(kernel.path("net.ipv4.ip_forward"), "2").expect("a setting");
        let mut undone = Undone::default();
        kernel.undo(&mut undone).expect("nothing fails");
        assert_eq!((undone.restored.len(), undone.left.len()), (0, 1));
        assert_eq!(kernel.value("net.ipv4.ip_forward").expect("a setting"), "2");
    }

    #[test]
    fn a_setting_that_is_not_there_is_told_with_its_value() {
        let (_directory, kernel) = kernel();
        let absent = plan(Live::Setting { name: "net.ipv6.conf.all.forwarding", value: "1" });
        let why = kernel.apply(&absent).expect_err("it is not there");
        let why = why.into_diagnosis(berth_domain::phase::Phase::Initialization);
        assert_eq!(why.code(), berth_domain::diagnosis::Code::SysctlWrong);
        assert_eq!(why.value("wanted"), Some("1"));
    }

    #[test]
    fn a_loaded_module_is_nobody_s_to_load() {
        let (_directory, kernel) = kernel();
        let overlay = plan(Live::Module { name: "overlay" });
        assert_eq!(kernel.apply(&overlay).expect("it is there"), [""; 0]);
        assert_eq!(kernel.stands(&Live::Module { name: "overlay" }).as_deref(), Some("loaded"));
        assert_eq!(kernel.record().expect("none"), Record::default());
    }

    #[test]
    fn elsewhere_than_on_the_running_system_nothing_is_done() {
        let (_directory, kernel) = kernel();
        let elsewhere = Kernel { live: false, ..kernel };
        let forward = plan(Live::Setting { name: "net.ipv4.ip_forward", value: "1" });
        assert_eq!(elsewhere.apply(&forward).expect("nothing to do"), [""; 0]);
        assert_eq!(elsewhere.stands(&Live::Setting { name: "net.ipv4.ip_forward", value: "1" }), None);
        assert_eq!(elsewhere.value("net.ipv4.ip_forward").expect("a setting"), "0");
    }
}
