//! The load generator and the meter of `cargo xtask bench`: machines that join,
//! attend and renew over real sockets, and what that costs the server in CPU time
//! and memory. Every figure is a ratio of one run: time of the server over time of
//! the bare cryptography that no design can avoid.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod cluster;
mod floor;
mod machine;
mod meter;
mod plain;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_domain::conversation::AttendFromAgent;
use berth_domain::token::JoinToken;
use berth_proto::attend_to_server;
use clap::{Args, Parser};
use tokio::task::JoinSet;

use crate::floor::Floor;
use crate::machine::{Fleet, Node};
use crate::meter::{Cpu, Spread, resident, sleep_until_quiet};

/// What `cargo xtask bench` asks for.
#[derive(Parser)]
enum Task {
    /// All that a server by itself is measured by.
    Server(Options),
    /// Machines that join a cluster through Berth, as far as their certificate.
    Berth(cluster::Berth),
    /// Machines that ask the API server by themselves, by a bootstrap token.
    Plain(cluster::Plain),
    /// Two writes of the smallest object for each machine, with nothing behind them.
    Writes(cluster::Plain),
    /// The same, and a request for a certificate that is made and approved.
    Requests(cluster::Plain),
}

#[derive(Args)]
struct Options {
    /// The server's join endpoint.
    #[arg(long)]
    server: std::net::SocketAddr,
    /// The server's process id.
    #[arg(long)]
    server_pid: u32,
    /// One token a line, each good for a round, the last one for all that attend.
    #[arg(long)]
    tokens: PathBuf,
    /// Joins in a round; renewals in a round.
    #[arg(long)]
    joins: usize,
    /// Nodes that attend at one time.
    #[arg(long)]
    attending: usize,
}

fn main() -> Result<()> {
    let task = Task::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("installing the provider")?;
    meter::raise_descriptor_limit()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    match task {
        Task::Server(options) => runtime.block_on(measure(&options)),
        Task::Berth(options) => runtime.block_on(options.run()),
        Task::Plain(options) => runtime.block_on(options.run()),
        Task::Writes(options) => runtime.block_on(options.only_write(false)),
        Task::Requests(options) => runtime.block_on(options.only_write(true)),
    }
}

async fn measure(options: &Options) -> Result<()> {
    let tokens = std::fs::read_to_string(&options.tokens).context("reading the tokens")?;
    let tokens =
        tokens.lines().map(str::parse).collect::<Result<Vec<JoinToken>, _>>().context("reading a token")?;
    let (last, rounds) = tokens.split_last().context("there is no token")?;
    let fleet = Arc::new(Fleet::new(options.server)?);
    let floor = Floor::new()?;
    let server = Cpu::of(options.server_pid);

    let mut floors = Vec::new();
    let mut joins = Vec::new();
    for (round, token) in rounds.iter().enumerate() {
        sleep_until_quiet(&server).await?;
        let floor_before = floor.join()?;
        let before = server.spent()?;
        let met = crowd(&fleet, token, round * options.joins, options.joins).await?;
        let spent = server.spent()?.checked_sub(before).context("CPU time goes forward")?;
        // The first round fills caches and pools: it is not counted.
        if round > 0 {
            floors.push(floor_before.min(floor.join()?));
            joins.push(per(spent, options.joins)?);
        }
        // Machines that only vanished would be looked for while others join.
        leave(met).await?;
    }
    report("join", "C1", &floors, &joins, "server CPU of a durable join over both connections", 0.45);

    // What joined before left memory behind, which the server takes up again first:
    // only what the second half adds is what nodes cost.
    let first = rounds.len() * options.joins;
    let half = options.attending / 2;
    let mut attending = attend(crowd(&fleet, last, first, half).await?).await?;
    let mut beating = keep_alive(&attending);
    sleep_until_quiet(&server).await?;
    let before = resident(options.server_pid)?;
    let more = attend(crowd(&fleet, last, first + half, options.attending - half).await?).await?;
    let added = more.len();
    attending.extend(more);
    beating.shutdown().await;
    let _beating = keep_alive(&attending);
    sleep_until_quiet(&server).await?;
    let grown = resident(options.server_pid)?.saturating_sub(before);
    let each = grown as f64 / added as f64;
    println!(
        "memory     C3  {:.1} KB of the server's RSS for each attending node, from {half} to {} of them = {:.1} x the floor of 9.7 KB (start: 45 KB)",
        each / 1e3,
        attending.len(),
        each / 9.7e3
    );

    let mut renewals = Vec::new();
    let mut renewal_floors = Vec::new();
    for (round, part) in attending.chunks_mut(options.joins).enumerate() {
        let floor_before = floor.renewal()?;
        let before = server.spent()?;
        let asked = part.len();
        futures_util::future::try_join_all(part.iter_mut().map(Node::renew)).await?;
        let spent = server.spent()?.checked_sub(before).context("CPU time goes forward")?;
        if round > 0 {
            renewal_floors.push(floor_before.min(floor.renewal()?));
            renewals.push(per(spent, asked)?);
        }
    }
    report(
        "renewal",
        "C8",
        &renewal_floors,
        &renewals,
        "server CPU of a durable renewal on a live line",
        0.60,
    );
    Ok(())
}

