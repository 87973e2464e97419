//! The whole conversation over real sockets between real processes.

use std::time::Duration;

use berth_tests::{ServerOptions, World, eventually, joined};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_machine_joins_and_its_node_is_ready() {
    let world = World::start();
    let machine = world.machine("n1");
    let token = world.server.token(&["--label", "rack=r1", "--taint", "dedicated=gpu:NoSchedule"]);
    let joined = machine.join(world.server.endpoint(), &token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());

    let node = world.server.admin_json(&["nodes", "show", "n1"]);
    assert_eq!(node["readiness"], "Ready", "{node:#}");
    assert_eq!(node["labels"]["rack"], "r1");
    assert_eq!(node["taints"], json!(["dedicated=gpu:NoSchedule"]));
    assert_ne!(node["capacity"]["cpu"], json!(null), "what the machine can is known: {node:#}");

    for path in [
        "/etc/kubernetes/kubelet.conf",
        "/etc/kubernetes/pki/ca.crt",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
    ] {
        assert!(machine.path(path).exists(), "{path} was written");
    }
    assert!(!machine.root().with_extension("token").exists(), "the token is gone from the disk");
}

#[test]
fn a_fresh_server_needs_no_configuration_but_its_line() {
    let world = World::start();
    // It serves before its output was read here.
    let line = eventually("the line to paste", PATIENCE, || {
        let said = world.server.process().stdout();
        said.lines().find(|line| line.ends_with("--token-file -")).map(str::to_owned)
    });
    let token =
        line.split(['\'', ' ']).find(|word| word.starts_with("berth1.")).expect("a token in the line");
    let joined = world.machine("n1").join(world.server.endpoint(), token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
}

#[test]
fn a_second_machine_is_refused_with_the_same_token_and_both_sides_know_why() {
    let world = World::start();
    let token = world.server.token(&[]);
    let first = world.machine("n1").join(world.server.endpoint(), &token, &[]);
    assert_eq!(first.ended.code, Some(0), "{}", first.ended.all());
    let second = world.machine("n2").join(world.server.endpoint(), &token, &[]);
    assert_eq!(second.ended.code, Some(4), "{}", second.ended.all());
    assert_eq!(second.code(), Some("TOKEN_SPENT"), "{}", second.ended.all());
    let joins = world.server.admin_json(&["joins", "list"]);
    let joins = joins["joins"].as_array().expect("a list");
    let refused = joins.iter().find(|join| join["state"] == "Refused").expect("it is recorded");
    assert_eq!(refused["diagnosis"]["code"], "TOKEN_SPENT");
    let ready = joins.iter().find(|join| join["state"] == "Ready").expect("the first one stands");
    assert_eq!(refused["diagnosis"]["values"]["usedBy"], ready["id"], "operators see by whom");
}

#[test]
fn connection_2_may_reach_another_server_on_the_same_store() {
    let world = World::start();
    let other = world.another_server("other", &ServerOptions::default());
    let machine = world.machine("n1");
    let token = world.server.token(&[]);
    let crash = machine.start_join(world.server.endpoint(), &token, &["--crash-at", "after-token-forgotten"]);
    let crashed = crash.wait(PATIENCE);
    assert_eq!(crashed.code, None, "it was to crash:\n{}", crashed.all());
    // The certificate is the evidence that travels: no token this time.
    let endpoint = other.endpoint().to_string();
    let joined = joined(
        machine
            .start(&["join", &endpoint], |c| {
                c.args(["-o", "json"]);
            })
            .wait(PATIENCE),
    );
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    assert_eq!(other.admin_json(&["nodes", "show", "n1"])["readiness"], "Ready");
}

#[test]
fn an_attending_node_renews_before_its_certificate_ends_and_stays_ready() {
    let world = World::with(&ServerOptions::new(json!({
        "policy": { "certificateLifetime": "12s" },
        "attendance": { "heartbeatInterval": "1s", "gracePeriod": "4s" },
    })));
    let machine = world.machine("n1");
    let token = world.server.token(&[]);
    let file = machine.token_file(&token);
    let endpoint = world.server.endpoint().to_string();
    let mut agent = machine.start(&["run"], |command| {
        command.args(["--server", &endpoint, "--node-name", "n1", "--token-file"]).arg(file);
    });
    let serial = || {
        let node = world.server.admin(&["nodes", "show", "n1", "-o", "json"]);
        (node.code == Some(0)).then(|| node.json())
    };
    let first = eventually("the first certificate", PATIENCE, serial)["certificateSerial"].clone();
    let ready = eventually("two renewals, and Ready", PATIENCE, || {
        let node = serial()?;
        let events = world.server.explain("n1")["events"].as_array()?.clone();
        let renewals = events.iter().filter(|event| event["kind"] == "authorized").count();
        (renewals >= 3 && node["certificateSerial"] != first && node["readiness"] == "Ready").then_some(node)
    });
    assert!(!agent.has_ended(), "the agent attends");
    let current = machine.path("/var/lib/kubelet/pki/kubelet-client-current.pem");
    assert!(std::fs::read_to_string(current).is_ok_and(|pem| pem.contains("BEGIN CERTIFICATE")), "{ready:#}");
    let ended = agent.terminate(PATIENCE);
    assert_eq!(ended.code, Some(0), "a service that is stopped has ended well:\n{}", ended.all());
}

#[test]
fn a_silent_node_becomes_not_ready_by_the_servers_clock_and_ready_again() {
    let world = World::with(&ServerOptions::new(json!({
        "attendance": { "heartbeatInterval": "1s", "gracePeriod": "3s" },
    })));
    let machine = world.machine("n1");
    let token = world.server.token(&[]);
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    let readiness =
        || world.server.admin_json(&["nodes", "show", "n1"])["readiness"].as_str().map(str::to_owned);
    eventually("NotReady without its agent", PATIENCE, || (readiness()? == "NotReady").then_some(()));
    let endpoint = world.server.endpoint().to_string();
    let agent = machine.start(&["run"], |command| {
        command.args(["--server", &endpoint]);
    });
    eventually("Ready with its agent", PATIENCE, || (readiness()? == "Ready").then_some(()));
    drop(agent);
}

#[test]
fn a_ban_cuts_the_line_at_once_at_any_server_and_the_machine_stays_out() {
    let options = ServerOptions::new(json!({ "attendance": { "heartbeatInterval": "1s" } }));
    let world = World::with(&options);
    let other = world.another_server("other", &options);
    let machine = world.machine("n1");
    let token = world.server.token(&["--uses", "2"]);
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    let endpoint = other.endpoint().to_string();
    let agent = machine.start(&["run"], |command| {
        command.args(["--server", &endpoint]);
    });
    let seen = || world.server.admin_json(&["nodes", "show", "n1"])["lastSeen"].clone();
    let before = seen();
    eventually("heartbeats", PATIENCE, || (seen() != before).then_some(()));
    // Said to one server, while the node attends at the other.
    let banned = world.server.admin(&["nodes", "ban", "n1", "--reason", "stolen"]);
    assert_eq!(banned.code, Some(0), "{}", banned.all());
    let ended = agent.wait(Duration::from_secs(10));
    assert_eq!(ended.code, Some(5), "{}", ended.all());
    assert!(ended.all().contains("MACHINE_BANNED"), "{}", ended.all());
    assert!(!ended.all().contains("stolen"), "the reason is for operators");

    // The same machine with a new key and a good token is still that machine.
    assert_eq!(machine.run(&["reset"]).code, Some(0));
    let again = machine.join(world.server.endpoint(), &token, &[]);
    assert_eq!((again.ended.code, again.code()), (Some(5), Some("MACHINE_BANNED")), "{}", again.ended.all());
    let unbanned = world.server.admin(&["nodes", "unban", "n1"]);
    assert_eq!(unbanned.code, Some(0), "{}", unbanned.all());
    let back = machine.join(world.server.endpoint(), &token, &[]);
    assert_eq!(back.ended.code, Some(0), "{}", back.ended.all());
}

#[test]
fn a_machine_leaves_politely_resets_and_joins_again_under_its_name() {
    let world = World::start();
    let machine = world.machine("n1");
    let token = world.server.token(&["--uses", "2"]);
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    let endpoint = world.server.endpoint().to_string();
    let left = machine
        .start(&["leave"], |command| {
            command.args(["--server", &endpoint]);
        })
        .wait(PATIENCE);
    assert_eq!(left.code, Some(0), "{}", left.all());
    assert_ne!(world.server.admin(&["nodes", "show", "n1"]).code, Some(0), "its name is free");
    let reset = machine.run(&["reset"]);
    assert_eq!(reset.code, Some(0), "{}", reset.all());
    assert!(!machine.path("/etc/kubernetes/kubelet.conf").exists(), "what Berth wrote is gone");
    let again = machine.join(world.server.endpoint(), &token, &[]);
    assert_eq!(again.ended.code, Some(0), "{}", again.ended.all());
}

#[test]
fn a_second_join_of_a_joined_machine_changes_nothing_and_says_so() {
    let world = World::start();
    let machine = world.machine("n1");
    let token = world.server.token(&[]);
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    let before = world.server.admin_json(&["nodes", "show", "n1"])["certificateSerial"].clone();
    let endpoint = world.server.endpoint().to_string();
    let again = machine
        .start(&["join", &endpoint], |c| {
            c.args(["-o", "json"]);
        })
        .wait(PATIENCE);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert_eq!(world.server.admin_json(&["nodes", "show", "n1"])["certificateSerial"], before);
}
