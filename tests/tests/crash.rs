//! SIGKILL of either side before and after each effect of a join: started again,
//! the join ends Ready by itself, one key for the token, one name for the machine.

#![expect(clippy::indexing_slicing, reason = "serde_json's index gives null where there is nothing")]

use std::time::Duration;

use berth_agent::join::POINTS;
use berth_tests::{Agent, ServerOptions, World, eventually, joined};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_agent_killed_at_any_point_goes_on_where_it_stopped() {
    let world = World::start();
    for point in POINTS {
        let machine = world.machine(&format!("a-{point}"));
        let token = world.server.token(&[]);
        let file = machine.token_file(&token);
        let crashed =
            machine.start_join(world.server.endpoint(), &token, &["--crash-at", point]).wait(PATIENCE);
        assert_eq!(crashed.code, None, "{point} was passed and it was to crash there:\n{}", crashed.all());
        assert_files_are_whole(&machine, point);
        let endpoint = world.server.endpoint().to_string();
        let again = machine.start(&["join", &endpoint], |command| {
            command.args(["--node-name", machine.name(), "-o", "json"]);
            if file.exists() {
                command.arg("--token-file").arg(&file);
            }
        });
        let again = joined(again.wait(PATIENCE));
        assert_eq!(again.ended.code, Some(0), "{point}:\n{}", again.ended.all());
        assert_one_key(&world, machine.name(), point);
        assert!(!file.exists(), "{point}: the token is gone");
    }
}

#[test]
fn a_server_killed_in_the_middle_of_joins_lets_each_end_ready_by_itself() {
    let mut world = World::with(&ServerOptions::new(json!({ "limits": { "connectionsPerSource": 64 } })));
    for round in 0..4_u64 {
        let names: Vec<String> = (0..4).map(|number| format!("s{round}-{number}")).collect();
        let joins: Vec<_> = names
            .iter()
            .map(|name| {
                let token = world.server.token(&[]);
                (name, world.machine(name).start_join(world.server.endpoint(), &token, &["--timeout", "50s"]))
            })
            .collect();
        // The rounds' kills fall into different phases of the four joins.
        std::thread::sleep(Duration::from_millis(40 * (round + 1)));
        world.server.kill();
        world.server.start_again();
        for (name, join) in joins {
            let ended = join.wait(PATIENCE);
            assert_eq!(ended.code, Some(0), "{name}:\n{}", ended.all());
            assert_one_key(&world, name, "server killed");
        }
    }
}

#[test]
fn a_killed_service_comes_back_and_attends() {
    let world = World::with(&ServerOptions::new(json!({
        "attendance": { "heartbeatInterval": "1s", "gracePeriod": "3s" },
    })));
    let machine = world.machine("n1");
    let token = world.server.token(&[]);
    let file = machine.token_file(&token);
    let endpoint = world.server.endpoint().to_string();
    let start = || {
        machine.start(&["run"], |command| {
            command.args(["--server", &endpoint, "--node-name", "n1"]);
            if file.exists() {
                command.arg("--token-file").arg(&file);
            }
        })
    };
    let readiness = |wanted: &str| {
        eventually(wanted, PATIENCE, || {
            let node = world.server.admin(&["nodes", "show", "n1", "-o", "json"]);
            (node.code == Some(0) && node.json()["readiness"] == wanted).then_some(())
        });
    };
    let agent = start();
    readiness("Ready");
    agent.kill();
    readiness("NotReady");
    let _agent = start();
    readiness("Ready");
}

fn assert_one_key(world: &World, node: &str, point: &str) {
    let explained = world.server.explain(node);
    let events = explained["events"].as_array().cloned().unwrap_or_default();
    let redeemed = events.iter().filter(|event| event["kind"] == "redeemed").count();
    assert_eq!(redeemed, 1, "{point}: a token is spent once: {explained:#}");
    let mut keys: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "authorized")
        .map(|event| &event["values"]["key"])
        .collect();
    keys.dedup();
    assert_eq!(keys.len(), 1, "{point}: one key has certificates: {explained:#}");
    assert_eq!(explained["join"]["state"], "Ready", "{point}: {explained:#}");
}

/// Each file is there whole, or not at all.
fn assert_files_are_whole(machine: &Agent, point: &str) {
    let whole = |path: &str, last: &str| {
        if let Ok(text) = std::fs::read_to_string(machine.path(path)) {
            assert!(text.trim_end().ends_with(last), "{point}: {path} is cut short:\n{text}");
        }
    };
    whole("/etc/kubernetes/pki/ca.crt", "-----END CERTIFICATE-----");
    whole("/var/lib/kubelet/pki/kubelet-client-current.pem", "-----");
}
