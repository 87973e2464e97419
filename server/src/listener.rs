//! The join listener: our own accept loop and TLS in front of tonic's services.
//! It bounds what a stranger can cost, binds each request to its connection
//! ([`Peer`]), and keeps peers with and without a certificate in lanes of their own.
//!
//! `accept` takes connections, `connection` leads one from its first byte to its
//! end, `limits` is the table of every bound.

mod accept;
mod connection;
mod failure;
mod gathering;
pub mod limits;
mod message;
mod observer;
mod peer;
mod proxy;
mod source;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use limits::{LaneLimits, Limits};
pub use observer::{CertificateFailure, ConnectionOutcome, Lane, Observer, TlsFailure, Unobserved};
pub use peer::{Exporter, Peer};
pub use proxy::ProxyProtocol;
pub use tls::{Credentials, ServerTls, TlsError};

/// What a listener is made of.
pub struct ListenerSettings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether balancers in front speak the PROXY protocol.
    pub proxy: ProxyProtocol,
    /// The bounds.
    pub limits: Limits,
    /// Who is told what became of connections.
    pub observer: Arc<dyn Observer>,
}

/// The services of each lane.
pub struct Lanes {
    /// For peers without a client certificate.
    pub anonymous: Routes,
    /// For peers whose client certificate has been verified.
    pub authenticated: Routes,
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The process may open too few descriptors to hold one connection.
    #[error(
        "the process may open {allowed} descriptors and keeps {reserved} for itself; \
         raise the limit of open files (LimitNOFILE in the unit, ulimit -n in a shell)"
    )]
    Descriptors {
        /// The soft `RLIMIT_NOFILE`.
        allowed: u64,
        /// `Limits::descriptors_reserved`.
        reserved: usize,
    },
}

/// Why a listener stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket is of no use any more; its connections were drained.
    #[error("accepting connections")]
    Accept(#[source] io::Error),
}

/// A listener that has its address but serves nobody yet; clients wait in the
/// kernel's queue.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    connections: usize,
    settings: ListenerSettings,
}

/// Takes the address. To be called within the tokio runtime.
///
/// # Errors
/// See [`BindError`].
pub fn bind(settings: ListenerSettings) -> Result<Bound, BindError> {
    let limits = &settings.limits;
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = usize::try_from(allowed)
        .unwrap_or(usize::MAX)
        .saturating_sub(limits.descriptors_reserved)
        .min(limits.connections);
    if connections == 0 {
        return Err(BindError::Descriptors { allowed, reserved: limits.descriptors_reserved });
    }
    let (listener, address) = listen(settings.address, limits.backlog)
        .map_err(|source| BindError::Listen { address: settings.address, source })?;
    Ok(Bound { listener, address, connections, settings })
}

impl Bound {
    /// The address in fact, with the port that the kernel chose if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The most connections that this listener will hold at one time.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Serves until `drain` is cancelled: then accepts no more, asks every peer to
    /// go (GOAWAY), lets streams in progress finish for `Limits::drain`, cuts the
    /// rest and returns. Dropping the future cuts everything at once.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(
        self,
        tls: Arc<ServerTls>,
        lanes: Lanes,
        drain: CancellationToken,
    ) -> Result<(), ServeError> {
        // A child: a listener that fails drains its own connections, not the server.
        let front = connection::Front::new(self.settings, tls, lanes, drain.child_token());
        // A task of its own: it then runs beside its connections, and does not wake
        // the program's main thread for each that comes and goes.
        let mut accepting = JoinSet::new();
        accepting.spawn(accept::run(Arc::new(front), self.listener, self.connections));
        match accepting.join_next().await {
            Some(Ok(served)) => served,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted server must not wait for the old one's TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(backlog)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
