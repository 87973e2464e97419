//! The way to an API server that all adapters of the cluster share: one client
//! with its deadlines, one way to follow what changes ([`watch`]), and one reading
//! of what the API server answers ([`failure`]).

pub mod failure;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

pub use failure::{Failure, Permission, classify};

/// How long a connection to the API server may take.
pub const CONNECT: Duration = Duration::from_secs(2);

/// How long one call may take, watches excepted.
pub const CALL: Duration = Duration::from_secs(5);

/// How long a watch may be silent: its bookmarks come every minute.
const SILENCE: Duration = Duration::from_secs(90);

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("reading the kubeconfig {path}")]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: Box<KubeconfigError>,
    },
    /// There is neither a service account nor a kubeconfig.
    #[error(
        "finding the cluster: this process has no service account and no kubeconfig; give one with --kubeconfig FILE"
    )]
    Nowhere(#[source] Box<InferConfigError>),
    /// The client could not be made.
    #[error("making a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// A cluster's API server, and what was said of it.
#[derive(Clone)]
pub struct ApiServer {
    /// The client; cheap to clone.
    pub client: Client,
    /// The CA certificates by which the API server is verified, DER.
    pub roots: Vec<Vec<u8>>,
    /// Its host, as the client calls it.
    pub host: String,
}

/// Prepares the way to the API server: by a kubeconfig, else by the pod's own
/// service account, else by the usual kubeconfig. Nothing is asked yet.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<ApiServer, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |cause| ConnectError::Kubeconfig { path: path.to_owned(), cause: Box::new(cause) };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrong)?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            // Not a pod: whatever the user's own tools reach.
            Err(_) => Config::infer().await.map_err(|cause| ConnectError::Nowhere(Box::new(cause)))?,
        },
    };
    config.connect_timeout = Some(CONNECT);
    // Calls are bounded one by one, by `within`; a watch that says less is cut off.
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(CONNECT);
    // Whoever calls decides whether to call again.
    config.default_retry = false;
    let roots = config.root_cert.clone().unwrap_or_default();
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let client = Client::try_from(config).map_err(|cause| ConnectError::Client(Box::new(cause)))?;
    Ok(ApiServer { client, roots, host })
}

/// One call within its deadline; its error read.
///
/// # Errors
/// What the API server said, or that it said nothing.
pub async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(&error)),
        Err(_elapsed) => Err(Failure::Unreachable {
            error: format!("the API server gave no answer in {} s", CALL.as_secs()),
        }),
    }
}

/// A random part of a wait, so that those who wait together do not ask together.
/// Without randomness a wait may be guessed; it must not fail.
#[must_use]
pub fn part(wait: Duration) -> Duration {
    let mut bytes = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    wait.mul_f64(f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}
