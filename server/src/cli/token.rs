//! `berth-server token`: makes, lists and revokes bootstrap tokens.

mod handover;

use std::path::Path;
use std::time::Duration;

use berth_domain::labels::{LabelKey, LabelValue, Taint, parse_label};
use berth_domain::name::{NamePattern, PoolName};
use berth_domain::timestamp::Timestamp;
use berth_domain::token::{JoinToken, MOST_USES, Network, TokenId};
use berth_proto::admin::v1;
use berth_proto::admin::v1::token_service_client::TokenServiceClient;
use clap::{Args, Subcommand};
use zeroize::{Zeroize as _, Zeroizing};

use self::handover::{Handover, Shape};
use super::client::{LARGEST_ANSWER, connect, now};
use super::output::{Column, Failure, Listing, Output, Resource, age, or_dash};
use crate::forms::{self, moment};

/// Make, list and revoke bootstrap tokens
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token; its secret is printed once and kept nowhere
    Create(Box<Create>),
    /// List tokens, without their secrets
    List(Listing),
    /// Take a token back: no further machine gets in with it
    Revoke {
        /// The token's id, as `token list` shows it
        id: TokenId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The node name, or a pattern in which * stands for any run of characters [default: any name]
    #[arg(long, value_name = "NAME|PATTERN")]
    name: Option<NamePattern>,
    /// The pool [default: default]
    #[arg(long)]
    pool: Option<PoolName>,
    /// How many machines may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_USES)))]
    uses: u32,
    /// Where joins may come from; may be repeated [default: anywhere]
    #[arg(long, value_name = "CIDR")]
    network: Vec<Network>,
    /// A label that the Node gets; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(LabelKey, LabelValue)>,
    /// A taint that the Node gets; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT")]
    taint: Vec<Taint>,
    /// How long it lives, 1s to 30d
    #[arg(long, default_value = "15m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Each join waits for a person: berth-server joins approve
    #[arg(long)]
    approval: bool,
    /// A person's words about it, for the record
    #[arg(long, default_value = "", hide_default_value = true, value_name = "WORDS")]
    description: String,
    /// Print nothing but the line to paste on the machine
    #[arg(long, conflicts_with = "output")]
    print_join_command: bool,
    /// For whom the token is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Shape,
}

pub(super) async fn run(command: &Command, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let client = TokenServiceClient::new(connect(socket).await?);
    let mut client = client.max_decoding_message_size(LARGEST_ANSWER);
    match command {
        Command::Create(create) => {
            let made = client.create_token(request(create)).await.map_err(Failure::status)?;
            let handover = handover(made.into_inner());
            let shape = if create.print_join_command { Shape::JoinCommand } else { create.output };
            output.text(&handover.shown(shape))
        }
        Command::List(listing) => {
            let listed = client.list_tokens(v1::ListTokensRequest {}).await.map_err(Failure::status)?;
            output.list(*listing, &TOKENS, &listed.into_inner().tokens, now())
        }
        Command::Revoke { id } => {
            let request = v1::RevokeTokenRequest { id: id.to_string() };
            client.revoke_token(request).await.map_err(Failure::status)?;
            output.text(&format!("token/{id} revoked\n"))
        }
    }
}

/// The line to paste: the secret goes through a shell builtin and standard input,
/// so that no process shows it among its arguments.
#[must_use]
pub fn join_command(token: &JoinToken, endpoint: &str) -> Zeroizing<String> {
    handover::join_command(&token.to_text(), endpoint)
}

fn request(create: &Create) -> v1::CreateTokenRequest {
    let text = |value: Option<String>| value.unwrap_or_default();
    v1::CreateTokenRequest {
        binding: Some(v1::TokenBinding {
            names: text(create.name.as_ref().map(ToString::to_string)),
            pool: text(create.pool.as_ref().map(ToString::to_string)),
            uses: create.uses,
            networks: create.network.iter().map(ToString::to_string).collect(),
            labels: create.label.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            taints: create.taint.iter().map(ToString::to_string).collect(),
            approval: create.approval,
        }),
        // 0 would stand for the server's own default.
        ttl_ms: u64::try_from(create.ttl.as_millis()).unwrap_or(u64::MAX).max(1),
        description: create.description.clone(),
    }
}

fn handover(mut made: v1::CreateTokenResponse) -> Handover {
    let record = made.record.take().unwrap_or_default();
    let token = Zeroizing::new(made.token.clone());
    made.token.zeroize();
    Handover {
        token,
        endpoint: made.endpoint,
        id: record.id,
        expires: moment(record.expires_unix_ms),
        uses: record.binding.map_or(1, |binding| binding.uses),
    }
}

const TOKENS: Resource<v1::Token> = Resource {
    singular: "token",
    plural: "tokens",
    name: |token| &token.id,
    columns: &[
        Column::new("ID", |token, _| token.id.clone()),
        Column::new("NAMES", |token, _| bound(token, |binding| binding.names.clone())),
        Column::new("POOL", |token, _| bound(token, |binding| binding.pool.clone())),
        Column::new("USED", |token, _| {
            format!("{}/{}", token.used_by.len(), bound(token, |binding| binding.uses.to_string()))
        }),
        Column::new("EXPIRES", remaining),
        Column::new("AGE", |token, now| age(now.since(moment(token.created_unix_ms)))),
        Column::new("BY", |token, _| or_dash(&token.created_by)),
        Column::wide("NETWORKS", |token, _| bound(token, |binding| binding.networks.join(","))),
        Column::wide("LABELS", |token, _| {
            bound(token, |binding| {
                binding
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect::<Vec<_>>()
                    .join(",")
            })
        }),
        Column::wide("TAINTS", |token, _| bound(token, |binding| binding.taints.join(","))),
        Column::wide("APPROVAL", |token, _| bound(token, |binding| binding.approval.to_string())),
        Column::wide("DESCRIPTION", |token, _| or_dash(&token.description)),
    ],
    value: forms::token,
};

fn bound(token: &v1::Token, part: impl FnOnce(&v1::TokenBinding) -> String) -> String {
    or_dash(token.binding.as_ref().map(part).unwrap_or_default())
}

fn remaining(token: &v1::Token, now: Timestamp) -> String {
    let expires = moment(token.expires_unix_ms);
    match token.revoked_unix_ms {
        Some(_) => "revoked".to_owned(),
        None if expires == Timestamp::LAST => "never".to_owned(),
        None if expires <= now => "expired".to_owned(),
        None => age(expires.since(now)),
    }
}

#[cfg(test)]
mod tests;
