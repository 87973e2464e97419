//! The parts of docker-compose.yml that are there for showing only: the keys of a
//! control plane that is thrown away, what Berth needs in it, a token, and machines
//! whose kubelets are hollow.

#![expect(clippy::print_stdout, reason = "its output is a container's log")]

mod keys;
mod machine;
mod operator;
mod seed;
mod token;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;

/// Parts of the compose file that are there for showing only.
#[derive(Parser)]
#[command(name = "berth-lab")]
enum Part {
    /// Makes the control plane's keys, once.
    Keys {
        /// Gets a folder for each of those who may have some of them.
        #[arg(long)]
        into: PathBuf,
    },
    /// Waits for the API server, and installs what Berth needs there.
    Seed {
        /// An administrator's.
        #[arg(long)]
        kubeconfig: PathBuf,
        /// A kustomization.
        #[arg(long)]
        manifests: PathBuf,
    },
    /// Has a token minted for the machines.
    Token {
        /// An administrator's.
        #[arg(long)]
        kubeconfig: PathBuf,
        /// The file that gets it.
        #[arg(long)]
        into: PathBuf,
    },
    /// Says how to sign in to the console.
    Operator {
        /// The file of its operators.
        #[arg(long)]
        tokens: PathBuf,
        /// Where a browser finds it.
        #[arg(long)]
        page: String,
    },
    /// Runs a machine: an agent, and a hollow kubelet as soon as its files are there.
    Machine {
        /// The folder that stands for the machine's disk.
        #[arg(long)]
        root: PathBuf,
        /// Where it joins.
        #[arg(long)]
        server: String,
        /// The file of its token.
        #[arg(long)]
        token: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Part::parse() {
        Part::Keys { into } => keys::make(&into),
        Part::Seed { kubeconfig, manifests } => seed::install(&kubeconfig, &manifests),
        Part::Token { kubeconfig, into } => token::mint(&kubeconfig, &into),
        Part::Operator { tokens, page } => operator::tell(&tokens, &page),
        Part::Machine { root, server, token } => machine::run(&root, &server, &token),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The one way to start a program here.
#[expect(clippy::disallowed_methods, reason = "the place where berth-lab starts processes")]
fn command(program: &str) -> Command {
    Command::new(program)
}
