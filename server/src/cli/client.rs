//! The way to a server that runs: its admin socket.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_domain::diagnosis::Exit;
use berth_domain::timestamp::Timestamp;
use berth_program::clock::SystemClock;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::output::Failure;
use crate::ports::Clock as _;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is taken, in bytes: 10,000 joins have about 10 MB.
pub(super) const LARGEST_ANSWER: usize = 64 << 20;

/// Runs one command; it needs no more than one thread.
pub(super) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    runtime.block_on(command)
}

/// Connects to the server of this socket.
pub(super) async fn connect(socket: &Path) -> Result<Channel, Failure> {
    let first = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let mut first = Some(first);
    let path: PathBuf = socket.to_owned();
    let connector = service_fn(move |_: http::Uri| {
        let (ready, path) = (first.take(), path.clone());
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => UnixStream::connect(&path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The socket is the address; the URI is a form that HTTP asks for.
    let endpoint = Endpoint::from_static("http://admin").timeout(PATIENCE);
    endpoint.connect_with_connector(connector).await.map_err(Failure::other)
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let place = socket.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        let mend = "run this as the server's user, or with sudo";
        return Failure::new(Exit::Denied, format!("the socket {place} may not be opened: {mend}"));
    }
    let mend = "start it with berth-server run, or name its socket with --admin-socket or its \
                configuration with --config";
    Failure::new(Exit::Unreachable, format!("no server answers on {place} ({error}): {mend}"))
}

/// Now, for ages.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}
