//! The plain HTTP listener of operators and balancers: `/livez`, `/readyz`,
//! `/startupz` (kube-apiserver's names; `?verbose` lists the checks) and `/metrics`.
//! Its own port, since most balancers can only check plain HTTP. It tells nothing
//! but health and metrics, and takes few connections, each for a short time, as
//! they come out of the same descriptors as the nodes'.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Response, StatusCode, Uri};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// One thing that must hold for the server to be healthy.
pub trait HealthCheck: Send + Sync {
    /// Its name in the verbose list: lower case, hyphens.
    fn name(&self) -> &'static str;

    /// The questions that it has a say in.
    fn probes(&self) -> &'static [Probe] {
        &[Probe::Ready]
    }

    /// Whether it holds now. Reads a state that someone else keeps: it must not
    /// block. The reason is shown to whoever may reach this port.
    ///
    /// # Errors
    /// The reason why it does not hold.
    fn check(&self) -> Result<(), Cow<'static, str>>;
}

/// What a prober asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/livez`: should the process be left alone, or restarted?
    Live,
    /// `/readyz`: should it get new connections?
    Ready,
    /// `/startupz`: has it come up?
    Startup,
}

/// Everything that must hold.
pub type Checks = Arc<[Box<dyn HealthCheck>]>;

/// What one check says: its name, and why it does not hold.
pub type Checked = (&'static str, Result<(), Cow<'static, str>>);

/// What the checks say that have a say in this question.
#[must_use]
pub fn asked(probe: Probe, checks: &[Box<dyn HealthCheck>]) -> Vec<Checked> {
    let asked = checks.iter().filter(|check| check.probes().contains(&probe));
    asked.map(|check| (check.name(), check.check())).collect()
}

