//! berth-agent: brings this machine to its berth in a Kubernetes cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_agent::app::main(std::env::args_os())
}
