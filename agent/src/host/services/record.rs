//! The record of what Berth has started, and how it was before: below the agent's
//! state directory, written before each effect.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::identity::Digest;
use berth_domain::phase::Phase;
use serde::{Deserialize, Serialize};

use crate::files::{STATE_DIRECTORY, State, Tree};
use crate::plan::{CONTAINERD, Expected};
use crate::ports::FileError;

/// The record's file.
#[derive(Clone)]
pub(super) struct Record(State);

/// What it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    /// The runtime's socket, once anything was to be started.
    socket: Option<String>,
    units: BTreeMap<String, Unit>,
    /// What stood in directories that a node's programs fill, before they ran; `None`
    /// for one that was not there.
    pub(super) trees: BTreeMap<String, Option<BTreeSet<String>>>,
    /// Archives of images that the runtime has taken in.
    pub(super) images: BTreeSet<String>,
    /// Network links that were there before.
    pub(super) links: BTreeSet<String>,
}

/// One unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unit {
    /// Whether it ran before Berth first started it.
    pub(super) ran_before: bool,
    /// What it read when Berth last started it; absent while it is being started.
    pub(super) reads: Option<Digest>,
}

impl Record {
    pub(super) fn of(tree: &Tree) -> Self {
        Self(State::at(tree.clone(), STATE_DIRECTORY))
    }

    pub(super) fn load(&self) -> io::Result<Kept> {
        let Some(content) = self.0.read(FILE)? else { return Ok(Kept::default()) };
        Ok(serde_json::from_slice(&content)?)
    }

    pub(super) fn save(&self, kept: &Kept) -> io::Result<()> {
        self.0.write(FILE, &serde_json::to_vec_pretty(kept)?)
    }

    pub(super) fn forget(&self) -> io::Result<()> {
        self.0.remove(FILE)
    }

    pub(super) fn not_kept(&self, cause: io::Error, phase: Phase) -> Diagnosis {
        FileError::not_written(self.0.path(FILE))(cause).into_diagnosis(phase)
    }
}

impl Kept {
    /// Before anything is started for the first time: what is there.
    pub(super) fn expect(&mut self, expected: &Expected) {
        self.socket = Some(expected.socket.clone());
        for path in TREES {
            let before = || Path::new(path).is_dir().then(|| names(Path::new(path)));
            self.trees.entry(path.to_owned()).or_insert_with(before);
        }
        if self.links.is_empty() {
            self.links = names(Path::new(LINKS));
        }
    }

    /// What a later process of the agent expects.
    pub(super) fn expected(&self) -> Option<Expected> {
        Some(Expected { socket: self.socket.clone()?, ..Expected::default() })
    }

    /// A unit's entry, made where there is none yet.
    pub(super) fn unit(&mut self, name: &str, runs: impl FnOnce() -> bool) -> &mut Unit {
        self.units.entry(name.to_owned()).or_insert_with(|| Unit { ran_before: runs(), reads: None })
    }

    /// The units that Berth has started, the runtime first.
    pub(super) fn units(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.units.keys().map(String::as_str)
    }

    /// What a unit read when Berth last started it.
    pub(super) fn reads(&self, name: &str) -> Option<Digest> {
        self.units.get(name)?.reads
    }

    /// Whether a unit ran before.
    pub(super) fn ran_before(&self, name: &str) -> bool {
        self.units.get(name).is_some_and(|unit| unit.ran_before)
    }

    /// Whether the runtime is one that Berth has set up.
    pub(super) fn has_own_runtime(&self) -> bool {
        self.units.contains_key(CONTAINERD)
    }
}

/// The names in a directory.
pub(super) fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Directories that the kubelet, the runtime and network add-ons fill.
pub(super) const TREES: [&str; 11] = [
    "/var/lib/kubelet",
    "/var/lib/kubelet/pki",
    "/var/lib/containerd",
    "/run/containerd",
    "/opt/containerd",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/var/log/pods",
    "/var/log/containers",
];

pub(super) const LINKS: &str = "/sys/class/net";

const FILE: &str = "services.json";
