//! `cargo xtask bench telemetry`: what traces cost a join. Servers that differ in their
//! collector alone run side by side in one run, and machines join at one after the other, in
//! rounds: none, one that takes spans, one that answers after five seconds, one that never
//! answers. Each figure is a ratio to the server without a collector in the same round.
//! Every join is traced: a server exports some eleven spans of each.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::meter::Spread;
use super::{APART, LOAD_CORE, SERVER_CORE, apart, machine_load, may_be_apart};
use crate::process::{Running, build_example, command};
use crate::stage::Stage;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds that are counted; one more goes before them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Joins of each server in a round, one after another.
    #[arg(long, default_value_t = 200)]
    joins: usize,
    /// Builds nothing in release form: shows that it runs, and not what it costs.
    #[arg(long)]
    dev: bool,
}

impl Options {
    const fn profile(&self) -> &'static [&'static str] {
        if self.dev { &[] } else { &["--release"] }
    }
}

/// A server with its collector, and what its rounds came to.
struct Leg {
    name: &'static str,
    stage: Stage,
    server: Running,
    token: std::path::PathBuf,
    /// Median time of a join, microseconds.
    times: Vec<f64>,
    /// CPU time of the server for a join, microseconds.
    costs: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if std::env::var_os(APART).is_none() {
        println!("== Building, in release form some minutes");
    }
    let helper = build_example("berth-tests", "collectors", options.profile())?;
    let stage = Stage::build(options.profile(), &[])?;
    if std::env::var_os(APART).is_none() && may_be_apart() {
        drop(stage);
        return apart();
    }
    let (good, takes) = Receiver::start(&helper, 0)?;
    let (slow, late) = Receiver::start(&helper, 5)?;
    // Connections are made with its kernel; nobody reads them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port of a dead collector")?;
    let dead = format!("http://{}", silent.local_addr().context("a port of a dead collector")?);
    let collectors = [("none", None), ("good", Some(takes)), ("slow, 5 s", Some(late)), ("dead", Some(dead))];
    drop(stage);
    let mut legs = Vec::new();
    for (name, endpoint) in collectors {
        legs.push(Leg::start(name, endpoint.as_deref(), options)?);
    }
    println!(
        "== Servers on core {SERVER_CORE}, machines on core {LOAD_CORE}; load of the machine before: {}",
        machine_load()?
    );
    for round in 0..=options.rounds {
        for leg in &mut legs {
            let (time, cost) = leg.play(&helper, round, options.joins)?;
            // The first round fills caches and pools: it is not counted.
            if round > 0 {
                leg.times.push(time);
                leg.costs.push(cost);
            }
        }
    }
    report(&legs, options);
    println!("load of the machine after: {}", machine_load()?);
    drop((good, slow, silent));
    Ok(())
}

fn report(legs: &[Leg], options: &Options) {
    let Some((none, others)) = legs.split_first() else { return };
    println!(
        "\nA join with traces of all joins, {} joins one after another, {} rounds, median [least-greatest]",
        options.joins, options.rounds
    );
    println!(
        "{:<10}      {:.0} us a join, {:.0} us of the server's CPU",
        none.name,
        Spread::of(&none.times),
        Spread::of(&none.costs)
    );
    for leg in others {
        let ratios = |of: &[f64], to: &[f64]| {
            let all: Vec<f64> = of.iter().zip(to).map(|(one, none)| one / none).collect();
            Spread::of(&all)
        };
        println!(
            "{:<10} C12  {:.3} x the time of a join without (aim 1.050); {:.3} x the server's CPU (aim 1.050)",
            leg.name,
            ratios(&leg.times, &none.times),
            ratios(&leg.costs, &none.costs)
        );
    }
    let widths = [Spread::of(&none.times).width(), Spread::of(&none.costs).width()];
    if widths.iter().any(|width| *width > WIDEST_REFERENCE) {
        println!(
            "           VOID: without a collector, time and CPU varied by {:.0} and {:.0} %; the machine is too busy",
            widths[0] * 100.0,
            widths[1] * 100.0
        );
    }
}

impl Leg {
    fn start(name: &'static str, endpoint: Option<&str>, options: &Options) -> Result<Self> {
        // Built by now: this finds a place of its own.
        let stage = Stage::build(options.profile(), &[])?;
        let further: Vec<&str> =
            endpoint.map(|endpoint| ["--otlp-endpoint", endpoint]).into_iter().flatten().collect();
        let (server, _) = stage.start_server(&["taskset", "--cpu-list", SERVER_CORE], &further)?;
        let uses = options.joins * (options.rounds + 1);
        let token = stage.token_file("machines", &stage.mint(&["--uses", &uses.to_string()])?)?;
        Ok(Self { name, stage, server, token, times: Vec::new(), costs: Vec::new() })
    }

    fn play(&self, helper: &Path, round: usize, joins: usize) -> Result<(f64, f64)> {
        let mut machines = command("taskset");
        machines.args(["--cpu-list", LOAD_CORE]).arg(helper).arg("join");
        machines.args(["--server", &self.stage.join.to_string()]);
        machines.args(["--server-pid", &self.server.id().to_string()]).arg("--token-file").arg(&self.token);
        machines.args(["--joins", &joins.to_string(), "--first", &(round * joins).to_string()]);
        let finished = self.stage.finish(machines, WITHIN, 0, |_| {})?;
        let mut figures = finished.stdout.split_whitespace().map(str::parse::<f64>);
        match (figures.next(), figures.next()) {
            (Some(Ok(time)), Some(Ok(cost))) => Ok((time, cost)),
            _ => bail!("the machines said no figures:\n{}", finished.stdout),
        }
    }
}

/// A collector; ended when dropped.
struct Receiver(Child);

impl Receiver {
    /// Starts one that answers after so many seconds; also its endpoint.
    fn start(helper: &Path, after: u64) -> Result<(Self, String)> {
        let mut serving = command("taskset");
        serving.args(["--cpu-list", LOAD_CORE]).arg(helper).arg("serve");
        serving.args(["--after", &after.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = serving.spawn().context("starting a collector")?;
        let told = child.stdout.take().context("a collector says where it is")?;
        let receiver = Self(child);
        let mut endpoint = String::new();
        BufReader::new(told).read_line(&mut endpoint).context("hearing where a collector is")?;
        Ok((receiver, endpoint.trim().to_owned()))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to end.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What the machines of a leg may take.
const WITHIN: Duration = Duration::from_secs(120);
/// Largest (max - min) / median of the leg without a collector.
const WIDEST_REFERENCE: f64 = 0.15;
