//! Takes the time of each call to the API server, by what was asked: a layer around the
//! client that all adapters share.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use berth_telemetry::metrics::{ApiKind, ApiMeter, ApiOutcome, ApiVerb};
use http::{Method, Request, Response, StatusCode, Uri};
use tower::{Layer, Service};

/// Measures the service below it.
#[derive(Clone, Debug)]
pub(super) struct Measure(pub(super) ApiMeter);

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, meter: self.0.clone() }
    }
}

/// A service that is measured.
#[derive(Clone, Debug)]
pub(super) struct Measured<S> {
    inner: S,
    meter: ApiMeter,
}

impl<S, A, B> Service<Request<A>> for Measured<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (verb, kind) = asked(request.method(), request.uri());
        let mut call = Call {
            meter: self.meter.clone(),
            verb,
            kind,
            since: Instant::now(),
            outcome: ApiOutcome::Abandoned,
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().map(Response::status);
            call.ended(status.map_or(ApiOutcome::Unreachable, outcome));
            answer
        })
    }
}

/// A call under way; counted when it is dropped, for whoever asked may wait no longer.
struct Call {
    meter: ApiMeter,
    verb: ApiVerb,
    kind: ApiKind,
    since: Instant,
    outcome: ApiOutcome,
}

impl Call {
    /// As a whole it belongs to whoever waits, and with them it is dropped.
    const fn ended(&mut self, outcome: ApiOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.meter.called(self.verb, self.kind, self.outcome, self.since.elapsed());
    }
}

fn outcome(status: StatusCode) -> ApiOutcome {
    match status.as_u16() {
        409 => ApiOutcome::Conflict,
        400..=499 => ApiOutcome::Refused,
        500.. => ApiOutcome::Failed,
        _ => ApiOutcome::Ok,
    }
}

/// What a request asks, by the API server's own rules for its URLs: `/api/v1/...` for the
/// core, `/apis/GROUP/VERSION/...` for the rest, then perhaps `namespaces/NAME`, then the
/// kind and perhaps the object's name.
fn asked(method: &Method, uri: &Uri) -> (ApiVerb, ApiKind) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    match parts.next() {
        Some("api") => drop(parts.next()),
        _ => drop((parts.next(), parts.next())),
    }
    let parts: Vec<&str> = parts.collect();
    let (kind, named) = match parts.as_slice() {
        ["namespaces", _, kind, rest @ ..] => (*kind, !rest.is_empty()),
        [kind, rest @ ..] => (*kind, !rest.is_empty()),
        [] => ("", false),
    };
    let is_watch = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let verb = match *method {
        Method::POST => ApiVerb::Create,
        Method::PUT => ApiVerb::Update,
        Method::PATCH => ApiVerb::Patch,
        Method::DELETE => ApiVerb::Delete,
        _ if is_watch => ApiVerb::Watch,
        _ if named => ApiVerb::Get,
        _ => ApiVerb::List,
    };
    let known = ApiKind::ALL.into_iter().find(|known| known.as_str() == kind);
    (verb, known.unwrap_or(ApiKind::Other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_verb_and_kind() {
        let read = |method: &str, uri: &str| {
            let method = method.parse().expect("a method");
            let (verb, kind) = asked(&method, &uri.parse().expect("a URI"));
            (verb.as_str(), kind.as_str())
        };
        assert_eq!(read("GET", "/api/v1/nodes?&limit=5"), ("list", "nodes"));
        assert_eq!(read("GET", "/api/v1/nodes?&watch=true&timeoutSeconds=290"), ("watch", "nodes"));
        assert_eq!(read("GET", "/api/v1/namespaces/kube-system"), ("get", "namespaces"));
        assert_eq!(read("GET", "/api/v1/namespaces/a/secrets/b"), ("get", "secrets"));
        let joins = "/apis/berth.dev/v1alpha1/nodejoins";
        assert_eq!(read("POST", joins), ("create", "nodejoins"));
        assert_eq!(read("PUT", &format!("{joins}/n1/status?")), ("update", "nodejoins"));
        assert_eq!(read("PATCH", "/api/v1/nodes/n1"), ("patch", "nodes"));
        let leases = "/apis/coordination.k8s.io/v1/namespaces/berth-system/leases/x";
        assert_eq!(read("DELETE", leases), ("delete", "leases"));
        assert_eq!(read("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"), ("create", "other"));
        assert_eq!(read("GET", "/version"), ("list", "other"));
    }

    #[tokio::test]
    async fn a_call_is_counted_as_it_ends_and_also_when_nobody_waits_for_it() {
        let metrics = berth_telemetry::metrics::Metrics::new("1");
        let count = |outcome: &str| {
            let line = format!(
                "berth_apiserver_request_duration_seconds_count{{verb=\"list\",kind=\"nodes\",outcome=\"{outcome}\"}} 1"
            );
            metrics.encode().lines().filter(|found| *found == line).count()
        };
        let request = || Request::get("/api/v1/nodes").body(()).expect("a request");
        let quick = tower::service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(())) });
        let mut quick = Measure(metrics.apiserver()).layer(quick);
        let answered = quick.call(request());
        assert_eq!(count("ok"), 0, "it is under way");
        answered.await.expect("an answer");
        assert_eq!(count("ok"), 1);
        let broken = tower::service_fn(|_: Request<()>| async { Err::<Response<()>, _>(()) });
        Measure(metrics.apiserver()).layer(broken).call(request()).await.expect_err("no answer");
        assert_eq!(count("unreachable"), 1);
        let silent = tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, ()>>());
        drop(Measure(metrics.apiserver()).layer(silent).call(request()));
        assert_eq!(count("abandoned"), 1);
    }

    #[test]
    fn a_status_says_how_it_ended() {
        let of = |status| outcome(StatusCode::from_u16(status).expect("a status"));
        assert_eq!([200, 201, 404, 409, 429, 503].map(of), {
            use ApiOutcome::{Conflict, Failed, Ok, Refused};
            [Ok, Ok, Refused, Conflict, Refused, Failed]
        });
    }
}
