//! `berth-server nodes`: what stands where, and who may not come back.

mod facts;
mod shown;

use std::path::Path;

use berth_domain::name::NodeName;
use berth_domain::timestamp::Timestamp;
use berth_proto::admin::v1;
use berth_proto::admin::v1::node_service_client::NodeServiceClient;
use berth_proto::facts_from_wire;
use clap::Subcommand;

use self::shown::shown;
use super::client::{LARGEST_ANSWER, connect, now};
use super::output::{Column, Failure, Format, Listing, Output, Resource, age, coloured, or_dash};
use crate::forms::{self, moment};

/// See nodes, ban machines, free names
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List nodes by name
    List(Listing),
    /// Show a node and what its machine has
    Show {
        /// The node's name
        name: NodeName,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Cut a machine's line at once, and refuse it from now on; its name stays bound
    Ban {
        /// The node's name
        name: NodeName,
        /// In which words, for the record
        #[arg(long, default_value = "", hide_default_value = true, value_name = "WORDS")]
        reason: String,
    },
    /// Let a banned machine come back
    Unban {
        /// The node's name
        name: NodeName,
    },
    /// Free the name of a machine that will not come back
    Forget {
        /// The node's name
        name: NodeName,
    },
}

pub(super) async fn run(command: &Command, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let client = NodeServiceClient::new(connect(socket).await?);
    let mut client = client.max_decoding_message_size(LARGEST_ANSWER);
    match command {
        Command::List(listing) => {
            let listed = client.list_nodes(v1::ListNodesRequest {}).await.map_err(Failure::status)?;
            output.list(*listing, &NODES, &listed.into_inner().nodes, now())
        }
        Command::Show { name, output: format } => {
            let request = v1::ShowNodeRequest { name: name.to_string() };
            let found = client.show_node(request).await.map_err(Failure::status)?.into_inner();
            let node = found.node.unwrap_or_default();
            let facts = found.facts.map(facts_from_wire).transpose().map_err(Failure::other)?;
            output.one(
                *format,
                || forms::node_with_facts(&node, facts.as_ref()).map_err(Failure::other),
                || shown(&node, facts.as_ref(), now()),
            )
        }
        Command::Ban { name, reason } => {
            let request = v1::BanNodeRequest { name: name.to_string(), reason: reason.clone() };
            client.ban_node(request).await.map_err(Failure::status)?;
            output.text(&format!("node/{name} banned\n"))
        }
        Command::Unban { name } => {
            client
                .unban_node(v1::UnbanNodeRequest { name: name.to_string() })
                .await
                .map_err(Failure::status)?;
            output.text(&format!("node/{name} unbanned\n"))
        }
        Command::Forget { name } => {
            client
                .forget_node(v1::ForgetNodeRequest { name: name.to_string() })
                .await
                .map_err(Failure::status)?;
            output.text(&format!("node/{name} forgotten\n"))
        }
    }
}

const NODES: Resource<v1::Node> = Resource {
    singular: "node",
    plural: "nodes",
    name: |node| &node.name,
    columns: &[
        Column::new("NAME", |node, _| node.name.clone()),
        Column::new("STATUS", |node, _| coloured(status(node))),
        Column::new("POOL", |node, _| node.pool.clone()),
        Column::new("REASON", |node, _| or_dash(node.diagnosis.as_ref().map_or("", |why| &why.code))),
        Column::new("CERTIFICATE", certificate),
        Column::new("SEEN", |node, now| age(now.since(moment(node.last_seen_unix_ms)))),
        Column::wide("CPU", |node, _| resource(node, "cpu")),
        Column::wide("MEMORY", |node, _| resource(node, "memory")),
        Column::wide("JOIN", |node, _| node.join_id.clone()),
        Column::wide("TAINTS", |node, _| or_dash(node.taints.join(","))),
    ],
    value: forms::node,
};

fn status(node: &v1::Node) -> &str {
    if node.ban.is_some() { "Banned" } else { &node.readiness }
}

fn certificate(node: &v1::Node, now: Timestamp) -> String {
    let ends = moment(node.certificate_not_after_unix_ms);
    if ends <= now { "expired".to_owned() } else { age(ends.since(now)) }
}

fn resource(node: &v1::Node, name: &str) -> String {
    or_dash(node.capacity.get(name).map_or("", String::as_str))
}

#[cfg(test)]
mod tests;
