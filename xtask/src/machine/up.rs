//! `cargo xtask machine up`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{Left, NAMESPACE, Program, version};
use berth_machine::{CONTROL, Ground, Kind, World, missing, missing_for_virtual};
use serde_json::json;

use super::{Place, join_address};
use crate::cluster::programs;
use crate::process::{build, command, listen, workspace};
use crate::stage::{STEP_WITHIN, ready};
use crate::test::seconds;

pub(crate) fn run(place: &Place, names: &[String], alone: bool, kind: Kind) -> Result<bool> {
    let mut wanted = Program::USUAL.to_vec();
    wanted.push(Program::Kubelet);
    programs(&wanted)?;
    let missing = match kind {
        Kind::Namespaces => missing(),
        Kind::Virtual => missing_for_virtual(),
    };
    if !missing.is_empty() {
        bail!("a bare machine needs\n  {}", missing.join("\n  "));
    }
    let agent = build(&["berth-server", "berth-agent"], &[])?.pop().context("two programs were asked for")?;
    let say = &mut |line: &str| println!("{line}");
    let ground = match kind {
        Kind::Namespaces => Ground::lay(say)?,
        Kind::Virtual => Ground::lay_for_virtual(say)?,
    };
    let world = match World::find(&ground, &place.world())? {
        Some(world) => world,
        None => World::start(&ground, Some(&place.world()))?,
    };
    world.enter()?;
    if !alone && Left::find(&place.cluster())?.is_none() {
        let endpoint = control_plane(place)?;
        server(place, &world, &endpoint)?;
        bundle(place, &ground)?;
    }
    let there = world.machines()?;
    for name in names.iter().filter(|name| there.iter().all(|machine| machine.name() != **name)) {
        let began = Instant::now();
        let mut machine = world.bare_of(kind, name)?;
        machine.put(&agent, "/usr/local/bin/berth-agent")?;
        machine.boot()?;
        println!("{name} runs at {} after {}", machine.address()?, seconds(began.elapsed()));
    }
    world.leave()?;
    println!("\nTo go on:");
    println!("  cargo xtask machine shell {}            # on the machine", names.join("|"));
    println!("  cargo xtask machine shell               # beside the control plane: kubectl, berth-server");
    if !alone {
        let token = token(place)?;
        println!("  echo {token} >/run/token; berth-agent join {} --token-file /run/token", join_address());
    }
    println!("To end it, and to leave nothing behind:\n  cargo xtask machine down");
    Ok(true)
}

/// The program that `up` has built.
pub(super) fn server_program() -> PathBuf {
    workspace().join("target/debug/berth-server")
}

/// Starts a control plane that outlives this process; where its API server listens.
fn control_plane(place: &Place) -> Result<String> {
    let began = Instant::now();
    let cluster = berth_machine::control_plane(&place.cluster())?;
    println!("Kubernetes {} is ready after {}", version(), seconds(began.elapsed()));
    let endpoint = format!("https://{}", cluster.api().address());
    let account = cluster.account()?;
    std::fs::create_dir_all(place.server()).context("making the server's folder")?;
    std::fs::copy(account, place.server().join("kubeconfig")).context("keeping the server's kubeconfig")?;
    cluster.leave()?;
    Ok(endpoint)
}

/// Starts a server that lives as long as the world.
fn server(place: &Place, world: &World, endpoint: &str) -> Result<()> {
    let health = SocketAddr::from((CONTROL, 7480));
    // JSON is YAML.
    let configuration = json!({
        "apiVersion": "config.berth.dev/v1alpha1",
        "kind": "ServerConfiguration",
        "backend": "kubernetes",
        "kubernetes": { "kubeconfig": place.server().join("kubeconfig"), "namespace": NAMESPACE },
        "cluster": { "apiEndpoints": [endpoint] },
        "joinListen": join_address(),
        "advertise": join_address(),
        "healthListen": health,
        "dataDir": place.server().join("data"),
        "adminSocket": place.socket(),
        "bundle": { "path": place.bundle() },
    });
    let file = place.configuration();
    std::fs::write(&file, configuration.to_string()).context("writing the server's configuration")?;
    let mut server = command(server_program());
    server.arg("run").arg("--config").arg(&file);
    let began = Instant::now();
    let log = world.start_process("berth-server", server)?;
    while !ready(health) {
        if began.elapsed() > STEP_WITHIN {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the server is not ready after {}; it said:\n{said}", seconds(began.elapsed()));
        }
        crate::process::pause()?;
    }
    println!("berth-server is ready at {} after {}", join_address(), seconds(began.elapsed()));
    Ok(())
}

/// What the machines are made nodes of, as an operator makes it.
fn bundle(place: &Place, ground: &Ground) -> Result<()> {
    let parts = ground.parts();
    let mut operator = command(server_program());
    operator.args(["bundle", "create"]).arg(place.bundle()).arg("--from").arg(parts.folder());
    operator.arg("--program").arg(parts.kubelet()?).arg("--config").arg(place.configuration());
    let began = Instant::now();
    let made = listen(&mut operator, STEP_WITHIN, |_| {})?;
    if !made.status.success() {
        bail!("no bundle was made; it said:\n{}{}", made.stdout, made.stderr);
    }
    println!("a bundle of node software is made after {}", seconds(began.elapsed()));
    Ok(())
}

fn token(place: &Place) -> Result<String> {
    let mut operator = command(server_program());
    operator.args(["token", "create", "--ttl", "8h", "--uses", "50", "-o", "json", "--admin-socket"]);
    let made = listen(operator.arg(place.socket()), STEP_WITHIN, |_| {})?;
    let token: serde_json::Value = serde_json::from_str(&made.stdout)
        .with_context(|| format!("reading a new token: {}{}", made.stdout, made.stderr))?;
    Ok(token.get("token").and_then(serde_json::Value::as_str).context("no token was made")?.to_owned())
}
