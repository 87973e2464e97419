//! `cargo xtask bench machine`: from the start of one command to a Ready Node, by
//! `kubeadm join` and by `berth-agent join`, on machines of one kind: namespaces with a
//! real systemd, a kubelet, and a container runtime that runs already. Legs alternate in
//! rounds of one run; each has a new machine.

mod leg;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Cluster, Component, NAMESPACE, Program};
use berth_machine::{CONTROL, Ground, World, missing};
use clap::Args;
use serde_json::json;

use self::leg::{Flow, Leg, Scene};
use super::machine_load;
use super::meter::Spread;
use crate::cluster::programs;
use crate::stage::Stage;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds that are counted; one more goes before them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Both programs in debug form: to see that it runs. The figures say nothing then.
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (server, agent): (&[&str], &[&str]) = match options.debug {
        true => (&[], &[]),
        false => (&["--release"], &["--profile", "agent"]),
    };
    println!("== Building: in release form some minutes");
    let mut stage = Stage::build(server, agent)?;
    (stage.join, stage.health) = (SocketAddr::from((CONTROL, 7443)), SocketAddr::from((CONTROL, 7480)));
    programs(&[&Program::USUAL[..], &[Program::Kubelet]].concat())?;
    let missing = missing();
    if !missing.is_empty() {
        bail!("a bare machine needs\n  {}", missing.join("\n  "));
    }
    let ground = Ground::lay(&mut |line| println!("{line}"))?;
    let world = World::start(&ground, None)?;
    world.enter()?;
    let cluster = control_plane()?;
    let seeded = cluster.seed_kubeadm()?;
    let endpoint = format!("https://{}", cluster.api().address());
    let account = cluster.account()?.display().to_string();
    let join = stage.join.to_string();
    let words = ["--backend", "kubernetes", "--namespace", NAMESPACE, "--api-endpoint", &endpoint];
    let (_server, _) =
        stage.start_server(&[], &[&words[..], &["--kubeconfig", &account, "--advertise", &join]].concat())?;
    let uses = (options.rounds + 1).to_string();
    let token = stage.mint(&["--uses", &uses])?;
    println!("== Load of the machine before: {}", machine_load()?);
    let mut scene = Scene {
        stage: &stage,
        world: &world,
        ground: &ground,
        cluster: &cluster,
        seeded: &seeded,
        token: &token,
        begun: 0,
    };
    let mut books: [Vec<Leg>; 4] = std::array::from_fn(|_| Vec::new());
    for round in 0..=options.rounds {
        for (flow, book) in Flow::ALL.into_iter().zip(&mut books) {
            let leg = scene.play(flow).with_context(|| format!("in a leg of {}", flow.name()))?;
            // The first round fills caches: it is not counted.
            if round > 0 {
                book.push(leg);
            }
        }
        println!("   round {round} of {} done; load {}", options.rounds, machine_load()?);
    }
    report(&books);
    println!("load of the machine after: {}", machine_load()?);
    Ok(())
}

/// With what both sides need, and no network of pods: the machines have one.
fn control_plane() -> Result<Cluster> {
    let options = berth_kubernetes::Options { address: CONTROL.into(), ..Default::default() };
    // kubeadm reads cluster-info before it is anybody; the cluster's own flags refuse that.
    let options = options.flag(Component::ApiServer, "--anonymous-auth=true");
    // Its own limits, which the tests' clusters raise.
    let options = options.flag(Component::ControllerManager, "--kube-api-qps=20");
    let options = options.flag(Component::ControllerManager, "--kube-api-burst=30");
    let cluster = Cluster::start(&options)?;
    cluster.install("base")?;
    let profile = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "NodeProfile",
        "metadata": { "name": "default" },
        "spec": { "kubelet": { "failCgroupV1": false, "failSwapOn": false } },
    });
    cluster.apply(&profile.to_string())?;
    Ok(cluster)
}

fn report(books: &[Vec<Leg>; 4]) {
    let rounds = books.first().map_or(0, Vec::len);
    println!("\nSeconds from the command's start, {rounds} rounds, median [least-greatest]");
    println!("{:<34} {:>22} {:>22}   of kubeadm's", "", "kubeadm", "berth");
    for (pair, kind) in books.chunks_exact(2).zip(["an old token", "a token made that moment"]) {
        let [kubeadm, berth] = pair else { continue };
        println!("{kind}");
        for (what, digits, of) in MEASURES {
            let values = |book: &[Leg]| Spread::of(&book.iter().map(of).collect::<Vec<_>>());
            let ratios: Vec<f64> =
                kubeadm.iter().zip(berth).map(|(one, other)| of(other) / of(one)).collect();
            let ratios = ratios.into_iter().filter(|ratio| ratio.is_finite()).collect::<Vec<_>>();
            let ratio = if ratios.is_empty() { String::new() } else { format!("{:.2}", Spread::of(&ratios)) };
            println!(
                "  {what:<32} {:>22} {:>22}   {ratio}",
                format!("{:.digits$}", values(kubeadm)),
                format!("{:.digits$}", values(berth))
            );
        }
    }
    println!(
        "aims: Ready no later than kubeadm's median with an old token, 5 s earlier with a new one; a quarter\n\
         of its CPU; no request before the kubelet's; the kubelet started within 0.3 s"
    );
}

/// A name, digits behind the point, and where a leg has it.
type Measure = (&'static str, usize, fn(&Leg) -> f64);

/// What is said of a leg.
const MEASURES: [Measure; 9] = [
    ("kubelet started", 2, |leg| leg.kubelet_started),
    ("kubelet.conf written", 2, |leg| leg.configured),
    ("Node registered", 2, |leg| leg.registered),
    ("Node Ready", 2, |leg| leg.ready),
    ("of that since the kubelet's start", 2, |leg| leg.ready - leg.kubelet_started),
    ("command ended", 2, |leg| leg.ended),
    ("CPU of the command", 3, |leg| leg.cpu),
    ("API requests before the kubelet's", 0, |leg| leg.requests_before),
    ("API requests until Ready", 0, |leg| leg.requests),
];
