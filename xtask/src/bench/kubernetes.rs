//! `cargo xtask bench kubernetes`: what a node costs a cluster's control plane until
//! it has its certificate. One cluster, one run: machines ask the API server by
//! themselves, as a kubelet does; then as many come through Berth, with the cluster's
//! signer and with Berth's own, as far as that, and with all that is recorded of it by
//! then; and as floors, one write of the smallest object for each, by itself, with its
//! status, and with a request that is approved. Legs alternate in rounds, and every cost
//! is a ratio to the plain leg of its round. Whole joins, until the Node is Ready, are
//! those of hollow nodes at the end ([`ready`]).

mod calls;
mod leg;
mod ready;

use std::time::{Duration, Instant};

use anyhow::Result;
use berth_kubernetes::{ACCOUNT, Cluster, Program, version};
use clap::Args;

use self::calls::Calls;
use self::leg::{Flow, Leg, Scene};
use super::meter::Spread;
use super::{APART, apart, machine_load, may_be_apart};
use crate::cluster::programs;
use crate::process::build_example;
use crate::stage::Stage;
use crate::test::seconds;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds that are counted; one more goes before them. 0 leaves them out.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Nodes of a leg; with fewer, whether the API server collects its garbage once more
    /// or once less in a leg decides.
    #[arg(long, default_value_t = 400)]
    nodes: usize,
    /// Machines of a leg that are under way at one time.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Machines that come all at once, in a leg of its own; 0 leaves that out.
    #[arg(long, default_value_t = 500)]
    storm: usize,
    /// Hollow nodes that are to become Ready; 0 leaves that out.
    #[arg(long, default_value_t = 50)]
    hollow: usize,
}

/// What the legs of one flow came to.
#[derive(Default)]
struct Book {
    /// Microseconds of CPU a node, by process.
    parts: Vec<Vec<f64>>,
    sums: Vec<f64>,
    own: Calls,
    nodes: usize,
    storms: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if std::env::var_os(APART).is_none() {
        println!("== Building, the server in release form: some minutes");
    }
    let load = build_example("berth-tests", "load", &["--release"])?;
    let stage = Stage::build(&["--release"], &[])?;
    programs(&Program::USUAL)?;
    if std::env::var_os(APART).is_none() && may_be_apart() {
        drop(stage);
        return apart();
    }
    let began = Instant::now();
    let cluster = Cluster::start(&berth_kubernetes::Options::default())?;
    let seeded = cluster.seed_kubeadm()?;
    cluster.install("base")?;
    println!(
        "== Kubernetes {} ready after {}, its client limits raised to 500 a second; load of the machine before: {}",
        version(),
        seconds(began.elapsed()),
        machine_load()?
    );
    let account = cluster.account()?;
    let mut scene = Scene::new(&stage, &cluster, &load, &account, &seeded.token);
    let mut books: [Book; 6] = std::array::from_fn(|_| Book::default());
    let rounds = if options.rounds > 0 { options.rounds + 1 } else { 0 };
    for round in 0..rounds {
        for (flow, book) in Flow::MEASURED.into_iter().zip(&mut books) {
            let leg = scene.play(flow, options.nodes, options.in_flight)?;
            // The first round fills caches and pools: it is not counted.
            if round > 0 {
                book.take(leg, options.nodes);
            }
        }
        println!("   round {round} of {} done; load {}", options.rounds, machine_load()?);
    }
    if rounds > 0 {
        report(&books, options);
    }
    let storms = if options.storm > 0 { STORMS } else { 0 };
    for round in 0..storms {
        for (flow, book) in Flow::ALL.into_iter().zip(&mut books) {
            let leg = scene.play(flow, options.storm, options.storm)?;
            if round > 0 {
                book.storms.push(options.storm as f64 / leg.certificates);
            }
        }
    }
    if storms > 0 {
        report_storms(&books, options.storm);
    }
    if options.hollow > 0 {
        ready::run(&mut scene, options.hollow)?;
    }
    println!("load of the machine after: {}", machine_load()?);
    Ok(())
}

impl Book {
    fn take(&mut self, leg: Leg, nodes: usize) {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / nodes as f64;
        let parts: Vec<f64> = leg.spent.iter().copied().map(each).collect();
        self.sums.push(parts.iter().sum());
        self.parts.push(parts);
        self.own.add(leg.calls);
        self.nodes += nodes;
    }

    fn part(&self, index: usize) -> Spread {
        let of_rounds: Vec<f64> = self.parts.iter().filter_map(|parts| parts.get(index).copied()).collect();
        Spread::of(&of_rounds)
    }
}

fn report(books: &[Book; 6], options: &Options) {
    let [plain, ..] = books;
    println!(
        "\nCPU of the control plane a certificate, us, {} nodes a leg, {} at a time, {} rounds, median [least-greatest], without what it spends idle",
        options.nodes, options.in_flight, options.rounds
    );
    for (flow, book) in Flow::MEASURED.into_iter().zip(books) {
        let ratios: Vec<f64> = book.sums.iter().zip(&plain.sums).map(|(sum, plain)| sum / plain).collect();
        let aim = flow.aim().map_or(String::new(), |aim| format!(" (aim {aim:.1})"));
        println!(
            "{:<12} {:.0} = {:.2} x plain{aim}",
            flow.name(),
            Spread::of(&book.sums),
            Spread::of(&ratios)
        );
        let measured = book.parts.first().map_or(0, Vec::len);
        for (index, name) in leg::PROCESSES.into_iter().enumerate().take(measured) {
            println!("             {name:<24} {:.0}", book.part(index));
        }
    }
    let width = Spread::of(&plain.sums).width();
    if width > WIDEST_REFERENCE {
        println!(
            "             VOID: the plain leg itself varied by {:.0} %; the machine is too busy",
            width * 100.0
        );
    }
    println!("\nCalls to the API server a node, from its audit log");
    for (flow, book) in Flow::MEASURED.into_iter().zip(books) {
        let who = if flow == Flow::Plain { "nodes and kube-controller-manager" } else { ACCOUNT };
        println!("{:<12} {:.2} by {who}", flow.name(), book.own.a_join(book.nodes));
        book.own.print(book.nodes);
    }
}

fn report_storms(books: &[Book; 6], storm: usize) {
    println!("\nCertificates a second, {storm} machines at once, generator and cluster on the same cores");
    for (flow, book) in Flow::ALL.into_iter().zip(books) {
        println!("{:<12} {:.1}", flow.name(), Spread::of(&book.storms));
    }
    println!(
        "             with the usual client limits of kube-controller-manager: 10.5 (measured elsewhere)"
    );
}

/// Storms of each flow; the first is not counted.
const STORMS: usize = 3;
/// Largest (max - min) / median of the plain leg.
const WIDEST_REFERENCE: f64 = 0.15;
