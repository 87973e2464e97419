//! What a bundle brings to the machine: its files, each where this machine looks for
//! it. They are fetched before the plan is applied, and `reset` takes them away again.

use std::path::{Path, PathBuf};

use berth_domain::bundle::{Bundle, Entry, Place};
use berth_domain::facts::HostFacts;
use berth_domain::identity::Digest;

use super::{Plan, Step};

/// Where what is fetched is kept until it stands.
pub const CACHE: &str = "/var/lib/berth/bundle";

/// The directories of one kind of machine, all writable and on every usual search
/// path. They are made where they are missing; their modes are the machine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of programs.
    pub programs: &'static str,
    /// Of CNI plugins: containerd's own default.
    pub cni: &'static str,
    /// Of units: an administrator's, which overrule those of packages.
    pub units: &'static str,
    /// Of images that wait to be imported.
    pub images: &'static str,
}

impl Layout {
    const USUAL: Self = Self {
        programs: "/usr/local/bin",
        cni: "/opt/cni/bin",
        units: "/etc/systemd/system",
        images: "/var/lib/berth/images",
    };

    /// Systems whose /usr is read-only, by `ID` of os-release(5).
    const OTHERS: [(&'static str, Self); 1] = [("flatcar", Self { programs: "/opt/bin", ..Self::USUAL })];

    /// The layout of a machine.
    #[must_use]
    pub fn of(facts: &HostFacts) -> Self {
        let id = facts.os.id.as_deref().unwrap_or_default();
        Self::OTHERS.iter().find(|(of, _)| *of == id).map_or(Self::USUAL, |(_, layout)| *layout)
    }

    /// Where a file of a bundle stands.
    #[must_use]
    pub fn path(&self, entry: &Entry) -> PathBuf {
        let directory = match entry.place {
            Place::Program => self.programs,
            Place::Cni => self.cni,
            Place::Unit => self.units,
            Place::Image => self.images,
        };
        Path::new(directory).join(entry.name.as_str())
    }
}

/// Where a blob is kept once it was fetched and verified.
#[must_use]
pub fn cached(blob: Digest) -> PathBuf {
    Path::new(CACHE).join("blobs").join(blob.to_hex())
}

/// Plans what a bundle brings to this machine.
#[must_use]
pub fn software(bundle: &Bundle, facts: &HostFacts) -> Plan {
    let Some(architecture) = facts.arch else { return Plan::default() };
    let layout = Layout::of(facts);
    let step = |entry: &Entry| Step::Install {
        path: layout.path(entry),
        mode: entry.place.mode(),
        size: entry.size,
        digest: entry.sha256,
        from: cached(entry.sha256),
    };
    Plan { steps: bundle.manifest().of(architecture).map(step).collect(), live: Vec::new() }
}