/// Lets `count` machines join, [`IN_FLIGHT`] at a time.
async fn crowd(fleet: &Arc<Fleet>, token: &JoinToken, first: usize, count: usize) -> Result<Vec<Node>> {
    let mut under_way = JoinSet::new();
    let mut joined = Vec::with_capacity(count);
    for number in first..first + count {
        if under_way.len() >= IN_FLIGHT {
            joined.push(under_way.join_next().await.context("a join is under way")???);
        }
        let (fleet, token) = (Arc::clone(fleet), token.clone());
        under_way.spawn(async move {
            fleet.join(&token, number).await.with_context(|| format!("machine {number}"))
        });
    }
    while let Some(node) = under_way.join_next().await {
        joined.push(node??);
    }
    Ok(joined)
}

/// Lets machines attend that have joined.
async fn attend(mut nodes: Vec<Node>) -> Result<Vec<Node>> {
    for node in &mut nodes {
        node.attend().await?;
    }
    Ok(nodes)
}

/// Lets machines leave as an operator's `berth-agent leave` does, some at a time.
async fn leave(nodes: Vec<Node>) -> Result<()> {
    let mut leaving = JoinSet::new();
    for mut node in nodes {
        if leaving.len() >= IN_FLIGHT {
            leaving.join_next().await.context("a machine is leaving")???;
        }
        leaving.spawn(async move { node.leave().await });
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

/// Lets the nodes say now and then that they live, as agents do. Ends with the set.
fn keep_alive(nodes: &[Node]) -> JoinSet<()> {
    let lines: Vec<_> = nodes.iter().filter_map(Node::line).collect();
    let mut beating = JoinSet::new();
    beating.spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEATS).await;
            for line in &lines {
                // A line that is full or gone has no need of another.
                let _ = line.try_send(attend_to_server(&AttendFromAgent::Heartbeat));
            }
        }
    });
    beating
}

fn per(spent: Duration, count: usize) -> Result<f64> {
    ensure!(count > 0 && !spent.is_zero(), "nothing was measured");
    Ok(spent.as_secs_f64() * 1e6 / count as f64)
}

/// Prints floor ÷ cost of the rounds, or that the run is void.
fn report(name: &str, metric: &str, floors: &[f64], costs: &[f64], what: &str, aim: f64) {
    let (floor, cost) = (Spread::of(floors), Spread::of(costs));
    let ratios: Vec<f64> = floors.iter().zip(costs).map(|(floor, cost)| 100.0 * floor / cost).collect();
    println!(
        "{name:<10} {metric}  {} % = floor {floor} us / {cost} us of {what} (aim {:.0} %)",
        Spread::of(&ratios),
        aim * 100.0
    );
    if floor.width() > WIDEST_REFERENCE {
        println!(
            "           VOID: the floor itself varied by {:.0} %; the machine is too busy",
            floor.width() * 100.0
        );
    }
}

/// Between two heartbeats of an attending node.
const HEARTBEATS: Duration = Duration::from_secs(10);
/// Joins under way at one time.
const IN_FLIGHT: usize = 64;
/// Largest (max − min) ÷ median of the reference leg.
const WIDEST_REFERENCE: f64 = 0.15;
