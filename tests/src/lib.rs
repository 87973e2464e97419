//! The world for tests: real server and agent processes on loopback addresses of
//! their own, each below a directory of its own, all ended by id when the world
//! goes.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test whose world does not stand should stop there, saying which part fell; starting processes is what it is for"
)]

mod agent;
mod balancer;
mod browser;
mod http;
mod inventory;
mod kubernetes;
mod machine;
mod namespace;
mod place;
mod process;
mod prometheus;
pub mod race;
mod server;

pub use agent::{Agent, Joined, joined};
pub use balancer::{Balance, Balancer};
pub use browser::{Browser, Element};
pub use http::http_get;
pub use inventory::Inventory;
pub use kubernetes::{KubernetesWorld, LEAVING, leaving_right};
pub use machine::{MachineWorld, pod_on};
pub use namespace::{enter, start_in};
pub use place::{Place, TOLD, mend, put_runtime, value};
pub use process::{Ended, Running, binary, eventually, system_program};
pub use prometheus::Prometheus;
pub use server::{Server, ServerOptions, merge};

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A world of its own: a directory, a loopback address, a server.
pub struct World {
    directory: TempDir,
    /// The server that started with the world.
    pub server: Server,
}

impl World {
    /// A world with a server as it starts without configuration.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&ServerOptions::default())
    }

    /// A world with a server that is configured.
    #[must_use]
    pub fn with(options: &ServerOptions) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-world-").tempdir().expect("a directory");
        let server = Server::start(&directory.path().join("server"), "server", options);
        Self { directory, server }
    }

    /// Another server process on the same store.
    #[must_use]
    pub fn another_server(&self, name: &str, options: &ServerOptions) -> Server {
        Server::start(&self.directory.path().join("server"), name, options)
    }

    /// A machine below a directory of its own.
    #[must_use]
    pub fn machine(&self, name: &str) -> Agent {
        Agent::new(&self.directory.path().join(name), name)
    }

    /// The world's directory, for files that a test brings.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into the world, readable by its owner only.
    #[must_use]
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.directory.path().join(name);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .expect("a file in the world");
        file.write_all(content.as_bytes()).expect("the file is written");
        path
    }
}

/// A loopback address that no other world uses: tests run side by side, and each
/// may listen on the same ports.
#[must_use]
pub fn own_address() -> std::net::Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // 127.64.0.0/10 by process, 64 worlds each.
    let third = high.wrapping_mul(64).wrapping_add(u8::try_from(next % 64).unwrap_or(0));
    std::net::Ipv4Addr::new(127, 64 | (high >> 2), third, low.max(1))
}
