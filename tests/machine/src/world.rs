//! A world: a network of its own, machines in it, and a folder of their state. Who
//! wants a control plane starts one on [`CONTROL`](crate::CONTROL) from a thread
//! that has entered.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::background::{self, PROCESSES};
use crate::ground::Ground;
use crate::machine::{Kind, Machine};
use crate::network::{self, free_number};
use crate::process::{SOON, command, succeed};

/// A world. It is cleared away with this value, or with this process, however
/// that ends; one that was found, or left, stays until [`World::clear`].
pub struct World {
    folder: PathBuf,
    ground: Ground,
    caretaker: Option<Caretaker>,
}

impl World {
    /// Makes a world, in a new folder or a temporary one.
    ///
    /// # Errors
    /// The folder has something in it, or the kernel refuses a namespace.
    pub fn start(ground: &Ground, folder: Option<&Path>) -> Result<Self> {
        let folder = match folder {
            Some(folder) => new_folder(folder)?,
            None => {
                let folder = tempfile::Builder::new().prefix("berth-machines-").tempdir();
                folder.context("making a temporary folder for machines")?.keep()
            }
        };
        let name = network_name(&folder);
        let keep = |file: &str, text: &str| {
            fs::write(folder.join(file), text).with_context(|| format!("writing {file} of a world"))
        };
        keep(NETWORK, &name)?;
        for part in [MACHINES, PROCESSES] {
            fs::create_dir(folder.join(part)).with_context(|| format!("making {part} of a world"))?;
        }
        let caretaker = Some(Caretaker::start(&folder)?);
        network::make(&name)?;
        Ok(Self { folder, ground: ground.clone(), caretaker })
    }

    /// The world that another process left in this folder, if there is one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn find(ground: &Ground, folder: &Path) -> Result<Option<Self>> {
        if !folder.join(NETWORK).exists() {
            return Ok(None);
        }
        let folder = fs::canonicalize(folder).with_context(|| format!("finding {}", folder.display()))?;
        Ok(Some(Self { folder, ground: ground.clone(), caretaker: None }))
    }

    /// The folder of its state; machines are below `machines`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that names the network, for `nsenter --net=`.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        network::place(&network_name(&self.folder))
    }

    /// Moves the calling thread into the world's network: what it starts from now
    /// on, threads and processes, is in it too.
    ///
    /// # Errors
    /// The network is gone.
    pub fn enter(&self) -> Result<()> {
        network::enter(&network_name(&self.folder))
    }

    /// A new machine, up and running.
    ///
    /// # Errors
    /// The name is taken or no host name, or the machine does not come up: with
    /// what it said.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        let mut machine = self.bare(name)?;
        machine.boot()?;
        Ok(machine)
    }

    /// A new machine that is off: its files can be laid before it starts.
    ///
    /// # Errors
    /// As [`World::machine`].
    pub fn bare(&self, name: &str) -> Result<Machine> {
        self.bare_of(Kind::Namespaces, name)
    }

    /// The same, of either kind. Virtual machines stand on a ground that was laid for
    /// them.
    ///
    /// # Errors
    /// As [`World::machine`].
    pub fn bare_of(&self, kind: Kind, name: &str) -> Result<Machine> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(letters) {
            bail!(
                "{name:?} is no name for a machine: lower case letters, digits and dashes, {LONGEST_NAME} at most"
            );
        }
        let taken: Result<Vec<u8>> = self.machines()?.iter().map(Machine::number).collect();
        let number = free_number(&taken?)?;
        let network = network_name(&self.folder);
        Machine::make(kind, &self.folder.join(MACHINES).join(name), &self.ground, &network, number)
    }

    /// The machines that there are.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let folder = self.folder.join(MACHINES);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.context("reading the folder of machines")?.path();
            found.push(Machine::at(&path, &self.ground, &network_name(&self.folder))?);
        }
        found.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(found)
    }

    /// Starts a program that lives as long as the world; the file of what it says.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_process(&self, name: &str, program: Command) -> Result<PathBuf> {
        background::start(&self.folder, name, program)
    }

    /// Lets the world outlive this process.
    ///
    /// # Errors
    /// Its caretaker cannot be dismissed.
    pub fn leave(mut self) -> Result<PathBuf> {
        if let Some(caretaker) = self.caretaker.take() {
            caretaker.dismiss()?;
        }
        Ok(self.folder.clone())
    }

    /// Ends all machines and leaves nothing behind, the folder included.
    ///
    /// # Errors
    /// Something does not go.
    pub fn clear(mut self) -> Result<()> {
        if let Some(caretaker) = self.caretaker.take() {
            drop(caretaker);
        } else {
            let mut sh = command("/bin/sh");
            sh.args(["-c", CLEAR, "clear.sh"]).arg(&self.folder).current_dir("/");
            succeed(sh, SOON * 3)?;
        }
        if self.folder.exists() || self.network().exists() {
            bail!("{} was not cleared away: is a shell still in it?", self.folder.display());
        }
        Ok(())
    }
}

/// Clears a world when it is dropped or its owner has ended: only the owner holds
/// the other end of its standard input.
struct Caretaker {
    child: Child,
}

impl Caretaker {
    fn start(folder: &Path) -> Result<Self> {
        let child = command("/bin/sh")
            .args(["-c", &format!("cat >/dev/null\n{CLEAR}"), "clear.sh"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The group keeps Ctrl-C away from it.
            .process_group(0)
            .spawn()
            .context("starting the caretaker of a world")?;
        Ok(Self { child })
    }

    fn dismiss(mut self) -> Result<()> {
        self.child.kill().context("dismissing the caretaker of a world")
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _reaped = self.child.wait();
    }
}

/// A folder that has nothing in it, so that all in it is ours to clear away.
fn new_folder(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let folder = fs::canonicalize(folder).with_context(|| format!("finding {}", folder.display()))?;
    let mut entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty; to mend: name a new folder for the machines", folder.display());
    }
    Ok(folder)
}

/// Worlds live side by side: each has a name made of its folder's.
fn network_name(folder: &Path) -> String {
    let hash = HEXLOWER.encode(digest(&SHA256, folder.as_os_str().as_encoded_bytes()).as_ref());
    format!("berth-{}", hash.get(..8).unwrap_or(&hash))
}

/// The file with the name of the network.
const NETWORK: &str = "network";
/// The folder of the machines' folders.
const MACHINES: &str = "machines";
const LONGEST_NAME: usize = 40;
const CLEAR: &str = include_str!("clear.sh");
