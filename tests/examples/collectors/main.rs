//! The collectors and the machines of `cargo xtask bench telemetry`: receivers of OTLP that
//! answer each in its manner, and joins one after another, timed.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../load/machine.rs"]
#[expect(dead_code, reason = "machines here only join and leave")]
mod machine;
#[path = "../load/meter.rs"]
#[expect(dead_code, reason = "of what measures, CPU time is needed alone")]
mod meter;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_domain::token::JoinToken;
use berth_telemetry::collector::{Collector, Manner};
use clap::{Args, Parser};

use crate::machine::Fleet;
use crate::meter::{Cpu, sleep_until_quiet};

#[derive(Parser)]
enum Task {
    /// Serves as a collector until it is ended, and says its endpoint.
    Serve {
        /// Seconds until it answers.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Machines that join one after another, and leave again.
    Join(Joins),
}

#[derive(Args)]
struct Joins {
    /// The server's join endpoint.
    #[arg(long)]
    server: SocketAddr,
    /// The server's process id.
    #[arg(long)]
    server_pid: u32,
    /// A file with a token that is good for all of them.
    #[arg(long)]
    token_file: std::path::PathBuf,
    /// How many.
    #[arg(long)]
    joins: usize,
    /// The number of the first.
    #[arg(long)]
    first: usize,
}

fn main() -> Result<()> {
    let task = Task::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("installing the provider")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        match task {
            Task::Serve { after } => serve(Duration::from_secs(after)).await,
            Task::Join(joins) => joins.run().await,
        }
    })
}

async fn serve(after: Duration) -> Result<()> {
    let manner = if after.is_zero() { Manner::Prompt } else { Manner::Slow(after) };
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let collector = Collector::start_with(free, manner).await.context("starting a collector")?;
    println!("{}", collector.endpoint());
    std::future::pending().await
}

impl Joins {
    /// Says the median time of a join in microseconds, and the server's CPU time for each:
    /// until it is at rest again, so that spans that leave later count too.
    async fn run(&self) -> Result<()> {
        let token = std::fs::read_to_string(&self.token_file).context("reading the token")?;
        let token: JoinToken = token.parse().context("reading the token")?;
        let (fleet, server) = (Fleet::new(self.server)?, Cpu::of(self.server_pid));
        sleep_until_quiet(&server).await?;
        let before = server.spent()?;
        let mut times = Vec::with_capacity(self.joins);
        let mut nodes = Vec::with_capacity(self.joins);
        for number in self.first..self.first.saturating_add(self.joins) {
            let began = Instant::now();
            nodes.push(fleet.join(&token, number).await.with_context(|| format!("machine {number}"))?);
            times.push(began.elapsed());
        }
        sleep_until_quiet(&server).await?;
        let spent = server.spent()?.checked_sub(before).context("CPU time goes forward")?;
        for mut node in nodes {
            node.leave().await?;
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().context("there was no join")?;
        let each = spent.as_secs_f64() * 1e6 / times.len() as f64;
        println!("{:.1} {each:.1}", median.as_secs_f64() * 1e6);
        Ok(())
    }
}
