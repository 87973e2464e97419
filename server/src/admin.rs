//! The desk of operators: what berth.admin.v1 offers, with every check. It has two
//! doors: the admin listener here, a Unix socket that only its owner may open, with
//! health and reflection; and the console. Each door says who asks.

mod changes;
mod joins;
mod nodes;
mod operator;
mod socket;
mod tokens;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_domain::identity::SpkiHash;
use berth_proto::admin::InvalidRequest;
use berth_proto::admin::v1::join_service_server::JoinServiceServer;
use berth_proto::admin::v1::node_service_server::NodeServiceServer;
use berth_proto::admin::v1::token_service_server::TokenServiceServer;
use berth_telemetry::recent::Recent;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::{InterceptorLayer, Routes};

use crate::ports::{Clock, Cluster, PortError, chain};
use crate::queue::Queue;

pub use changes::{Batch, Changes};
pub(crate) use joins::MOST_JOINS;
pub use operator::Operator;
pub use socket::BindError;

/// What operators work on.
#[derive(Clone)]
pub struct Services {
    /// What the server keeps.
    pub cluster: Arc<dyn Cluster>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What tokens pin.
    pub ca_pin: watch::Receiver<SpkiHash>,
    /// The join endpoint as machines reach it.
    pub endpoint: String,
    /// The spans of the last joins, where somebody keeps them.
    pub recent: Option<Recent>,
    /// Who waits for a turn at this server.
    pub queue: Arc<Queue>,
}

/// A socket that is bound and serves nobody yet. Removed when dropped.
#[derive(Debug)]
pub struct Bound(socket::Socket);

/// Binds the socket. One that a crash left behind is replaced; one on which a
/// server answers is not.
///
/// # Errors
/// The directory or the socket cannot be made, something else lies there, or
/// another server answers there.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    socket::bind(path).map(Bound)
}

impl Bound {
    /// Serves until the desk closes; watches end then.
    pub async fn serve(self, desk: Desk) {
        let Self(socket::Socket { listener, file }) = self;
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the admin listener cannot be served"),
        };
        let stop = desk.stop.clone();
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS)
            .layer(InterceptorLayer::new(operator::from_socket))
            .add_routes(routes(desk).await)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled());
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::error!(%error, "the admin listener ended");
            },
            // Somebody holds the connection and does not read: the server need not wait.
            () = late => {}
        }
        drop(file);
    }
}

/// Where operators' wishes are checked and carried out, through whichever door
/// they came: the services of berth.admin.v1 are implemented on it.
#[derive(Clone)]
pub struct Desk {
    services: Services,
    stop: CancellationToken,
    watches: Arc<Semaphore>,
}

impl Desk {
    /// A desk that closes when `stop` is cancelled.
    #[must_use]
    pub fn new(services: Services, stop: CancellationToken) -> Self {
        Self { services, stop, watches: Arc::new(Semaphore::new(MOST_WATCHES)) }
    }
}

impl std::ops::Deref for Desk {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

async fn routes(desk: Desk) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in
        ["", "berth.admin.v1.TokenService", "berth.admin.v1.JoinService", "berth.admin.v1.NodeService"]
    {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let routes = Routes::new(TokenServiceServer::new(desk.clone()))
        .add_service(JoinServiceServer::new(desk.clone()))
        .add_service(NodeServiceServer::new(desk))
        .add_service(health_service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(berth_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes.add_service(reflection),
        Err(error) => {
            tracing::error!(%error, "the admin listener serves without reflection");
            routes
        }
    }
}

/// What an operator hears of a port's error: all of it.
fn status(error: PortError) -> Status {
    match error {
        PortError::Refused(why) => Status::failed_precondition(format!("{why}; {}", why.mend())),
        PortError::Unavailable { operation, cause, .. } => {
            Status::unavailable(format!("the store could not {operation}: {}", chain(&*cause)))
        }
    }
}

fn invalid(request: InvalidRequest) -> Status {
    request.into_status()
}

/// Calls under way on one connection.
const STREAMS: u32 = 64;

/// Watches open at one time, of all connections and doors.
const MOST_WATCHES: usize = 64;

/// How long answers under way have once the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
