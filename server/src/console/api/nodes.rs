//! Nodes: listed, shown, banned, forgotten.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use berth_proto::admin::v1;
use berth_proto::admin::v1::node_service_server::NodeService as _;
use berth_proto::facts_from_wire;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::read;
use crate::console::Console;
use crate::console::answer::{Answer, Refused, json};
use crate::console::identity::Caller;
use crate::forms;

/// `GET /api/nodes`: what a list shows of each, by name.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let asked = caller.operator.asks(v1::ListNodesRequest {});
    let nodes = console.desk.list_nodes(asked).await?.into_inner().nodes;
    Ok(json(&json!({ "nodes": nodes.iter().map(row).collect::<Vec<Value>>() })))
}

/// Ten thousand nodes with all that is known of them would be more than a page
/// reads at one time.
fn row(node: &v1::Node) -> Value {
    json!({
        "name": node.name,
        "pool": node.pool,
        "readiness": node.readiness,
        "code": node.diagnosis.as_ref().map(|why| &why.code),
        "banned": node.ban.is_some(),
        "join": node.join_id,
        "certificateNotAfter": forms::moment(node.certificate_not_after_unix_ms).to_string(),
        "lastSeen": forms::moment(node.last_seen_unix_ms).to_string(),
    })
}

/// `GET /api/nodes/{name}`: all of it, with the row of the list.
pub(in crate::console) async fn show(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let asked = caller.operator.asks(v1::ShowNodeRequest { name });
    let shown = console.desk.show_node(asked).await?.into_inner();
    let node = shown.node.unwrap_or_default();
    let facts = shown.facts.map(facts_from_wire).transpose().map_err(broken)?;
    let whole = forms::node_with_facts(&node, facts.as_ref()).map_err(broken)?;
    Ok(json(&json!({ "node": whole, "row": row(&node) })))
}

fn broken(error: impl std::fmt::Display) -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the node's facts cannot be shown: {error}"))
}

/// In which words.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    #[serde(default)]
    reason: String,
}

/// `POST /api/nodes/{name}/ban`.
pub(in crate::console) async fn ban(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Answer {
    let Words { reason } = read(body).await?;
    console.desk.ban_node(caller.operator.asks(v1::BanNodeRequest { name, reason })).await?;
    Ok(json(&json!({})))
}

/// `POST /api/nodes/{name}/unban`.
pub(in crate::console) async fn unban(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    console.desk.unban_node(caller.operator.asks(v1::UnbanNodeRequest { name })).await?;
    Ok(json(&json!({})))
}

/// `POST /api/nodes/{name}/forget`.
pub(in crate::console) async fn forget(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    console.desk.forget_node(caller.operator.asks(v1::ForgetNodeRequest { name })).await?;
    Ok(json(&json!({})))
}
