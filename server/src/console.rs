//! The console: a web page for operators, served by the server itself over plain
//! HTTP/1.1 on loopback, or over TLS. It has no power of its own: whatever it is
//! asked goes to the [`Desk`] of berth.admin.v1, with the operator's name.
//!
//! A browser proves once that it knows an operator's token and then names the
//! session in each request; the page keeps it, no cookie does, because cookies of
//! 127.0.0.1 go to every port of it. With TLS, a client certificate serves as well.

mod answer;
mod api;
mod connection;
mod door;
mod identity;
mod keys;
mod limits;
mod page;
mod peers;
mod sessions;
mod tls;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use berth_domain::timestamp::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::door::Door;
use self::keys::Keys;
use self::sessions::Sessions;
use self::tls::Tls;
use crate::admin::Desk;
use crate::health::Checks;
use crate::ports::Clock;

pub use keys::KeysError;
pub(crate) use limits::SERVERS;
pub use tls::TlsError;

/// What a console is made of, checked by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens: loopback, unless there is `tls`.
    pub listen: SocketAddr,
    /// Hosts beside the address by which browsers may ask for it.
    pub names: Vec<String>,
    /// Names and tokens of its operators; made at the first start.
    pub token_file: PathBuf,
    /// The certificate to serve with.
    pub tls: Option<TlsFiles>,
    /// Where a trace can be seen: a URL with `{trace}` in it.
    pub trace_url: Option<String>,
    /// Health listeners of the other servers, `host:port`.
    pub servers: Vec<String>,
}

/// The files of a console with TLS, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
    /// The CA of operators' certificates.
    pub client_ca: Option<PathBuf>,
}

/// What the page says of the server.
#[derive(Clone, Debug)]
pub struct About {
    /// The server's version.
    pub version: &'static str,
    /// Where machines join, `host:port`.
    pub endpoint: String,
    /// The cluster's id.
    pub cluster: String,
}

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not to be had.
    #[error("binding the console at {address}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The operators' tokens.
    #[error("having the console's operators")]
    Keys(#[source] KeysError),
    /// The certificate.
    #[error("having the console's certificate")]
    Tls(#[source] TlsError),
}

/// A console that has its address and serves nobody yet.
pub struct Bound {
    settings: Settings,
    listener: TcpListener,
    address: SocketAddr,
    keys: Keys,
    tls: Option<Tls>,
}

/// Takes the address, and makes the token file if there is none.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(settings: Settings) -> Result<Bound, BindError> {
    let keys = Keys::open(&settings.token_file).map_err(BindError::Keys)?;
    let tls = settings.tls.clone().map(Tls::open).transpose().map_err(BindError::Tls)?;
    let failed = |cause| BindError::Address { address: settings.listen, cause };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { settings, listener, address, keys, tls })
}

impl Bound {
    /// Where a browser of this machine finds it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, desk: Desk, about: About, checks: Checks, stop: CancellationToken) {
        let Self { settings, listener, address, keys, tls } = self;
        let console = Arc::new(Console {
            door: Door::new(address, &settings.names, tls.is_some()),
            clock: Arc::clone(&desk.clock),
            desk,
            about,
            checks,
            keys,
            sessions: Sessions::default(),
            trace_url: settings.trace_url,
            servers: settings.servers,
            instance: uuid::Uuid::now_v7().simple().to_string(),
        });
        let tls = tls.map(Arc::new);
        let router = router(&console);
        let mut connections = JoinSet::new();
        loop {
            let full = connections.len() >= limits::CONNECTIONS;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection::serve(stream, tls.clone(), router.clone()));
                    }
                    // Out of descriptors, most likely: a loop without a pause would spin.
                    Err(error) => {
                        tracing::warn!(%error, "the console cannot accept");
                        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// What requests are answered from.
struct Console {
    door: Door,
    desk: Desk,
    clock: Arc<dyn Clock>,
    about: About,
    checks: Checks,
    keys: Keys,
    sessions: Sessions,
    trace_url: Option<String>,
    servers: Vec<String>,
    /// Names this process: places in the record mean nothing to another.
    instance: String,
}

impl Console {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn router(console: &Arc<Console>) -> Router {
    Router::new()
        .merge(page::routes())
        .nest("/api", api::routes(console))
        .fallback(answer::no_such_page)
        .layer(from_fn_with_state(Arc::clone(console), door::guard))
        .with_state(Arc::clone(console))
}
