//! What goes into a bundle: files and directories that an operator names, each known
//! for what it is by its name and its own bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use berth_domain::bundle::{FileName, NotAFileName, Place};
use berth_domain::facts::Arch;

use super::image;

/// What an operator asks for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Directories whose files are known by their names.
    pub directories: Vec<PathBuf>,
    /// Files by place; images may be directories.
    pub files: Vec<(Place, PathBuf)>,
    /// Versions by file name.
    pub versions: BTreeMap<String, String>,
    /// Licences by file name, SPDX expressions.
    pub licenses: BTreeMap<String, String>,
}

/// One file to be.
#[derive(Debug)]
pub(super) struct Ingredient {
    pub(super) place: Place,
    pub(super) name: FileName,
    pub(super) architecture: Option<Arch>,
    pub(super) version: Option<String>,
    pub(super) license: Option<String>,
    pub(super) references: Vec<String>,
    pub(super) source: Source,
}

/// Where its bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file, as it is.
    File(PathBuf),
    /// An unpacked OCI layout, as the archive that containerd imports.
    Layout(PathBuf),
}

/// Why something cannot go into a bundle.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("reading {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said, or what is wrong with it.
        #[source]
        cause: io::Error,
    },
    /// Nobody knows what it is.
    #[error(
        "{path} is no program, unit or image that is known: name it with --program, --cni, --unit or --image, or take it away"
    )]
    Unknown {
        /// Which.
        path: PathBuf,
    },
    /// A program is none.
    #[error("{path} is no ELF program for an architecture that Kubernetes is built for")]
    NoProgram {
        /// Which.
        path: PathBuf,
    },
    /// Its name cannot stand in a manifest.
    #[error("{path} cannot keep its name")]
    Name {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: NotAFileName,
    },
    /// A version or licence for nothing.
    #[error("{flag} names {name:?}, and nothing in the bundle is called so")]
    Nobody {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
    },
    /// Nothing was named.
    #[error(
        "nothing was given to put into the bundle: name a directory with --from, or files with --program, --cni, --unit and --image"
    )]
    Nothing,
}

/// Plugins of the CNI project (github.com/containernetworking/plugins), which some
/// distributions put among other programs.
const CNI_PLUGINS: [&str; 19] = [
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "flannel",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Programs of these names are under the Apache License unless it is said otherwise.
const APACHE: [&str; 8] =
    ["kubelet", "kubectl", "kubeadm", "containerd", "containerd-shim-runc-v2", "runc", "crictl", "ctr"];

/// Kinds of units (systemd.unit(5)).
const UNITS: [&str; 7] = [".service", ".socket", ".slice", ".mount", ".timer", ".path", ".target"];

/// Texts that lie beside programs and go nowhere.
const PAPERS: [&str; 4] = ["LICENSE", "NOTICE", "README", "CHANGELOG"];

/// Gathers what was asked for, in the order of place, name and architecture.
pub(super) fn gather(asked: &Asked) -> Result<Vec<Ingredient>, SourceError> {
    let mut all = Vec::new();
    for directory in &asked.directories {
        walk(directory, None, &mut all)?;
    }
    for (place, path) in &asked.files {
        all.push(ingredient(*place, path)?);
    }
    if all.is_empty() {
        return Err(SourceError::Nothing);
    }
    let known = |name: &String| all.iter().any(|one: &Ingredient| one.name.as_str() == name);
    for (flag, names) in [("--set-version", &asked.versions), ("--set-license", &asked.licenses)] {
        if let Some(name) = names.keys().find(|name| !known(name)) {
            return Err(SourceError::Nobody { flag, name: name.clone() });
        }
    }
    for one in &mut all {
        one.version = asked.versions.get(one.name.as_str()).cloned();
        one.license = asked.licenses.get(one.name.as_str()).cloned().or_else(|| usual_license(one));
    }
    let order = |one: &Ingredient| (one.place, one.name.clone(), one.architecture.map(Arch::as_str));
    all.sort_by_key(order);
    Ok(all)
}

fn usual_license(one: &Ingredient) -> Option<String> {
    let is_apache = one.place == Place::Cni || APACHE.contains(&one.name.as_str());
    is_apache.then(|| "Apache-2.0".to_owned())
}

/// A directory: `bin` and the like are looked into, `cni` makes its programs plugins.
fn walk(directory: &Path, place: Option<Place>, all: &mut Vec<Ingredient>) -> Result<(), SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: directory.to_owned(), cause };
    let found = std::fs::read_dir(directory).map_err(unreadable)?;
    let mut paths = found
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(unreadable)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || PAPERS.iter().any(|paper| name.starts_with(paper)) {
            continue;
        }
        if path.is_dir() && !image::is_layout(&path) {
            let cni = (name == "cni" || name.starts_with("cni-")).then_some(Place::Cni);
            walk(&path, place.or(cni), all)?;
            continue;
        }
        let place = known_as(&name, &path, place).ok_or(SourceError::Unknown { path: path.clone() })?;
        all.push(ingredient(place, &path)?);
    }
    Ok(())
}

