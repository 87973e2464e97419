//! How long many nodes take until all are Ready, and what that costs the control plane:
//! real kubelets over containers that are not real, all started at once. By themselves
//! they ask by a bootstrap token; through Berth each has its agent, and a whole join.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{ACCOUNT, HollowNode, MachineFiles};

use super::calls::Calls;
use super::leg::{Flow, Scene};
use super::machine_load;
use crate::bench::meter::{Counting, Meter};
use crate::process::{Running, command, pause};
use crate::test::seconds;

pub(super) fn run(scene: &mut Scene<'_>, wanted: usize) -> Result<()> {
    let fit = usize::try_from(available()? / OF_A_NODE).unwrap_or(usize::MAX);
    let count = wanted.min(fit);
    println!(
        "\nUntil {count} hollow nodes are Ready, all at once; the machine has memory for {fit} of 75 MB"
    );
    let mut plain = None;
    for flow in Flow::ALL {
        let server = scene.server(flow)?;
        let counting = Meter::at_rest(scene.processes(server.as_ref())?)?.start()?;
        let mut log = scene.cluster.audit_from_now()?;
        let (last, kubelets) = match flow {
            Flow::Plain | Flow::Write | Flow::Status | Flow::Request => {
                by_themselves(scene, count, &counting)?
            }
            Flow::Kube | Flow::Local => through_berth(scene, flow, count, &counting)?,
        };
        let spent = last.spent.as_secs_f64() * 1e6 / last.ready as f64;
        let parts = Calls::count(&log.events()?, |user| user == ACCOUNT);
        println!(
            "{:<12} {}; CPU of the control plane a node {spent:.0} us = {:.2} x plain; load {}",
            flow.name(),
            seconds(last.after),
            spent / *plain.get_or_insert(spent),
            machine_load()?
        );
        if last.ready < count {
            println!(
                "             {} of them: the kubelets of the others gave up on their CSINode",
                last.ready
            );
        }
        if flow != Flow::Plain {
            println!("             {:.2} calls a whole join", parts.a_join(count));
            parts.print(count);
        }
        drop((kubelets, server));
        clear(scene)?;
    }
    Ok(())
}

/// Nobody has to find out that these Nodes have gone, while the next come.
fn clear(scene: &Scene<'_>) -> Result<()> {
    let (status, said) = scene.cluster.api().request("DELETE", "/api/v1/nodes", None)?;
    anyhow::ensure!(status == 200, "the Nodes are not deleted: {status}: {said}");
    Ok(())
}

fn by_themselves(scene: &Scene<'_>, count: usize, counting: &Counting) -> Result<(Last, Vec<HollowNode>)> {
    let began = Instant::now();
    let bootstrap = scene.cluster.kubeconfig_of_token("bootstrap", scene.bootstrap)?;
    let mut kubelets = Vec::new();
    for number in 0..count {
        let name = format!("hollow-plain-{number}");
        let folder = scene.stage.machine_root(&name)?;
        let flags = [
            format!("--bootstrap-kubeconfig={}", bootstrap.display()),
            format!("--cert-dir={}", folder.display()),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        kubelets.push(scene.cluster.hollow_node(&name, &folder.join("kubeconfig"), &flags)?);
    }
    Ok((until_ready(scene, "hollow-plain-", count, began, counting)?, kubelets))
}

fn through_berth(
    scene: &Scene<'_>,
    flow: Flow,
    count: usize,
    counting: &Counting,
) -> Result<(Last, Vec<HollowNode>)> {
    let token = scene.stage.mint(&["--uses", &count.to_string()])?;
    let began = Instant::now();
    let prefix = format!("hollow-{}-", flow.name().replace(' ', "-"));
    let mut coming: Vec<(String, PathBuf, Running)> = Vec::new();
    for number in 0..count {
        let name = format!("{prefix}{number}");
        let root = scene.stage.machine_root(&name)?;
        let mut agent = command(&scene.stage.agent);
        agent.arg("join").arg(scene.stage.join.to_string()).args(["--node-name", &name]);
        agent.arg("--token-file").arg(scene.stage.token_file(&name, &token)?).arg("--root").arg(&root);
        let agent = Running::start(&mut agent, &scene.stage.path(&format!("{name}.log")))?;
        coming.push((name, root, agent));
    }
    let mut kubelets: Vec<HollowNode> = Vec::new();
    let mut agents = Vec::new();
    while !coming.is_empty() {
        let mut waiting = Vec::new();
        for (name, root, mut agent) in coming {
            if let Some(files) = MachineFiles::of(&root)? {
                kubelets.push(scene.cluster.hollow_kubelet(&name, &files)?);
                agents.push(agent);
                continue;
            }
            if let Some(status) = agent.ended()? {
                let log = scene.stage.path(&format!("{name}.log"));
                bail!("{name}'s agent ended with {status}: {}", fs::read_to_string(log).unwrap_or_default());
            }
            waiting.push((name, root, agent));
        }
        coming = waiting;
        if began.elapsed() > WITHIN {
            bail!("{} agents wrote no files for a kubelet", coming.len());
        }
        pause()?;
    }
    let last = until_ready(scene, &prefix, count, began, counting)?;
    // Each agent ends once the server says Ready too.
    let (since, mut left) = (Instant::now(), agents);
    while left.len() > count - last.ready && since.elapsed() < WITHIN {
        let mut waiting = Vec::new();
        for mut agent in left {
            if agent.ended()?.is_none() {
                waiting.push(agent);
            }
        }
        left = waiting;
        pause()?;
    }
    Ok((last, kubelets))
}

/// When the last Node became Ready, and how it was then.
struct Last {
    after: Duration,
    ready: usize,
    spent: Duration,
}

/// Waits until all are Ready. A kubelet that comes late to register, as some of many on
/// few cores do, gives up on its CSINode and waits to be started again: a few of those
/// are left out, if nothing changes any more.
fn until_ready(
    scene: &Scene<'_>,
    prefix: &str,
    count: usize,
    began: Instant,
    counting: &Counting,
) -> Result<Last> {
    let mut last = Last { after: Duration::ZERO, ready: 0, spent: Duration::ZERO };
    loop {
        let nodes = scene.cluster.kubectl(&["get", "nodes", "--no-headers"])?;
        let ready = nodes.lines().filter(|line| line.starts_with(prefix));
        let ready = ready.filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
        if ready > last.ready {
            last = Last { after: began.elapsed(), ready, spent: counting.spent()?.iter().sum() };
        }
        let is_over = ready * 10 >= count * 9 && began.elapsed() > last.after + NOTHING_NEW;
        if ready == count || is_over {
            return Ok(last);
        }
        if began.elapsed() > WITHIN {
            bail!("{ready} of {count} nodes were Ready after {}", seconds(began.elapsed()));
        }
        crate::bench::meter::wait(LOOK)?;
    }
}

/// Bytes that programs may still take.
fn available() -> Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo").context("reading the machine's memory")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes: u64 =
        line.context("no MemAvailable")?.trim().trim_end_matches(" kB").parse().context("reading memory")?;
    Ok(kibibytes * 1024)
}

/// Bytes of a hollow node.
const OF_A_NODE: u64 = 75_000_000;
const NOTHING_NEW: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);
const WITHIN: Duration = Duration::from_secs(300);
