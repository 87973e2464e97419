//! The commands people run: `cargo xtask` test, demo, cluster, machine, compose and bench.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod bench;
mod cluster;
mod compose;
mod demo;
mod machine;
mod process;
mod stage;
mod test;
mod tools;

use std::process::ExitCode;

use clap::Parser;

/// The commands people run on a clone of Berth.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Every test and every gate, with a closing count.
    Test(test::Options),
    /// One join to look at: a server, a machine, and a second machine that is refused.
    Demo(demo::Options),
    /// A control plane of one's own: build, up, status, down.
    #[command(subcommand)]
    Cluster(cluster::Task),
    /// The whole product in containers: images, up, down.
    #[command(subcommand)]
    Compose(compose::Task),
    /// Bare machines beside a control plane: up, shell, down.
    #[command(subcommand)]
    Machine(machine::Task),
    /// What joins, attendance and renewals cost, as ratios of one run.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options).map(|()| true),
        Task::Cluster(task) => cluster::run(&task),
        Task::Compose(task) => compose::run(&task).map(|()| true),
        Task::Machine(task) => machine::run(&task),
        Task::Bench(options) => bench::run(&options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}
