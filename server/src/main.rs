//! berth-server: stands in front of a cluster and brings machines to their berths.

use std::process::ExitCode;

/// Thousands of lines stand at a time, whose buffers are mostly never filled: with it they
/// count by the pages that were written to (docs/decisions.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    berth_server::cli::main(std::env::args_os())
}
