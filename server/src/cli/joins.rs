//! `berth-server joins`: the live view of joins, and why each stands as it does.

mod explanation;
mod screen;

use std::io::IsTerminal as _;
use std::path::Path;

use berth_domain::timestamp::Timestamp;
use berth_proto::admin::v1;
use berth_proto::admin::v1::join_service_client::JoinServiceClient;
use clap::{Subcommand, ValueEnum};
use tonic::transport::Channel;

use self::explanation::explanation;
use super::client::{LARGEST_ANSWER, connect, now};
use super::output::{Column, Failure, Format, Listing, Output, Resource, age, coloured, or_dash};
use crate::forms::{self, moment, phase};

/// See joins, and decide on those that wait for a person
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List joins, the newest first
    List {
        #[command(flatten)]
        listing: Listing,
        /// At most this many
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        most: u32,
    },
    /// Show joins as they change, until it is interrupted: on a terminal as a table of
    /// the whole screen, else a line for each change
    Watch {
        /// Print lines, also on a terminal
        #[arg(short, long, value_enum, value_name = "FORMAT")]
        output: Option<WatchFormat>,
    },
    /// Say why a join stands as it does, and how to mend it
    Explain {
        /// A join's id (j-…), or a node's name for its newest join
        #[arg(value_name = "JOIN|NODE")]
        join: String,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Let a join that waits for approval go on
    Approve {
        /// A join's id (j-…), or a node's name for its newest join
        #[arg(value_name = "JOIN|NODE")]
        join: String,
    },
    /// Refuse a join that waits for approval
    Deny {
        /// A join's id (j-…), or a node's name for its newest join
        #[arg(value_name = "JOIN|NODE")]
        join: String,
        /// In which words, for the record
        #[arg(long, default_value = "", hide_default_value = true, value_name = "WORDS")]
        reason: String,
    },
}

/// How a watch is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WatchFormat {
    /// A line for each change
    Text,
    /// A JSON object for each change, on a line of its own
    Json,
}

pub(super) async fn run(command: &Command, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let client = JoinServiceClient::new(connect(socket).await?);
    let mut client = client.max_decoding_message_size(LARGEST_ANSWER);
    match command {
        Command::List { listing, most } => {
            let listed =
                client.list_joins(v1::ListJoinsRequest { most: *most }).await.map_err(Failure::status)?;
            output.list(*listing, &JOINS, &listed.into_inner().joins, now())
        }
        Command::Watch { output: format } => watch(&mut client, *format, output).await,
        Command::Explain { join, output: format } => {
            let request = v1::ExplainJoinRequest { join: join.clone() };
            let explained = client.explain_join(request).await.map_err(Failure::status)?.into_inner();
            let join = explained.join.unwrap_or_default();
            output.one(
                *format,
                || Ok(forms::explained(&join, &explained.events)),
                || explanation(&join, &explained.events, now()),
            )
        }
        Command::Approve { join } => decide(&mut client, join, None, output).await,
        Command::Deny { join, reason } => decide(&mut client, join, Some(reason), output).await,
    }
}

async fn watch(
    client: &mut JoinServiceClient<Channel>,
    format: Option<WatchFormat>,
    output: &mut Output,
) -> Result<(), Failure> {
    let changes = client.watch_joins(v1::WatchJoinsRequest {}).await.map_err(Failure::status)?;
    let mut changes = changes.into_inner();
    let format = match format {
        Some(format) => format,
        None if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() => {
            return screen::show(changes).await;
        }
        None => WatchFormat::Text,
    };
    while let Some(change) = changes.message().await.map_err(Failure::status)? {
        let Some(join) = change.join else { continue };
        match format {
            WatchFormat::Json => output.text(&format!("{}\n", forms::join(&join)))?,
            WatchFormat::Text => output.text(&watch_line(&join))?,
        }
        if output.reader_has_gone() {
            break;
        }
    }
    Ok(())
}

async fn decide(
    client: &mut JoinServiceClient<Channel>,
    join: &str,
    denied: Option<&String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let reason = denied.cloned().unwrap_or_default();
    let request = v1::DecideJoinRequest { join: join.to_owned(), approve: denied.is_none(), reason };
    let decided = client.decide_join(request).await.map_err(Failure::status)?.into_inner();
    let id = decided.join.map_or_else(|| join.to_owned(), |join| join.id);
    output.text(&format!("join/{id} {}\n", if denied.is_none() { "approved" } else { "denied" }))
}

const JOINS: Resource<v1::Join> = Resource {
    singular: "join",
    plural: "joins",
    name: |join| &join.id,
    columns: &[
        Column::new("ID", |join, _| join.id.clone()),
        Column::new("NODE", |join, _| or_dash(&join.node_name)),
        Column::new("STATE", |join, _| coloured(&join.state)),
        Column::new("PHASE", |join, _| phase(join.phase).to_owned()),
        Column::new("REASON", |join, _| or_dash(join.diagnosis.as_ref().map_or("", |why| &why.code))),
        Column::new("AGE", since_start),
        Column::wide("SOURCE", |join, _| or_dash(&join.source)),
        Column::wide("TOKEN", |join, _| or_dash(&join.token_id)),
        Column::wide("AGENT", |join, _| or_dash(&join.agent_version)),
        Column::wide("TRACE", |join, _| or_dash(&join.trace_id)),
    ],
    value: forms::join,
};

fn since_start(join: &v1::Join, now: Timestamp) -> String {
    age(now.since(moment(join.started_unix_ms)))
}

/// One change: columns of fixed width, because what comes is not known yet.
fn watch_line(join: &v1::Join) -> String {
    let state = coloured(&join.state);
    let padding = " ".repeat("Refused".len().saturating_sub(join.state.len()));
    let mut line = format!(
        "{}   {}   {:<20}   {state}{padding}   {:<14}",
        moment(join.updated_unix_ms),
        join.id,
        or_dash(&join.node_name),
        phase(join.phase),
    );
    if let Some(why) = &join.diagnosis {
        line.push_str(&format!("   {}: {}", why.code, why.cause));
    }
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests;
