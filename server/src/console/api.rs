//! The questions of the page. Each is one call of berth.admin.v1 in the name of the
//! caller: this translates JSON, and decides nothing.

mod joins;
mod nodes;
mod session;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::answer::{Answer, Refused, json};
use super::identity::{caller, require};
use super::{Console, answer, limits, peers, watch};

/// Everything below `/api`.
pub(super) fn routes(console: &Arc<Console>) -> Router<Arc<Console>> {
    let known = Router::new()
        .route("/servers", get(servers))
        .route("/joins", get(joins::list))
        .route("/joins/watch", get(watch::watch))
        .route("/joins/{join}", get(joins::explain))
        .route("/joins/{join}/spans", get(joins::spans))
        .route("/joins/{join}/decision", post(joins::decide))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{name}", get(nodes::show))
        .route("/nodes/{name}/ban", post(nodes::ban))
        .route("/nodes/{name}/unban", post(nodes::unban))
        .route("/nodes/{name}/forget", post(nodes::forget))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
        .route("/session", axum::routing::delete(session::end))
        .fallback(answer::no_such_page)
        .layer(from_fn_with_state(Arc::clone(console), require));
    Router::new().route("/about", get(about)).route("/session/new", post(session::begin)).merge(known)
}

/// What the page says of the server, to those who are known. A stranger's page hears
/// that it is a stranger's, and shows where to sign in.
async fn about(State(console): State<Arc<Console>>, request: Request) -> Answer {
    let Some(caller) = caller(&console, &request) else {
        return Ok(json(&json!({ "operator": null })));
    };
    let about = &console.about;
    std::future::ready(Ok(json(&json!({
        "operator": caller.operator.as_str(),
        "hasSession": caller.session.is_some(),
        "version": about.version,
        "endpoint": about.endpoint,
        "cluster": about.cluster,
        "traceURL": console.trace_url,
        "now": console.now().to_string(),
    }))))
    .await
}

async fn servers(State(console): State<Arc<Console>>) -> Answer {
    Ok(json(&peers::all(&console).await))
}

/// A body of JSON, within the bounds of size and time.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refused> {
    let whole = timeout(limits::BODY, to_bytes(body, limits::BODY_BYTES)).await;
    let slow = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time");
    let large = |_| {
        let most = limits::BODY_BYTES / 1024;
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request's body has at most {most} KiB"))
    };
    let bytes = whole.map_err(slow)?.map_err(large)?;
    let mut parser = serde_json::Deserializer::from_slice(&bytes);
    let parsed = serde_path_to_error::deserialize(&mut parser);
    parsed.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("the request's body: {error}")))
}
