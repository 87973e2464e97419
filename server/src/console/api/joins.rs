//! Joins: listed, explained, shown by their spans, decided.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use berth_proto::admin::v1;
use berth_proto::admin::v1::join_service_server::JoinService as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::read;
use crate::console::Console;
use crate::console::answer::{Answer, json};
use crate::console::identity::Caller;
use crate::forms;

/// `GET /api/joins`: the newest first.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let asked = caller.operator.asks(v1::ListJoinsRequest { most: 0 });
    let joins = console.desk.list_joins(asked).await?.into_inner().joins;
    Ok(json(&json!({ "joins": joins.iter().map(forms::join).collect::<Vec<Value>>() })))
}

/// `GET /api/joins/{join}`: a join by its id, or the newest of a node.
pub(in crate::console) async fn explain(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(join): Path<String>,
) -> Answer {
    let asked = caller.operator.asks(v1::ExplainJoinRequest { join });
    let explained = console.desk.explain_join(asked).await?.into_inner();
    Ok(json(&forms::explained(&explained.join.unwrap_or_default(), &explained.events)))
}

/// `GET /api/joins/{join}/spans`: what this server saw of it.
pub(in crate::console) async fn spans(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(join): Path<String>,
) -> Answer {
    let asked = caller.operator.asks(v1::ShowSpansRequest { join });
    let shown = console.desk.show_spans(asked).await?.into_inner();
    Ok(json(&forms::spans(&shown)))
}

/// A person's word on a join.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    approve: bool,
    #[serde(default)]
    reason: String,
}

/// `POST /api/joins/{join}/decision`.
pub(in crate::console) async fn decide(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(join): Path<String>,
    body: Body,
) -> Answer {
    let Word { approve, reason } = read(body).await?;
    let asked = caller.operator.asks(v1::DecideJoinRequest { join, approve, reason });
    let decided = console.desk.decide_join(asked).await?.into_inner();
    Ok(json(&json!({ "join": decided.join.as_ref().map(forms::join) })))
}
