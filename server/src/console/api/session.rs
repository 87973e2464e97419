//! Signing in and out.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroize as _;

use super::read;
use crate::console::Console;
use crate::console::answer::{Answer, Refused, json};
use crate::console::identity::Caller;

/// What a person shows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    token: String,
}

/// `POST /api/session/new`: a session for an operator's token.
pub(in crate::console) async fn begin(State(console): State<Arc<Console>>, body: Body) -> Answer {
    let mut shown: Shown = read(body).await?;
    let begun = console.sessions.begin(shown.token.trim(), &console.keys, console.now());
    shown.token.zeroize();
    let Some((secret, operator)) = begun else {
        tracing::warn!("a wrong token was shown to the console");
        return Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "this is no operator's token; it is in the file console.tokenFile on the server",
        ));
    };
    tracing::info!(operator = operator.as_str(), "an operator signed in to the console");
    Ok(json(&json!({ "session": *secret.to_text(), "operator": operator.as_str() })))
}

/// `DELETE /api/session`.
pub(in crate::console) async fn end(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    if let Some(session) = &caller.session {
        console.sessions.end(session);
    }
    std::future::ready(Ok(json(&json!({})))).await
}