fn known_as(name: &str, path: &Path, place: Option<Place>) -> Option<Place> {
    if UNITS.iter().any(|kind| name.ends_with(kind)) {
        return Some(Place::Unit);
    }
    if path.is_dir() || name.ends_with(".tar") {
        return Some(Place::Image);
    }
    elf(path).ok().flatten()?;
    let usual = if CNI_PLUGINS.contains(&name) { Place::Cni } else { Place::Program };
    Some(place.unwrap_or(usual))
}

fn ingredient(place: Place, path: &Path) -> Result<Ingredient, SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_layout = path.is_dir();
    let name = if is_layout { format!("{name}.tar") } else { name };
    let name: FileName = name.parse().map_err(|cause| SourceError::Name { path: path.to_owned(), cause })?;
    let (architecture, references) = match place {
        Place::Program | Place::Cni => {
            let arch = elf(path).map_err(unreadable)?;
            (Some(arch.ok_or(SourceError::NoProgram { path: path.to_owned() })?), Vec::new())
        }
        Place::Unit => (None, Vec::new()),
        Place::Image => {
            let image = image::read(path).map_err(unreadable)?;
            (image.architecture, image.references)
        }
    };
    let source = if is_layout { Source::Layout(path.to_owned()) } else { Source::File(path.to_owned()) };
    Ok(Ingredient { place, name, architecture, version: None, license: None, references, source })
}

/// The architecture of a program; `None` for what is no program.
fn elf(path: &Path) -> io::Result<Option<Arch>> {
    let mut header = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut header)?;
    Ok(Arch::from_elf_header(&header))
}

impl Source {
    /// Writes all its bytes: the same every time.
    pub(super) fn pour(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::File(path) => io::copy(&mut File::open(path)?, to).map(drop),
            Self::Layout(path) => {
                let mut tar = tar::Builder::new(to);
                add(&mut tar, path, Path::new(""))?;
                tar.finish()
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Layout(path) => path,
        }
    }
}

/// Adds a layout's files in the order of their names. What is neither file nor
/// directory has no place in a layout.
fn add(tar: &mut tar::Builder<&mut dyn Write>, root: &Path, below: &Path) -> io::Result<()> {
    let mut names = std::fs::read_dir(root.join(below))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let inside = below.join(name);
        let path = root.join(&inside);
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            add(tar, root, &inside)?;
        } else if kind.is_file() {
            let mut file = File::open(&path)?;
            let mut header = header(file.metadata()?.len());
            tar.append_data(&mut header, &inside, &mut file)?;
        } else {
            let what = format!("{} is neither file nor directory", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
    Ok(())
}

/// The head of a file in an archive: nothing of the machine, the user or the hour.
pub(super) fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}
