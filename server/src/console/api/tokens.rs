//! Tokens: made, listed, revoked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use berth_domain::token::JoinToken;
use berth_proto::admin::v1;
use berth_proto::admin::v1::token_service_server::TokenService as _;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::read;
use crate::cli::token::join_command;
use crate::console::Console;
use crate::console::answer::{Answer, Refused, json};
use crate::console::identity::Caller;
use crate::forms;

/// `GET /api/tokens`: newest first.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let asked = caller.operator.asks(v1::ListTokensRequest {});
    let tokens = console.desk.list_tokens(asked).await?.into_inner().tokens;
    Ok(json(&json!({ "tokens": tokens.iter().map(forms::token).collect::<Vec<Value>>() })))
}

/// A token that is wished for; what is left out is the desk's default.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Wished {
    names: String,
    pool: String,
    uses: u32,
    networks: Vec<String>,
    labels: BTreeMap<String, String>,
    taints: Vec<String>,
    approval: bool,
    ttl_millis: u64,
    description: String,
}

/// `POST /api/tokens`. The answer is the one place that has the secret.
pub(in crate::console) async fn create(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer {
    let wished: Wished = read(body).await?;
    let Wished { names, pool, uses, networks, labels, taints, approval, ttl_millis, description } = wished;
    let binding = v1::TokenBinding { names, pool, uses, networks, labels, taints, approval };
    let request = v1::CreateTokenRequest { binding: Some(binding), ttl_ms: ttl_millis, description };
    let made = console.desk.create_token(caller.operator.asks(request)).await?.into_inner();
    let text = Zeroizing::new(made.token);
    let token: JoinToken = text.parse().map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the new token cannot be shown: {error}"))
    })?;
    Ok(json(&json!({
        "token": *text,
        "command": *join_command(&token, &made.endpoint),
        "record": made.record.as_ref().map(forms::token),
    })))
}

/// `POST /api/tokens/{id}/revoke`.
pub(in crate::console) async fn revoke(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    console.desk.revoke_token(caller.operator.asks(v1::RevokeTokenRequest { id })).await?;
    Ok(json(&json!({})))
}
