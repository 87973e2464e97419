//! The plain server that Berth's is measured beside: what one would write in an afternoon
//! with the same libraries, tonic, rustls, rcgen and SQLite. A machine proves that it knows
//! a secret, gets a certificate, comes back with it and is Ready, over two connections and
//! with two durable rows. TLS is set as Berth's is.
//!
//! It is a yardstick and never a product: its one secret stands below, and there is no
//! policy, audit, fact, queue, limit, retry or telemetry. What Berth spends above it is what
//! these cost, and what its care for speed brings is below it.

mod line;
mod machine;
mod record;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aws_lc_rs::hmac;
use clap::Args;

pub(crate) use machine::join;
use server::Server;

#[derive(Args)]
pub(crate) struct BareServer {
    /// Where machines join; with port 0, at any port. The first line of its output says where.
    #[arg(long)]
    listen: SocketAddr,
    /// The file of its SQLite database, which is made.
    #[arg(long)]
    database: PathBuf,
}

impl BareServer {
    /// Serves until the process is ended.
    pub(crate) fn run(&self) -> Result<()> {
        // As Berth's server has it.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting tokio")?;
        runtime.block_on(async {
            let server = Server::open(self.listen, &self.database).await?;
            println!("{}", server.address()?);
            server.serve().await
        })
    }
}

/// What a machine proves the secret over: the connection's exported value, and its request.
fn said(exported: &[u8; EXPORTED_BYTES], request: &[u8]) -> Vec<u8> {
    [exported.as_slice(), request].concat()
}

fn secret() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, KNOWN_TO_ALL)
}

/// Keeps nobody out: a machine of a benchmark is whoever has this file.
const KNOWN_TO_ALL: &[u8] = b"the bare server of a benchmark";
/// What is exported from connection 1 (RFC 8446 section 7.5).
const LABEL: &[u8] = b"EXPORTER-berth-bare-server";
const EXPORTED_BYTES: usize = 32;
/// An HMAC-SHA256, before the request in what a machine says.
const PROOF_BYTES: usize = 32;

#[cfg(test)]
mod tests;