/// Renders all metrics in the OpenMetrics text format.
pub type EncodeMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// A health listener that has its address but does not answer yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the address; port 0 takes a free one.
///
/// # Errors
/// What the kernel says.
pub async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The address in fact.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled. From the moment that `draining` is
    /// cancelled, `/readyz` fails, so that balancers turn away before the join
    /// listener does.
    pub async fn serve(
        self,
        checks: Checks,
        encode_metrics: EncodeMetrics,
        draining: CancellationToken,
        stop: CancellationToken,
    ) {
        let answers = Arc::new(Answers { checks, encode_metrics, draining });
        let asks = |asked: Probe| {
            get(move |State(answers): State<Arc<Answers>>, uri: Uri| ready(probe(asked, &answers, &uri)))
        };
        let router = Router::new()
            .route("/livez", asks(Probe::Live))
            .route("/readyz", asks(Probe::Ready))
            .route("/startupz", asks(Probe::Startup))
            .route("/metrics", get(|State(answers): State<Arc<Answers>>| ready(metrics(&answers))))
            .with_state(answers);
        let mut connections = JoinSet::new();
        loop {
            let full = connections.len() >= CONNECTIONS;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(answer(stream, router.clone()));
                    }
                    // Out of descriptors, most likely: the connection waits in the queue,
                    // and a loop without a pause would spin on it.
                    Err(error) => {
                        tracing::warn!(error = %error, "the health listener cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

struct Answers {
    checks: Checks,
    encode_metrics: EncodeMetrics,
    draining: CancellationToken,
}

async fn answer(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "health connection failed"),
        Err(_) => tracing::debug!("health connection cut: too old"),
    }
}

fn probe(probe: Probe, answers: &Answers, uri: &Uri) -> Response<Body> {
    let mut results = asked(probe, &answers.checks);
    if probe == Probe::Ready {
        let draining = answers.draining.is_cancelled();
        let result = if draining { Err(Cow::Borrowed("the server is draining")) } else { Ok(()) };
        results.push(("shutdown", result));
    }
    let healthy = results.iter().all(|(_, result)| result.is_ok());
    let verbose = uri.query().is_some_and(|query| query.split('&').any(is_verbose));
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = if healthy && !verbose { "ok".to_owned() } else { listed(probe, &results, healthy) };
    respond(status, "text/plain; charset=utf-8", text)
}

fn metrics(answers: &Answers) -> Response<Body> {
    respond(StatusCode::OK, OPEN_METRICS, (answers.encode_metrics)())
}

fn is_verbose(parameter: &str) -> bool {
    parameter.split('=').next() == Some("verbose")
}

/// kube-apiserver's list: `[+]name ok` or `[-]name failed: why`, then a last line.
fn listed(probe: Probe, results: &[Checked], healthy: bool) -> String {
    let mut text = String::new();
    for (name, result) in results {
        // Writing into a String cannot fail.
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => writeln!(text, "[-]{name} failed: {reason}"),
        };
    }
    let path = match probe {
        Probe::Live => "livez",
        Probe::Ready => "readyz",
        Probe::Startup => "startupz",
    };
    let verdict = if healthy { "passed" } else { "failed" };
    let _ = writeln!(text, "{path} check {verdict}");
    text
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// Connections answered at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// Time for a request's header, and between two requests.
const REQUEST: Duration = Duration::from_secs(5);

/// Age at which a connection is cut; probers and scrapers connect anew.
const CONNECTION: Duration = Duration::from_secs(60);

/// Bytes of a request; the least that hyper takes.
const REQUEST_BYTES: usize = 8 * 1024;

const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// OpenMetrics 1.0, section 3.2.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Store(Arc<AtomicBool>);

    impl HealthCheck for Store {
        fn name(&self) -> &'static str {
            "store"
        }

        fn check(&self) -> Result<(), Cow<'static, str>> {
            if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err("the disk is full".into()) }
        }
    }

    struct Health {
        address: SocketAddr,
        store: Arc<AtomicBool>,
        draining: CancellationToken,
        stop: CancellationToken,
        served: tokio::task::JoinHandle<()>,
    }

    impl Health {
        async fn start() -> Self {
            let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
            let address = bound.local_addr();
            let store = Arc::new(AtomicBool::new(true));
            let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
            let checks: Checks = Arc::new([Box::new(Store(Arc::clone(&store)))]);
            let metrics: EncodeMetrics = Arc::new(|| "# EOF\n".to_owned());
            let served = tokio::spawn(bound.serve(checks, metrics, draining.clone(), stop.clone()));
            Self { address, store, draining, stop, served }
        }

        /// The status and the body.
        async fn ask(&self, path: &str) -> (u16, String) {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let answer = self.exchange(&request).await;
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
            let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
            (status, body.to_owned())
        }

        async fn exchange(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.expect("connected");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("read");
            answer
        }
    }

    #[tokio::test]
    async fn a_healthy_server_says_ok_and_lists_its_checks_when_asked() {
        let health = Health::start().await;
        assert_eq!(health.ask("/readyz").await, (200, "ok".to_owned()));
        assert_eq!(
            health.ask("/readyz?verbose").await,
            (200, "[+]store ok\n[+]shutdown ok\nreadyz check passed\n".to_owned())
        );
    }

    #[tokio::test]
    async fn a_failed_check_fails_its_probe_and_no_other_and_says_why() {
        let health = Health::start().await;
        health.store.store(false, Ordering::Relaxed);
        let (status, body) = health.ask("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("[-]store failed: the disk is full\n"), "{body}");
        assert_eq!(health.ask("/livez").await.0, 200);
        assert_eq!(health.ask("/startupz").await.0, 200);
    }

    #[tokio::test]
    async fn readiness_ends_at_the_drain_while_the_listener_goes_on() {
        let health = Health::start().await;
        health.draining.cancel();
        let (status, body) = health.ask("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("[-]shutdown failed: the server is draining\n"), "{body}");
        assert_eq!(health.ask("/livez").await.0, 200);
        health.stop.cancel();
        health.served.await.expect("ended");
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let health = Health::start().await;
        let answer = health.exchange("GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let health = Health::start().await;
        assert_eq!(health.ask("/debug").await.0, 404);
        let answer = health.exchange("POST /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }
}
