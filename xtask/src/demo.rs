//! `cargo xtask demo`: one join to look at. Real processes and real sockets, in a
//! temporary directory; no root, and nothing is left behind.

mod kubernetes;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::process::{Running, command};
use crate::stage::{STEP_WITHIN, Stage};
use crate::test::seconds;

#[derive(Args)]
pub(crate) struct Options {
    /// Leave the server and the machine up, and say how to go on.
    #[arg(long, conflicts_with = "kubernetes")]
    keep: bool,
    /// The same on a real control plane, which is built and started first.
    #[arg(long)]
    kubernetes: bool,
    /// With --kubernetes: on the cluster of this kubeconfig.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.kubernetes {
        return kubernetes::run(options.kubeconfig.as_deref());
    }
    let started = Instant::now();
    say("Building berth-server and berth-agent");
    let stage = Stage::build(&[], &[])?;

    say("The server starts with no configuration: it makes its CA and its store, and listens");
    let (server, took) = stage.start_server(&[], &[])?;
    println!(
        "  ready after {}: joins at {}, health at http://{}/readyz",
        seconds(took),
        stage.join,
        stage.health
    );

    say("A token, good for one machine, within the hour");
    let token = stage.mint(&["--uses", "1"])?;
    let id = token.split('.').nth(1).unwrap_or_default();
    println!(
        "  its id is {id}; each machine gets the secret as a file, and removes the file once it has joined"
    );

    say("machine-a joins, in five phases");
    join(&stage, "machine-a", &token, 0)?;

    say("machine-b comes with the same token and is refused (exit status 4)");
    join(&stage, "machine-b", &token, REFUSED)?;

    say("What the operator sees: every join");
    show(&stage, &["joins", "list"])?;
    say("Why machine-b was refused");
    show(&stage, &["joins", "explain", &refused_join(&stage)?])?;
    say("What is known of machine-a");
    show(&stage, &["nodes", "show", "machine-a"])?;

    let machine = options.keep.then(|| attend(&stage, "machine-a")).transpose()?;
    println!("\nDone in {}.", seconds(started.elapsed()));
    if let Some(machine) = machine {
        leave(stage, server, machine)?;
    }
    Ok(())
}

/// One machine's join, told as it goes.
fn join(stage: &Stage, name: &str, token: &str, expected: i32) -> Result<()> {
    let mut agent = command(&stage.agent);
    agent.arg("join").arg(stage.join.to_string()).args(["--node-name", name]);
    agent
        .arg("--token-file")
        .arg(stage.token_file(name, token)?)
        .arg("--root")
        .arg(stage.machine_root(name)?);
    stage.finish(agent, STEP_WITHIN, expected, |line| println!("  {line}"))?;
    Ok(())
}

/// The id of the join that was refused. It has no name: none was given to it.
fn refused_join(stage: &Stage) -> Result<String> {
    let list = stage.ask(&["joins", "list", "-o", "json"], |_| {})?;
    let list: Value = serde_json::from_str(&list.stdout).context("reading the JSON of all joins")?;
    let joins =
        list.get("joins").and_then(Value::as_array).context("the JSON of all joins has no field `joins`")?;
    let refused = joins.iter().find(|join| join.get("state").and_then(Value::as_str) == Some("Refused"));
    let id = refused.and_then(|join| join.get("id")?.as_str()).context("no join was refused")?;
    Ok(id.to_owned())
}

/// An operator's question and its answer.
fn show(stage: &Stage, words: &[&str]) -> Result<()> {
    println!("  $ berth-server {}", words.join(" "));
    stage.ask(words, |line| println!("  {}", short(line)))?;
    Ok(())
}

/// The line, or its beginning if it is too long for a terminal.
fn short(line: &str) -> String {
    match line.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// The agent as a service, on a machine that has joined.
fn attend(stage: &Stage, name: &str) -> Result<Running> {
    let mut agent = command(&stage.agent);
    agent.arg("run").args(["--server", &stage.join.to_string()]).arg("--root").arg(stage.path(name));
    Running::start(&mut agent, &stage.path("machine-a.log"))
}

/// Leaves the server and the machine up.
fn leave(stage: Stage, server: Running, machine: Running) -> Result<()> {
    let another = stage.machine_root("machine-c")?;
    println!("\nThe server and machine-a are up. To go on:");
    for (program, words) in [
        (&stage.server, format!("joins watch --admin-socket {}", stage.socket().display())),
        (
            &stage.server,
            format!("token create --print-join-command --admin-socket {}", stage.socket().display()),
        ),
        (
            &stage.agent,
            format!(
                "join {} --token-file FILE --node-name machine-c --root {}",
                stage.join,
                another.display()
            ),
        ),
    ] {
        println!("  {} {words}", program.display());
    }
    println!("To stop, and to leave nothing behind:");
    println!("  kill {} {}; rm -r {}", server.id(), machine.id(), stage.path("").display());
    server.leave();
    machine.leave();
    stage.keep();
    Ok(())
}

fn say(heading: &str) {
    println!("\n== {heading}");
}

/// Characters of a line that are shown.
const WIDEST: usize = 110;
/// The agent's exit status for a refusal.
const REFUSED: i32 = 4;
