//! The one table of what the bundle service bounds. Each value is set by hand; tests
//! beside `pace`, `places` and `shelf` hold them.

use std::time::Duration;

/// Bounds of all transfers of a server.
#[derive(Clone, Debug)]
pub struct BundleLimits {
    /// Transfers at one time. Each holds at most six chunks in memory, between file
    /// and socket: 32 transfers are some 12 MiB.
    pub transfers: usize,
    /// Transfers of one node at one time; the agent needs one.
    pub transfers_per_node: usize,
    /// Transfers that may wait for a place.
    pub waiting: usize,
    /// How long one may wait for a place before it is told to come back. Well within
    /// the agent's patience for an answer (30 s).
    pub patience: Duration,
    /// Bytes that leave in a second, for all transfers together.
    pub bytes_per_second: u64,
    /// How long a node may take to accept a chunk before its place is given to others.
    pub stall: Duration,
}

impl BundleLimits {
    /// Bytes of one chunk: what the wire allows.
    pub const CHUNK: usize = berth_domain::bundle::CHUNK_BYTES;

    /// Bytes of a signature's file.
    pub const LARGEST_SIGNATURE: u64 = 16 * 1024;
}

impl Default for BundleLimits {
    fn default() -> Self {
        Self {
            transfers: 32,
            transfers_per_node: 2,
            waiting: 256,
            patience: Duration::from_secs(8),
            // A gigabit link, and a little room on it.
            bytes_per_second: 100 * 1024 * 1024,
            stall: Duration::from_secs(30),
        }
    }
}
