//! `cargo xtask demo --kubernetes`: the same on a real control plane. The machine
//! writes its files, a hollow kubelet takes them, and the join ends when the
//! cluster says that the Node is Ready.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Cluster, HollowNode, MachineFiles, NAMESPACE, Options, Program, version};

use super::{join, say, short, show};
use crate::cluster::programs;
use crate::process::pause;
use crate::stage::{STEP_WITHIN, Stage};
use crate::test::seconds;

pub(crate) fn run(kubeconfig: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    say("Building berth-server and berth-agent");
    let stage = Stage::build(&[], &[])?;

    let (cluster, account) = cluster(kubeconfig)?;
    say("The server starts in front of it, with the account that deploy/kubernetes gives it");
    let endpoint = format!("https://{}", cluster.api().address());
    let server = ["--backend", "kubernetes", "--namespace", NAMESPACE, "--api-endpoint", &endpoint];
    let account = account.display().to_string();
    let (_server, took) = stage.start_server(&[], &[&server[..], &["--kubeconfig", &account]].concat())?;
    println!("  ready after {}; it keeps nothing of its own: all is in the cluster", seconds(took));

    say("A token, good for one machine, that makes it a worker");
    let token = stage.mint(&["--uses", "1", "--label", "node-role.kubernetes.io/worker="])?;

    say("machine-a joins, in five phases, and its kubelet with it");
    let root = stage.machine_root("machine-a")?;
    let _kubelet = thread::scope(|scope| {
        let kubelet = scope.spawn(|| kubelet(&cluster, "machine-a", &root));
        join(&stage, "machine-a", &token, 0)?;
        kubelet.join().unwrap_or_else(|_| bail!("the kubelet's start was cut short"))
    })?;

    say("What the cluster sees");
    kubectl(&cluster, &["get", "nodes,nodejoins"])?;
    say("Who the machine is, by the certificate that Berth had signed");
    let files = MachineFiles::of(&root)?.context("the kubelet's files are gone")?;
    let whoami = cluster.kubectl_as(files.kubeconfig(), &["auth", "whoami"])?;
    whoami.stdout.lines().for_each(|line| println!("  {}", short(line)));
    say("What the operator sees");
    show(&stage, &["joins", "explain", "machine-a"])?;
    println!("\nDone in {}.", seconds(started.elapsed()));
    Ok(())
}

/// A cluster with Berth's manifests, and the kubeconfig that the server gets.
fn cluster(kubeconfig: Option<&Path>) -> Result<(Cluster, PathBuf)> {
    let Some(kubeconfig) = kubeconfig else {
        say("A control plane of plain processes");
        programs(&Program::USUAL)?;
        let began = Instant::now();
        let cluster = Cluster::start(&Options::default())?;
        println!("  Kubernetes {} is ready after {}", version(), seconds(began.elapsed()));
        cluster.install("base")?;
        let account = cluster.account()?;
        return Ok((cluster, account));
    };
    say("Your own cluster: the manifests of deploy/kubernetes/base are applied to it, and stay");
    let cluster = Cluster::from_kubeconfig(kubeconfig)?;
    cluster.install("base")?;
    Ok((cluster, kubeconfig.to_owned()))
}

/// The machine's kubelet, hollow, once the agent has written its files.
fn kubelet(cluster: &Cluster, name: &str, root: &Path) -> Result<HollowNode> {
    let began = Instant::now();
    loop {
        if let Some(files) = MachineFiles::of(root)? {
            return cluster.hollow_kubelet(name, &files);
        }
        if began.elapsed() > STEP_WITHIN {
            bail!("the agent wrote no files for a kubelet within {}", seconds(began.elapsed()));
        }
        pause()?;
    }
}

fn kubectl(cluster: &Cluster, words: &[&str]) -> Result<()> {
    println!("  $ kubectl {}", words.join(" "));
    cluster.kubectl(words)?.lines().for_each(|line| println!("  {}", short(line)));
    Ok(())
}
