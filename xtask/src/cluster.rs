//! `cargo xtask cluster`: a real control plane of one's own, for the demo and for
//! looking around. Plain processes on loopback; no root, no image.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Cluster, Left, Options, Program, Programs, build, version};
use clap::{Args, Subcommand};

use crate::process::workspace;
use crate::test::seconds;

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Builds the programs of Kubernetes that this machine does not have, once.
    Build {
        /// The kubelet as well, for machines that are real.
        #[arg(long)]
        kubelet: bool,
    },
    /// Starts a cluster as kubeadm leaves it, and says how to go on.
    Up(Place),
    /// Says which components run and are ready.
    Status(Place),
    /// Ends the cluster and leaves nothing behind.
    Down(Place),
}

#[derive(Args)]
pub(crate) struct Place {
    /// The folder of the cluster's files.
    #[arg(long = "dir", value_name = "FOLDER", default_value_os_t = workspace().join("target/cluster"))]
    folder: PathBuf,
}

/// False if a component is not ready.
pub(crate) fn run(task: &Task) -> Result<bool> {
    match task {
        Task::Build { kubelet } => {
            let kubelet = kubelet.then_some(Program::Kubelet);
            let wanted: Vec<Program> = Program::USUAL.into_iter().chain(kubelet).collect();
            programs(&wanted)?;
            Ok(true)
        }
        Task::Up(place) => up(place),
        Task::Status(place) => status(place),
        Task::Down(place) => down(place),
    }
}

/// The programs, built if they are missing; how long that took, if it did.
pub(crate) fn programs(wanted: &[Program]) -> Result<Option<Duration>> {
    let began = Instant::now();
    if Programs::of_this_machine()?.missing(wanted).is_empty() {
        println!("the programs of Kubernetes {} are there", version());
        return Ok(None);
    }
    build(wanted, &mut |line| println!("{line}"))?;
    println!("all built in {}", seconds(began.elapsed()));
    Ok(Some(began.elapsed()))
}

fn up(place: &Place) -> Result<bool> {
    if let Some(there) = Left::find(&place.folder)? {
        if there.standing()?.iter().all(|process| process.id.is_none()) {
            bail!("a cluster in {} has ended; to mend: cargo xtask cluster down", place.folder.display());
        }
        println!("a cluster is there already: cargo xtask cluster status");
        how_to_go_on(&there, place);
        return Ok(true);
    }
    programs(&Program::USUAL)?;
    let began = Instant::now();
    let options = Options { folder: Some(place.folder.clone()), ..Options::default() };
    let cluster = Cluster::start(&options)?;
    println!("Kubernetes {} is ready after {}", version(), seconds(began.elapsed()));
    let seeded = cluster.seed_kubeadm()?;
    println!("kubeadm's phases are done; a token for a day: {}", seeded.token);
    println!("                          the CA's pin:       {}", seeded.ca_hash);
    let folder = cluster.leave()?;
    let left = Left::find(&folder)?.context("the cluster's folder is gone")?;
    how_to_go_on(&left, place);
    Ok(true)
}

fn how_to_go_on(cluster: &Left, place: &Place) {
    let kubectl = Programs::of_this_machine().and_then(|programs| programs.path(Program::Kubectl));
    let kubectl = kubectl.map_or("kubectl".to_owned(), |path| path.display().to_string());
    println!("\nTo go on:");
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  {kubectl} get namespaces");
    println!("  cargo xtask test --kubeconfig {}", cluster.kubeconfig().display());
    println!("To end it, and to leave nothing behind:");
    println!("  cargo xtask cluster down --dir {}", place.folder.display());
}

fn status(place: &Place) -> Result<bool> {
    let cluster = found(place)?;
    let mut all_ready = true;
    for process in cluster.standing()? {
        let ready = match process.ready {
            Some(true) => "ready",
            Some(false) => "NOT READY",
            None => "",
        };
        all_ready &= process.ready != Some(false);
        let id = process.id.map_or("not running".to_owned(), |id| format!("process {id}"));
        let memory = process.memory.map_or(String::new(), |memory| format!("{} MiB", memory / 1024));
        println!("{:<24} {id:<16} {memory:>8}  {ready}", process.name);
    }
    println!("KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(all_ready)
}

fn down(place: &Place) -> Result<bool> {
    found(place)?.end()?;
    println!("ended; {} is gone", place.folder.display());
    Ok(true)
}

fn found(place: &Place) -> Result<Left> {
    let Some(cluster) = Left::find(&place.folder)? else {
        bail!("no cluster in {}; to mend: cargo xtask cluster up", place.folder.display());
    };
    Ok(cluster)
}
