//! Who is on the other end of a connection, as far as TCP and TLS can tell. Every
//! request carries it in its extensions. Nothing above this module looks at TLS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::limits::PREFACE_BYTES;
use super::source::SourceSlot;

/// The peer of one connection; a clone speaks of the same connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Counts up from 1 for each listener; for spans and logs.
    pub connection_id: u64,
    /// The client's own address, also behind a balancer that sends the PROXY header.
    /// Good for limits, the audit, and to see that an address is a member's own; it never
    /// authorises a caller.
    pub address: SocketAddr,
    /// The balancer that passed the connection on, if it says so by PROXY header.
    pub balancer: Option<SocketAddr>,
    /// The channel binding of the connection.
    pub exporter: Exporter,
    /// The leaf of the verified client certificate: present in the authenticated
    /// lane, and only there.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
    pub(super) standing: Arc<Standing>,
}

impl Peer {
    /// The peer has proved that it may be here: its connection no longer counts
    /// among the unproved ones of its source, and the deadline for the proof is off.
    pub fn proved(&self) {
        self.standing.prove();
    }

    /// Ends the connection at once, with every stream on it. A ban calls this.
    pub fn cut(&self) {
        self.standing.cut.notify_one();
    }
}

/// The TLS exporter of RFC 9266 (`tls-exporter`): 32 bytes, the same on both ends
/// of one TLS connection and nowhere else.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Exporter([u8; 32]);

impl Exporter {
    /// RFC 9266 section 2: the label; the context is empty.
    pub const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for a proof over them or their hash. Not for logs.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

/// How far a connection has come; shared by its task and its requests.
#[derive(Debug)]
pub(super) struct Standing {
    received: AtomicU32,
    proved: AtomicBool,
    slot: Mutex<Option<SourceSlot>>,
    pub(super) cut: Notify,
}

impl Standing {
    pub(super) fn new(slot: SourceSlot) -> Self {
        Self {
            received: AtomicU32::new(0),
            proved: AtomicBool::new(false),
            slot: Mutex::new(Some(slot)),
            cut: Notify::new(),
        }
    }

    /// Counts decrypted bytes, as far as the preface needs it.
    pub(super) fn receive(&self, bytes: usize) {
        let seen = self.received.load(Ordering::Relaxed);
        if seen < PREFACE_BYTES {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.received.store(seen.saturating_add(bytes), Ordering::Relaxed);
        }
    }

    pub(super) fn has_preface(&self) -> bool {
        self.received.load(Ordering::Relaxed) >= PREFACE_BYTES
    }

    pub(super) fn prove(&self) {
        self.proved.store(true, Ordering::Relaxed);
        self.leave_source();
    }

    pub(super) fn is_proved(&self) -> bool {
        self.proved.load(Ordering::Relaxed)
    }

    /// A request may outlive its connection; the source's share must not wait for it.
    pub(super) fn leave_source(&self) {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(slot);
    }
}
