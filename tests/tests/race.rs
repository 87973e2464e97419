//! A thousand agents race for a token of one use, over real TLS and gRPC against
//! real server processes: one key wins, and both sides know which. No agent waits
//! in the admission queue: it would thin the race out.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use berth_domain::conversation::Issued;
use berth_tests::race::{Racer, race, racers, runtime};
use berth_tests::{Server, ServerOptions, World};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

#[test]
fn a_token_of_one_use_is_won_by_one_key_among_a_thousand() {
    let racers = racers(1_000);
    let world = World::with(&roomy());
    let runtime = runtime();
    for round in 1..=10 {
        one_wins(&runtime, &[&world.server], &racers, round);
    }
}

#[test]
fn two_servers_on_one_store_let_one_key_win() {
    let racers = racers(200);
    let world = World::with(&roomy());
    let other = world.another_server("other", &roomy());
    let runtime = runtime();
    for round in 1..=3 {
        one_wins(&runtime, &[&world.server, &other], &racers, round);
    }
}

/// One round with a fresh token: the agents spread over the servers.
fn one_wins(runtime: &Runtime, servers: &[&Server], racers: &[Arc<Racer>], round: u32) {
    let token = servers[0].token(&[]);
    let id = token.split('.').nth(1).unwrap_or_default().to_owned();
    let endpoints: Vec<SocketAddr> = servers.iter().map(|server| server.endpoint()).collect();
    let ended = race(runtime, &token, &endpoints, racers);

    let winners: Vec<&Issued> = ended.iter().filter_map(|ended| ended.issued.as_ref()).collect();
    let [winner] = winners.as_slice() else {
        panic!("round {round}: {} keys of {} have a certificate: {winners:#?}", winners.len(), racers.len());
    };
    // A line that was cut while it waited for the others comes back alone.
    let raced = ended.iter().filter(|ended| ended.attempts == 1).count();
    assert!(
        raced * 2 > racers.len(),
        "round {round}: it was no race: {raced} of {} were answered on the line they started with",
        racers.len()
    );
    for server in servers {
        let listed = server.admin_json(&["token", "list"]);
        let tokens = listed["tokens"].as_array().cloned().unwrap_or_default();
        let token = tokens.iter().find(|token| token["id"] == id.as_str()).cloned().unwrap_or(Value::Null);
        assert_eq!(
            token["usedBy"],
            json!([winner.join.to_string()]),
            "round {round}, {}: {token:#}",
            server.name()
        );
    }
}

/// A server that has room for all agents at once.
fn roomy() -> ServerOptions {
    ServerOptions::new(json!({
        "limits": { "connectionsPerSource": 2000, "joinsInFlight": 2000, "queue": 4096 },
        "telemetry": { "logLevel": "warn" },
    }))
}
