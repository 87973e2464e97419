//! `cargo xtask machine`: bare machines beside a real control plane with a
//! berth-server in front of it, to join by hand. Linux namespaces, or virtual
//! machines; root.

mod up;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Left, Program, Programs};
use berth_machine::{CONTROL, Ground, Kind, World};
use clap::{Args, Subcommand};

use crate::process::{command, workspace};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Starts what is not there yet: a control plane, a berth-server, and these machines.
    Up {
        #[command(flatten)]
        place: Place,
        /// Names of machines.
        #[arg(default_value = "n1", value_name = "NAME")]
        names: Vec<String>,
        /// Machines only: no control plane, no server.
        #[arg(long)]
        alone: bool,
        /// Virtual machines, with a kernel and a TPM of their own: emulated, a start takes
        /// a minute or two.
        #[arg(long = "virtual")]
        emulated: bool,
    },
    /// A shell, or a program, on a machine; without a name, beside the control plane.
    Shell {
        #[command(flatten)]
        place: Place,
        /// The machine.
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// The program and its arguments.
        #[arg(last = true, value_name = "WORD")]
        words: Vec<String>,
    },
    /// Ends all of it and leaves nothing behind.
    Down(Place),
}

#[derive(Args)]
pub(crate) struct Place {
    /// The folder of all state.
    #[arg(long = "dir", value_name = "FOLDER", default_value_os_t = workspace().join("target/machine"))]
    folder: PathBuf,
}

impl Place {
    fn world(&self) -> PathBuf {
        self.folder.join("world")
    }

    fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The server's data, its socket for operators, its log.
    fn server(&self) -> PathBuf {
        self.folder.join("server")
    }

    fn bundle(&self) -> PathBuf {
        self.server().join("node.bundle")
    }

    fn configuration(&self) -> PathBuf {
        self.server().join("server.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.server().join("admin.sock")
    }
}

pub(crate) fn run(task: &Task) -> Result<bool> {
    match task {
        Task::Up { place, names, alone, emulated } => {
            up::run(place, names, *alone, if *emulated { Kind::Virtual } else { Kind::Namespaces })
        }
        Task::Shell { place, name, words } => shell(place, name.as_deref(), words),
        Task::Down(place) => down(place),
    }
}

/// Takes this process's place.
fn shell(place: &Place, name: Option<&str>, words: &[String]) -> Result<bool> {
    let world = found(place)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words = if words.is_empty() { vec!["/bin/bash", "-i"] } else { words };
    let error = match name {
        Some(name) => {
            let machines = world.machines()?;
            let machine = machines.iter().find(|machine| machine.name() == name);
            let machine =
                machine.with_context(|| format!("no machine {name} in {}", place.folder.display()))?;
            let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
            machine.command_of_a_person(&words)?.env("TERM", term).exec()
        }
        None => {
            world.enter()?;
            let (program, arguments) = words.split_first().context("a command line has a first word")?;
            let path = std::env::var_os("PATH").unwrap_or_default();
            let ours = [Programs::of_this_machine()?.path(Program::Kubectl)?, up::server_program()];
            let folders = ours.iter().filter_map(|program| program.parent().map(Path::to_owned));
            let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)));
            command(program)
                .args(arguments)
                .env("PATH", path.context("making a PATH")?)
                .env("KUBECONFIG", place.cluster().join("kubeconfig/admin.conf"))
                .env("BERTH_SERVER_ADMIN_SOCKET", place.socket())
                .exec()
        }
    };
    Err(error).context("starting a shell")
}

fn down(place: &Place) -> Result<bool> {
    let world = found(place)?;
    if let Some(cluster) = Left::find(&place.cluster())? {
        cluster.end()?;
    }
    world.clear()?;
    std::fs::remove_dir_all(&place.folder).with_context(|| format!("removing {}", place.folder.display()))?;
    println!("ended; {} is gone", place.folder.display());
    Ok(true)
}

fn found(place: &Place) -> Result<World> {
    let ground = Ground::lay(&mut |line| println!("{line}"))?;
    let Some(world) = World::find(&ground, &place.world())? else {
        bail!("no machines in {}; to mend: cargo xtask machine up", place.folder.display());
    };
    Ok(world)
}

/// Where machines join.
fn join_address() -> String {
    format!("{CONTROL}:7443")
}
