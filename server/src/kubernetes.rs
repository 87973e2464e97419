//! The way to an API server that all adapters of the cluster share: one client
//! with its deadlines, one way to follow what changes ([`watch`]), and one reading
//! of what the API server answers ([`failure`]).

pub mod failure;
mod measured;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_telemetry::metrics::ApiMeter;
use berth_telemetry::propagation;
use futures_util::FutureExt as _;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::{Body, ClientBuilder};
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use measured::Measure;

pub use failure::{Failure, Permission, classify};

/// How long a connection to the API server may take.
pub const CONNECT: Duration = Duration::from_secs(2);

/// How long one call may take, watches excepted.
pub const CALL: Duration = Duration::from_secs(5);

const VALIDATION: &str = "fieldValidation=";

/// Who calls, in audit logs and, up to the slash, as the manager of what it writes.
const NAME: HeaderValue = HeaderValue::from_static(concat!("berth-server/", env!("CARGO_PKG_VERSION")));

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
/// service account, else by the usual kubeconfig. Nothing is asked yet. Each call's time
/// goes to `meter`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(kubeconfig: Option<&Path>, meter: ApiMeter) -> Result<ApiServer, ConnectError> {
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
    config.headers.push((USER_AGENT, NAME));
    // Whoever calls decides whether to call again.
    config.default_retry = false;
    let roots = config.root_cert.clone().unwrap_or_default();
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let builder = ClientBuilder::try_from(config).map_err(|cause| ConnectError::Client(Box::new(cause)))?;
    let client = builder
        .with_layer(&Measure(meter))
        .with_layer(&MapRequestLayer::new(|request| traced(unwarned(request))))
        .build();
    Ok(ApiServer { client, roots, host })
}

/// Tells the API server which span asks. It makes its own spans children of that one if
/// the caller is in `system:monitoring`, and else links to it (KEP-647).
fn traced(mut request: http::Request<Body>) -> http::Request<Body> {
    propagation::inject_headers(&tracing::Span::current(), request.headers_mut());
    request
}

/// Asks for no warnings about fields that are twice in an object or unknown
/// (`fieldValidation`): this program writes from types, and the API server would look
/// through each object once more for them. What the schema says is held all the same.
fn unwarned(mut request: http::Request<Body>) -> http::Request<Body> {
    let writes = [http::Method::POST, http::Method::PUT].contains(request.method());
    let path = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
    if !writes || path.contains(VALIDATION) {
        return request;
    }
    let joint = match path.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let mut parts = request.uri().clone().into_parts();
    // What cannot be said is left out: it saves work, and decides nothing.
    if let Ok(path) = format!("{path}{joint}{VALIDATION}Ignore").parse() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// One call within [`CALL`]; its error read.
///
/// # Errors
/// What the API server said, or that it said nothing.
pub fn within<T>(call: impl Future<Output = kube::Result<T>>) -> impl Future<Output = Result<T, Failure>> {
    bounded(CALL, call)
}

/// One call within a time of its own; its error read. Not an `async fn`, which would keep
/// the call twice.
///
/// # Errors
/// What the API server said, or that it said nothing.
pub fn bounded<T>(
    time: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> impl Future<Output = Result<T, Failure>> {
    tokio::time::timeout(time, call).map(move |answer| match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(&error)),
        Err(_elapsed) => Err(Failure::Unreachable {
            error: format!("the API server gave no answer in {}", humantime::format_duration(time)),
        }),
    })
}

/// A random part of a wait, so that those who wait together do not ask together.
/// Without randomness a wait may be guessed; it must not fail.
#[must_use]
pub fn part(wait: Duration) -> Duration {
    let mut bytes = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    wait.mul_f64(f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_alone_ask_for_no_warnings() {
        let asked = |method: http::Method, uri: &str| {
            let request = http::Request::builder().method(method).uri(uri).body(Body::empty());
            unwarned(request.expect("a request")).uri().to_string()
        };
        let (post, put) = (http::Method::POST, http::Method::PUT);
        assert_eq!(asked(post.clone(), "/api/v1/nodes?"), "/api/v1/nodes?fieldValidation=Ignore");
        assert_eq!(asked(post, "/api/v1/nodes"), "/api/v1/nodes?fieldValidation=Ignore");
        assert_eq!(asked(put.clone(), "/a?&dryRun=All"), "/a?&dryRun=All&fieldValidation=Ignore");
        assert_eq!(asked(put, "/a?fieldValidation=Strict"), "/a?fieldValidation=Strict");
        assert_eq!(asked(http::Method::GET, "/a?"), "/a?");
    }
}
