//! The load generator and the meter of `cargo xtask bench`: machines that join,
//! attend and renew over real sockets, and what that costs the server in CPU time
//! and memory. Every figure is a ratio of one run: time of the server over time of
//! the bare cryptography that no design can avoid.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod bare;
mod cluster;
mod floor;
mod machine;
mod meter;
mod plain;
mod rounds;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_domain::conversation::AttendFromAgent;
use berth_domain::token::JoinToken;
use berth_proto::attend_to_server;
use clap::{Args, Parser};
use tokio::task::JoinSet;

use crate::floor::Floor;
use crate::machine::{Fleet, Node};
use crate::meter::{Cpu, Spread, per, resident, sleep_until_quiet};
use crate::rounds::{Leg, Rounds, crowd};
use crate::writes::Besides;

/// As Berth's server has it, which the bare one in this program is measured beside.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `cargo xtask bench` asks for.
#[derive(Parser)]
enum Task {
    /// All that a server by itself is measured by.
    Server(Options),
    /// A server of the same libraries alone, to be measured beside Berth's.
    BareServer(bare::BareServer),
    /// Machines that join a cluster through Berth, as far as their certificate.
    Berth(cluster::Berth),
    /// Machines that ask the API server by themselves, by a bootstrap token.
    Plain(cluster::Plain),
    /// The smallest object made for each machine, with nothing behind it.
    Write(cluster::Plain),
    /// The same, and its status written once.
    Status(cluster::Plain),
    /// The same, and a request for a certificate that is made and approved.
    Request(cluster::Plain),
}

#[derive(Args)]
struct Options {
    /// The server's join endpoint.
    #[arg(long)]
    server: std::net::SocketAddr,
    /// The server's process id.
    #[arg(long)]
    server_pid: u32,
    /// Where the bare server is joined, which rounds of joins go to in turn.
    #[arg(long)]
    bare: std::net::SocketAddr,
    /// The bare server's process id.
    #[arg(long)]
    bare_pid: u32,
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
        Task::BareServer(server) => server.run(),
        Task::Berth(options) => runtime.block_on(options.run()),
        Task::Plain(options) => runtime.block_on(options.run()),
        Task::Write(options) => runtime.block_on(options.only_write(Besides::Nothing)),
        Task::Status(options) => runtime.block_on(options.only_write(Besides::Status)),
        Task::Request(options) => runtime.block_on(options.only_write(Besides::Request)),
    }
}

async fn measure(options: &Options) -> Result<()> {
    let tokens = std::fs::read_to_string(&options.tokens).context("reading the tokens")?;
    let tokens =
        tokens.lines().map(str::parse).collect::<Result<Vec<JoinToken>, _>>().context("reading a token")?;
    let (last, rounds) = tokens.split_last().context("there is no token")?;
    let berth = Leg { fleet: Arc::new(Fleet::new(options.server)?), server: Cpu::of(options.server_pid) };
    let bare = Leg { fleet: Arc::new(Fleet::new(options.bare)?), server: Cpu::of(options.bare_pid) };

    let met = Rounds::play(&berth, &bare, rounds, options.joins).await?;
    report("join", "C1", &met.floors, &met.joins, "server CPU of a durable join over both connections", 0.45);
    report_bare(&met);

    let mut attending = memory(options, &berth, last, rounds.len() * options.joins).await?;
    let _beating = keep_alive(&attending);
    renewals(&berth.server, &mut attending, options.joins).await
}

/// What an attending node costs in memory, and all nodes that attend. The first joins as
/// machine `first`.
async fn memory(options: &Options, berth: &Leg, token: &JoinToken, first: usize) -> Result<Vec<Node>> {
    // What joined before left memory behind, which the server takes up again first:
    // only what the second half adds is what nodes cost.
    let half = options.attending / 2;
    let mut attending = attend(crowd(&berth.fleet, token, first, half).await?).await?;
    let mut beating = keep_alive(&attending);
    sleep_until_quiet(&berth.server).await?;
    let before = resident(options.server_pid)?;
    let more = attend(crowd(&berth.fleet, token, first + half, options.attending - half).await?).await?;
    let added = more.len();
    attending.extend(more);
    beating.shutdown().await;
    let _beating = keep_alive(&attending);
    sleep_until_quiet(&berth.server).await?;
    let grown = resident(options.server_pid)?.saturating_sub(before);
    let each = grown as f64 / added as f64;
    println!(
        "memory     C3  {:.1} KB of the server's RSS for each attending node, from {half} to {} of them = {:.1} x the floor of 9.7 KB (start: 45 KB)",
        each / 1e3,
        attending.len(),
        each / 9.7e3
    );
    Ok(attending)
}

/// What a renewal costs, in rounds of `many` nodes.
async fn renewals(server: &Cpu, attending: &mut [Node], many: usize) -> Result<()> {
    let floor = Floor::new()?;
    let (mut renewals, mut floors) = (Vec::new(), Vec::new());
    for (round, part) in attending.chunks_mut(many).enumerate() {
        let floor_before = floor.renewal()?;
        let before = server.spent()?;
        let asked = part.len();
        futures_util::future::try_join_all(part.iter_mut().map(Node::renew)).await?;
        let cost = per(server.since(before)?, asked)?;
        if round > 0 {
            floors.push(floor_before.min(floor.renewal()?));
            renewals.push(cost);
        }
    }
    report("renewal", "C8", &floors, &renewals, "server CPU of a durable renewal on a live line", 0.60);
    Ok(())
}

/// Lets machines attend that have joined.
async fn attend(mut nodes: Vec<Node>) -> Result<Vec<Node>> {
    for node in &mut nodes {
        node.attend().await?;
    }
    Ok(nodes)
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

/// Prints floor ÷ cost of the rounds, or that the run is void.
fn report(name: &str, metric: &str, floors: &[f64], costs: &[f64], what: &str, aim: f64) {
    let (floor, cost) = (Spread::of(floors), Spread::of(costs));
    let ratios: Vec<f64> = floors.iter().zip(costs).map(|(floor, cost)| 100.0 * floor / cost).collect();
    println!(
        "{name:<10} {metric}  {} % = floor {floor} us / {cost} us of {what} (aim {:.0} %)",
        Spread::of(&ratios),
        aim * 100.0
    );
    void_if_unsteady("the floor", &floor);
}

/// Prints a join at Berth's server ÷ one at the bare server, round by round.
fn report_bare(met: &Rounds) {
    let (berth, bare) = (Spread::of(&met.joins), Spread::of(&met.bare));
    let ratios: Vec<f64> = met.joins.iter().zip(&met.bare).map(|(berth, bare)| berth / bare).collect();
    println!(
        "bare       C1  {:.2} x = Berth's {berth} us / {bare} us of server CPU of a join by the same libraries alone, two rows and no more",
        Spread::of(&ratios)
    );
    void_if_unsteady("the bare server", &bare);
}

/// Says that a figure is void whose reference varied too much.
fn void_if_unsteady(what: &str, reference: &Spread) {
    if reference.width() > WIDEST_REFERENCE {
        println!(
            "           VOID: {what} itself varied by {:.0} %; the machine is too busy",
            reference.width() * 100.0
        );
    }
}

/// Between two heartbeats of an attending node.
const HEARTBEATS: Duration = Duration::from_secs(10);
/// Largest (max − min) ÷ median of the reference leg.
const WIDEST_REFERENCE: f64 = 0.15;
