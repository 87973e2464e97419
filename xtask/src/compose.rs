//! `cargo xtask compose`: docker-compose.yml from images that are made on this machine,
//! so that it comes up where none can be pulled.

use std::time::{Duration, Instant};

use anyhow::Result;
use berth_compose::{Docker, Programs, Stack, build, make_images};
use clap::Subcommand;

use crate::test::seconds;

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Builds and fetches the programs that the images hold; needs no Docker.
    Programs,
    /// Makes every image of the stack from programs of this machine.
    Images,
    /// Brings the stack up, waits until its machines are Ready, and says what to look at.
    Up {
        /// How many machines join.
        #[arg(long, value_name = "N", default_value_t = 3)]
        machines: u32,
        /// With the images that are there, as they are.
        #[arg(long)]
        no_images: bool,
    },
    /// Takes the stack down, with all that it kept.
    Down,
}

pub(crate) fn run(task: &Task) -> Result<()> {
    if let Task::Programs = task {
        return programs().map(drop);
    }
    // First, as it is the quickest to say.
    let docker = Docker::of_this_machine()?;
    match task {
        Task::Programs => Ok(()),
        Task::Images => images(&docker),
        Task::Up { machines, no_images } => {
            if !no_images {
                images(&docker)?;
            }
            up(&docker, *machines)
        }
        Task::Down => stack(&docker).down(),
    }
}

/// The programs, built or fetched where they are missing; Berth's own as they are now.
pub(crate) fn programs() -> Result<Programs> {
    build(&mut |line| println!("{line}"))
}

fn images(docker: &Docker) -> Result<()> {
    let began = Instant::now();
    let programs = programs()?;
    make_images(docker, &programs, &mut |line| println!("made {line}"))?;
    println!("all made in {}", seconds(began.elapsed()));
    Ok(())
}

fn up(docker: &Docker, machines: u32) -> Result<()> {
    let began = Instant::now();
    let stack = stack(docker);
    stack.up(machines)?;
    println!("all is started after {}", seconds(began.elapsed()));
    let wanted = usize::try_from(machines).unwrap_or(usize::MAX);
    let cluster = stack.cluster(&Programs::of_this_machine()?)?;
    cluster.wait_for_nodes(wanted, READY_WITHIN)?;
    println!("{}", cluster.kubectl(&["get", "nodes,nodejoins"])?);
    println!("{machines} nodes are Ready after {}", seconds(began.elapsed()));
    println!("\n{}", Docker::said(stack.compose(&["run", "--rm", "-T", "operator"]))?.trim_end());
    println!("Traces:   http://127.0.0.1:16686");
    println!("Metrics:  http://127.0.0.1:9090");
    println!("Joins:    docker compose exec berth-server berth-server joins watch");
    println!("The end:  cargo xtask compose down");
    Ok(())
}

/// The project is named after the folder of the file by compose itself; ours has the
/// same name whatever the clone's folder is called.
fn stack(docker: &Docker) -> Stack {
    Stack::new(docker, "berth", true)
}

const READY_WITHIN: Duration = Duration::from_secs(300);
