//! The one table of everything the join listener bounds: time, memory, sockets,
//! streams. Each value is set by hand, because the libraries' defaults are wide
//! or, where they are passed on as "none", no bound at all; each has a regression
//! test in `tests/listener/`. Values: the hardened listener defaults.

use std::time::Duration;

/// TLS session tickets sent after a handshake. None: a resumed session would skip
/// the check of the client certificate.
pub const TLS_TICKETS: usize = 0;

/// Bytes of TLS 1.3 early data accepted. None: early data can be replayed.
pub const TLS_EARLY_DATA_BYTES: u32 = 0;

/// The only application protocol spoken (RFC 9113, "h2"); a peer that does not
/// negotiate it is refused.
pub const ALPN: &[u8] = b"h2";

/// Bytes that show a peer speaks HTTP/2: the client preface (24) and the header
/// of the SETTINGS frame that must follow it (9), RFC 9113 section 3.4.
pub const PREFACE_BYTES: u32 = 33;

/// Bytes that a connection gathers before it writes them out, whether flushed or not:
/// one TLS record (RFC 8446 section 5.1).
pub const GATHERED_BYTES: usize = 16 * 1024;

/// Bounds of the listener as a whole, and of each lane behind it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest queue of connections that the kernel completes before we accept them.
    pub backlog: u32,
    /// Connections held at one time. Lowered at bind to what the process may open
    /// (`RLIMIT_NOFILE` less `descriptors_reserved`).
    pub connections: usize,
    /// Descriptors kept for the store, the logs and the other listeners.
    pub descriptors_reserved: usize,
    /// Connections of one source (an IPv4 address, an IPv6 /64) that have not yet
    /// proved anything.
    pub connections_per_source: u32,
    /// Bytes of a PROXY v2 header, its fixed part included.
    pub proxy_header_bytes: usize,
    /// Time a peer has, from the first byte of its connection, for the PROXY header
    /// and the TLS handshake. Waiting for a turn (`handshakes_in_flight`) is our
    /// slowness and does not count.
    pub handshake: Duration,
    /// TLS handshakes worked on at one time; more wait for their turn.
    pub handshakes_in_flight: usize,
    /// Time from the end of the handshake to the end of the HTTP/2 preface.
    pub first_byte: Duration,
    /// Time from the end of the handshake until `Peer::proved` is called, in the
    /// anonymous lane.
    pub proof: Duration,
    /// First pause after the kernel refuses us a descriptor or memory; doubles.
    pub accept_pause: Duration,
    /// Longest such pause.
    pub accept_pause_max: Duration,
    /// Time that streams in progress have to finish once the server drains.
    pub drain: Duration,
    /// Peers without a client certificate.
    pub anonymous: LaneLimits,
    /// Peers with a verified client certificate.
    pub authenticated: LaneLimits,
}

/// Bounds of one connection of a lane.
#[derive(Clone, Debug)]
pub struct LaneLimits {
    /// Age at which a connection is asked to go (GOAWAY), so that peers spread over
    /// the replicas again and nobody stays for ever.
    pub age: Duration,
    /// How far `age` may differ from one connection to the next, in percent of it,
    /// so that connections that came together do not leave together.
    pub age_jitter_percent: u32,
    /// Time that streams in progress have after that GOAWAY before they are cut.
    pub age_grace: Duration,
    /// Streams open at one time.
    pub streams: u32,
    /// Bytes of one gRPC message, as sent. Decoded, a message may be 59 times as large.
    pub message_bytes: u32,
    /// Bytes of one request's header list, by the count of RFC 9113 section 6.5.2.
    pub header_list_bytes: u32,
    /// Bytes in flight towards us, for each stream and for all together.
    pub window_bytes: u32,
    /// Bytes of one HTTP/2 frame.
    pub frame_bytes: u32,
    /// Bytes buffered for one stream's response.
    pub send_buffer_bytes: usize,
    /// Streams that we had to reset for the peer's errors before the connection is
    /// closed (RUSTSEC-2024-0003).
    pub local_error_resets: usize,
    /// Streams reset by the peer before we took them up, before the connection is
    /// closed (CVE-2023-44487).
    pub pending_accept_resets: usize,
    /// Time between HTTP/2 pings: below the idle time-out of the usual balancers.
    pub keepalive: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            backlog: 4096,
            connections: 65_536,
            descriptors_reserved: 64,
            connections_per_source: 8,
            proxy_header_bytes: 512,
            handshake: Duration::from_secs(5),
            handshakes_in_flight: 256,
            first_byte: Duration::from_secs(3),
            proof: Duration::from_secs(10),
            accept_pause: Duration::from_millis(10),
            accept_pause_max: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            anonymous: LaneLimits::anonymous(),
            authenticated: LaneLimits::authenticated(),
        }
    }
}

impl LaneLimits {
    fn anonymous() -> Self {
        Self {
            age: Duration::from_secs(10 * 60),
            age_jitter_percent: 10,
            age_grace: Duration::from_secs(30),
            streams: 16,
            message_bytes: 64 * 1024,
            header_list_bytes: 8 * 1024,
            // The initial window of RFC 9113 section 6.9.2: nothing to announce.
            window_bytes: 65_535,
            frame_bytes: 16 * 1024,
            send_buffer_bytes: 64 * 1024,
            local_error_resets: 64,
            pending_accept_resets: 16,
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }

    fn authenticated() -> Self {
        Self { age: Duration::from_secs(60 * 60), message_bytes: 256 * 1024, ..Self::anonymous() }
    }
}
