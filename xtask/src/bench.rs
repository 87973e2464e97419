//! `cargo xtask bench`: what a join, an attending node and a renewal cost the
//! server, and what the agent costs its machine. The server has a core of its
//! own, the load another; every figure is a ratio of one run. A bare server of the
//! same libraries has its joins in turn with Berth's on that core: what a machine or an
//! hour makes dearer, it makes dearer for both.

mod kubernetes;
mod machine;
mod meter;
mod telemetry;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::process::{Running, build_example, command, pause, succeed};
use crate::stage::Stage;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Rounds that are counted; one more goes before them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Joins of a round, renewals of a round.
    #[arg(long, default_value_t = 1000)]
    joins: usize,
    /// Nodes that attend at one time.
    #[arg(long, default_value_t = 5000)]
    attending: usize,
    /// Builds nothing in release form: shows that it runs, and not what it costs.
    #[arg(long)]
    dev: bool,
}

#[derive(Subcommand)]
enum Other {
    /// What a node costs a cluster's control plane: by itself, and through Berth.
    Kubernetes(kubernetes::Options),
    /// How long a machine takes until its Node is Ready: by kubeadm, and by Berth.
    Machine(machine::Options),
    /// What traces cost a join, with a collector that takes them and with those that do not.
    Telemetry(telemetry::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.other {
        Some(Other::Kubernetes(options)) => return kubernetes::run(options),
        Some(Other::Machine(options)) => return machine::run(options),
        Some(Other::Telemetry(options)) => return telemetry::run(options),
        None => {}
    }
    if std::env::var_os(APART).is_none() {
        println!("== Building, in release form some minutes");
    }
    let (profile, small): (&[&str], &[&str]) =
        if options.dev { (&[], &[]) } else { (&["--release"], &["--profile", "agent"]) };
    let load = build_example("berth-tests", "load", profile)?;
    let stage = Stage::build(profile, small)?;
    if std::env::var_os(APART).is_none() && may_be_apart() {
        drop(stage);
        return apart();
    }
    let (server, _) = stage.start_server(&["taskset", "--cpu-list", SERVER_CORE], &[])?;
    let (bare, bare_address) = bare_server(&stage, &load)?;
    let tokens = stage.path("tokens");
    let mut lines = Vec::new();
    for _ in 0..=options.rounds {
        lines.push(stage.mint(&["--uses", &options.joins.to_string()])?);
    }
    lines.push(stage.mint(&["--uses", &options.attending.to_string()])?);
    fs::write(&tokens, lines.join("\n")).context("writing the tokens' file")?;

    println!(
        "== Servers on core {SERVER_CORE}, load on core {LOAD_CORE}; load of the machine before: {}",
        machine_load()?
    );
    let mut generator = command("taskset");
    generator.args(["--cpu-list", LOAD_CORE]).arg(load).arg("server");
    generator.args(["--server", &stage.join.to_string(), "--server-pid", &server.id().to_string()]);
    generator.args(["--bare", &bare_address, "--bare-pid", &bare.id().to_string()]);
    generator.arg("--tokens").arg(&tokens);
    generator.args(["--joins", &options.joins.to_string(), "--attending", &options.attending.to_string()]);
    stage.finish(generator, WITHIN, 0, |line| println!("{line}"))?;
    agent(&stage)?;
    println!("load of the machine after: {}", machine_load()?);
    Ok(())
}

/// Whether this process may have a network of its own.
fn may_be_apart() -> bool {
    let looked = command("unshare").args(UNSHARE).args(["ip", "link", "set", "lo", "up"]).output();
    looked.is_ok_and(|looked| looked.status.success())
}

/// Runs all of it again, now that it is built, in a network of its own: there the
/// machine's firewall follows no connection, whose table a run would fill, and nobody
/// else's sockets stand in the way.
fn apart() -> Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut again = command("unshare");
    again.args(UNSHARE).args(["sh", "-c", NETWORK]).arg(own);
    again.args(std::env::args_os().skip(1)).env(APART, "1");
    succeed(&mut again)
}

/// The bare server, and where it is joined.
fn bare_server(stage: &Stage, load: &Path) -> Result<(Running, String)> {
    let log = stage.path("bare.log");
    let mut server = command("taskset");
    server.args(["--cpu-list", SERVER_CORE]).arg(load).args(["bare-server", "--listen", "127.0.0.1:0"]);
    server.arg("--database").arg(stage.path("bare.sqlite"));
    let mut server = Running::start(&mut server, &log)?;
    for _ in 0..SETTLE_TICKS {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = server.ended()? {
            bail!("the bare server ended with {status}; it said:\n{said}");
        }
        if let Some((address, _)) = said.split_once('\n') {
            return Ok((server, address.to_owned()));
        }
        pause()?;
    }
    bail!("the bare server did not say where it listens")
}

/// Size of the agent's program, and its memory once it attends.
fn agent(stage: &Stage) -> Result<()> {
    let size = fs::metadata(&stage.agent).context("looking at the agent's program")?.len();
    let token = stage.token_file("bench-agent", &stage.mint(&["--uses", "1"])?)?;
    let log = stage.path("agent.log");
    let mut service = command(&stage.agent);
    service.arg("run").args(["--server", &stage.join.to_string(), "--node-name", "bench-agent"]);
    service.arg("--token-file").arg(token).arg("--root").arg(stage.machine_root("bench-agent")?);
    let mut service = Running::start(&mut service, &log)?;
    for _ in 0..SETTLE_TICKS {
        if let Some(status) = service.ended()? {
            bail!(
                "the agent ended with {status}; it said:\n{}",
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
        pause()?;
    }
    stage.ask(&["nodes", "show", "bench-agent"], |_| {})?;
    let status =
        fs::read_to_string(format!("/proc/{}/status", service.id())).context("reading the agent's status")?;
    let field = |name: &str| -> Result<f64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>().context("reading the agent's memory")? / 1024.0)
    };
    println!(
        "agent      C5  {:.2} MB program = {:.2} x 2.75 MB (aim 7 MB); {:.1} MiB attending = {:.1} x 2.6 MiB (aim 8 MiB), {:.1} MiB at most",
        size as f64 / 1e6,
        size as f64 / 2.75e6,
        field("VmRSS:")?,
        field("VmRSS:")? / 2.6,
        field("VmHWM:")?
    );
    Ok(())
}

fn machine_load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("reading the load")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// A network namespace, and the right to make one where root is not at hand.
const UNSHARE: [&str; 2] = ["--map-root-user", "--net"];
/// Its loopback, a way out that leads nowhere, without which no kubelet finds its
/// address, and what runs in it.
const NETWORK: &str = "ip link set lo up || exit
    ip link add berth0 type veth peer name berth1 && ip link set berth1 up &&
        ip address add 192.0.2.1/24 dev berth0 && ip link set berth0 up && ip route add default dev berth0
    exec \"$0\" \"$@\"";
/// Set in a run that has a network of its own.
const APART: &str = "BERTH_BENCH_APART";
const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// Ticks of [`pause`] until the agent has joined and come to rest, and until the bare
/// server listens at the latest: 5 s.
const SETTLE_TICKS: u32 = 250;
/// What the whole of the load may take.
const WITHIN: Duration = Duration::from_secs(1200);
