//! berth-server: stands in front of a cluster and brings machines to their berths.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_server::cli::main(std::env::args_os())
}
