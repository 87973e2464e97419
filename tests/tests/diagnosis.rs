//! Why a join waits or stops: each cause is made for real, and the agent's
//! terminal and the operator's `joins explain` say the same code, the values that
//! prove it and the mend. Where a wait is right, the mend is done and the same
//! join goes on to Ready. The number is the row of the catalogue of causes.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test stop it where its world is not as it must be"
)]

use std::time::Duration;

use berth_tests::{
    Joined, Running, ServerOptions, World, enter, eventually, joined, start_in, system_program,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn row_09_a_host_name_that_cannot_be_a_node_name_waits_for_a_better_one() {
    let world = World::start();
    let join = join_in(&world, "m", &["--uts"], "hostname localhost", &[]);
    let told = waits(&join, "HOSTNAME_INVALID");
    assert_eq!(told["values"]["hostname"], "localhost");
    mended(&told, "hostnamectl set-hostname");
    let _renamed = enter(&join, &["--uts"], "hostname n9").expect_success();
    ends_ready(join, &world, "n9");
}

#[test]
fn row_11_too_little_space_waits_until_there_is_more() {
    let world = World::start();
    let machine = world.machine("m");
    let kubelet = machine.path("/var/lib/kubelet");
    std::fs::create_dir_all(&kubelet).expect("a directory");
    let kubelet = kubelet.display();
    let small = format!("mount -t tmpfs -o size=8m tmpfs {kubelet}");
    let join = join_in(&world, "m", &["--mount"], &small, &["--node-name", "n1"]);
    let told = waits(&join, "DISK_SPACE_TOO_LOW");
    assert!(
        text(&told["values"]["found"]).contains('8') || told["values"]["found"] != Value::Null,
        "{told:#}"
    );
    mended(&told, "free space below");
    let _grown = enter(&join, &["--mount"], &format!("mount -o remount,size=4g {kubelet}")).expect_success();
    ends_ready(join, &world, "n1");
}

#[test]
fn row_13_a_wrong_clock_is_told_with_both_times() {
    let world = World::start();
    let machine = world.machine("m");
    let token = world.server.token(&[]);
    let file = machine.token_file(&token);
    let endpoint = world.server.endpoint().to_string();
    let agent = berth_tests::binary("berth-agent");
    let mut faketime = system_program("faketime");
    faketime.args(["-f", "-3h"]).arg(agent).args([
        "join",
        &endpoint,
        "--node-name",
        "n1",
        "-o",
        "json",
        "--timeout",
        "4s",
    ]);
    faketime.arg("--token-file").arg(file).arg("--root").arg(machine.root());
    let late = joined(Running::start_command(faketime, |_| {}).wait(PATIENCE));
    assert_eq!((late.ended.code, late.code()), (Some(2), Some("CLOCK_WRONG")), "{}", late.ended.all());
    let values = &late.result()["diagnosis"]["values"];
    assert!(text(&values["offset"]).contains("3h") || text(&values["offset"]).contains("2h"), "{values:#}");
    mended(&late.result()["diagnosis"], "date --utc --set=");
    assert!(!machine.path("/etc/kubernetes/kubelet.conf").exists(), "nothing was written");
    operator_sees(&world, &world.server.admin_json(&["joins", "list"])["joins"][0]["id"], "CLOCK_WRONG");
    // The mend: the clock is right.
    let right = machine.join(world.server.endpoint(), &token, &["--node-name", "n1"]);
    assert_eq!(right.ended.code, Some(0), "{}", right.ended.all());
}

#[test]
fn row_14_leftovers_of_another_join_are_named_with_their_owner() {
    let world = World::start();
    let machine = world.machine("m");
    let left = machine.path("/etc/kubernetes/kubelet.conf");
    std::fs::create_dir_all(left.parent().expect("a parent")).expect("a directory");
    std::fs::write(&left, "apiVersion: v1\nkind: Config\n").expect("a leftover");
    let kubeadm = machine.path("/var/lib/kubelet/kubeadm-flags.env");
    std::fs::create_dir_all(kubeadm.parent().expect("a parent")).expect("a directory");
    std::fs::write(&kubeadm, "KUBELET_KUBEADM_ARGS=\"\"\n").expect("a leftover");
    let token = world.server.token(&[]);
    let join = machine.start_join(world.server.endpoint(), &token, &["--node-name", "n1"]);
    let told = waits(&join, "LEFTOVERS_FOUND");
    assert!(text(&told["values"]["owner"]).contains("kubeadm"), "{told:#}");
    mended(&told, "kubeadm reset");
    std::fs::remove_file(left).expect("the leftover goes");
    std::fs::remove_file(kubeadm).expect("the leftover goes");
    ends_ready(join, &world, "n1");
}

#[test]
fn row_18_without_its_rights_the_agent_touches_nothing() {
    let world = World::start();
    let file = world.file("token", &world.server.token(&[]));
    let endpoint = world.server.endpoint().to_string();
    // Root of a system of its own, so that a failure of this test changes no other.
    let own_system = "mount -t tmpfs tmpfs /etc; mount -t tmpfs tmpfs /var/lib";
    let agent = berth_tests::binary("berth-agent").display().to_string();
    let arguments = [
        "--bounding-set=-all",
        "--inh-caps=-all",
        &agent,
        "join",
        &endpoint,
        "--node-name",
        "n1",
        "-o",
        "json",
        "--token-file",
        &file.display().to_string(),
    ];
    let ended = joined(start_in(&["--mount"], own_system, "setpriv", &arguments).wait(PATIENCE));
    assert_eq!((ended.ended.code, ended.code()), (Some(2), Some("NOT_PRIVILEGED")), "{}", ended.ended.all());
    assert_ne!(ended.result()["diagnosis"]["values"]["missing"], Value::Null);
    mended(&ended.result()["diagnosis"], "--root DIR");
}

#[test]
fn row_19_a_name_that_does_not_resolve_is_told_with_the_servers_asked() {
    let world = World::start();
    let resolver = world.file("resolv.conf", "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n");
    let own_resolver = format!("mount --bind {} /etc/resolv.conf", resolver.display());
    let file = world.file("token", &world.server.token(&[]));
    let root = world.machine("m").root().display().to_string();
    let arguments = [
        "join",
        "berth.invalid:7443",
        "--node-name",
        "n1",
        "-o",
        "json",
        "--timeout",
        "4s",
        "--root",
        &root,
        "--token-file",
        &file.display().to_string(),
    ];
    let ended = joined(start_in(&["--mount"], &own_resolver, "berth-agent", &arguments).wait(PATIENCE));
    assert_eq!(
        (ended.ended.code, ended.code()),
        (Some(6), Some("NAME_NOT_RESOLVED")),
        "{}",
        ended.ended.all()
    );
    let values = &ended.result()["diagnosis"]["values"];
    assert_eq!((&values["host"], &values["servers"]), (&json!("berth.invalid"), &json!("127.0.0.53")));
}

#[test]
fn row_20_a_server_that_is_away_is_waited_for() {
    let mut world = World::start();
    let token = world.server.token(&[]);
    let endpoint = world.server.endpoint();
    let _stopped = world.server.stop();
    let join = world.machine("n1").start_join(endpoint, &token, &[]);
    let told = waits(&join, "CONNECTION_FAILED");
    assert_eq!(told["values"]["address"], endpoint.to_string());
    assert!(text(&told["values"]["error"]).to_lowercase().contains("refused"), "{told:#}");
    mended(&told, "listens on");
    world.server.start_again();
    ends_ready(join, &world, "n1");
}

#[test]
fn row_23_a_pin_that_does_not_match_stops_before_anything_is_said() {
    let world = World::start();
    let token = world.server.token(&[]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let ended =
        world.machine("n1").join(world.server.endpoint(), &token, &["--ca-pin", &wrong, "--timeout", "3s"]);
    assert_eq!((ended.ended.code, ended.code()), (Some(4), Some("PIN_MISMATCH")), "{}", ended.ended.all());
    let values = &ended.result()["diagnosis"]["values"];
    assert!(text(&values["wanted"]).contains(&wrong), "{values:#}");
    assert!(text(&values["found"]).starts_with("sha256:"), "{values:#}");
    let joins = world.server.admin_json(&["joins", "list"]);
    assert_eq!(joins["joins"], json!([]), "the token was not offered to that server");
}

#[test]
fn row_27_an_expired_token_says_when_by_the_servers_clock() {
    let world = World::start();
    let token = world.server.token(&["--ttl", "1s"]);
    // Both moments are told in whole seconds.
    std::thread::sleep(Duration::from_millis(2200));
    let ended = refused(&world, "n1", &token, &[], 4, "TOKEN_EXPIRED");
    let values = &ended.result()["diagnosis"]["values"];
    assert!(text(&values["expired"]) < text(&values["now"]), "{values:#}");
    mended(&ended.result()["diagnosis"], "berth-server token create");
    operator_sees_newest(&world, "TOKEN_EXPIRED");
}

#[test]
fn row_28_a_mistyped_token_is_found_before_any_connection_and_not_echoed() {
    let world = World::start();
    let token = world.server.token(&[]);
    let mistyped = token.replacen(['a', 'b'], "c", 3);
    let before = world.server.metric("berth_connections_total{outcome=\"accepted\"}");
    let ended = refused(&world, "n1", &mistyped, &[], 4, "TOKEN_MALFORMED");
    assert!(!ended.ended.all().contains(mistyped.split('.').nth(2).expect("a secret")), "it is not echoed");
    assert_eq!(world.server.metric("berth_connections_total{outcome=\"accepted\"}"), before);
}

#[test]
fn row_29_a_revoked_token_is_coarse_to_the_machine_and_exact_to_operators() {
    let world = World::start();
    let token = world.server.token(&[]);
    let id = token.split('.').nth(1).expect("an id");
    assert_eq!(world.server.admin(&["token", "revoke", id]).code, Some(0));
    let ended = refused(&world, "n1", &token, &[], 4, "TOKEN_REJECTED");
    assert!(!ended.ended.all().contains("revoked at"), "{}", ended.ended.all());
    let seen = operator_sees_newest(&world, "TOKEN_REJECTED");
    assert!(text(&seen["values"]["reason"]).contains("revoked at"), "{seen:#}");
}

#[test]
fn row_31_a_token_bound_elsewhere_says_what_it_wanted_and_found() {
    let world = World::start();
    let bound: [(&[&str], &[&str], &str, &str); 3] = [
        (&["--name", "rack1-*"], &[], "name", "rack1-*"),
        (&["--pool", "gpu"], &["--pool", "cpu"], "pool", "gpu"),
        (&["--network", "10.99.0.0/16"], &[], "network", "10.99.0.0/16"),
    ];
    for (made, asked, binding, wanted) in bound {
        let token = world.server.token(made);
        let ended = refused(&world, &format!("m-{binding}"), &token, asked, 5, "TOKEN_BOUND_ELSEWHERE");
        let values = &ended.result()["diagnosis"]["values"];
        assert_eq!((&values["binding"], &values["wanted"]), (&json!(binding), &json!(wanted)), "{values:#}");
        operator_sees_newest(&world, "TOKEN_BOUND_ELSEWHERE");
    }
}

#[test]
fn row_35_a_name_of_another_machine_is_waited_for_until_it_is_released() {
    let world = World::start();
    let token = world.server.token(&["--uses", "2"]);
    let first = world.machine("first").join(world.server.endpoint(), &token, &["--node-name", "n1"]);
    assert_eq!(first.ended.code, Some(0), "{}", first.ended.all());
    let join = world.machine("second").start_join(world.server.endpoint(), &token, &["--node-name", "n1"]);
    let told = waits(&join, "NODE_NAME_TAKEN");
    assert_eq!(told["values"]["name"], "n1");
    assert_eq!(told["values"]["machine"], Value::Null, "whose it is, is for operators");
    mended(&told, "berth-server nodes forget n1");
    let seen = operator_sees_newest(&world, "NODE_NAME_TAKEN");
    assert_ne!(seen["values"]["machine"], Value::Null);
    assert_eq!(world.server.admin(&["nodes", "forget", "n1"]).code, Some(0));
    ends_ready(join, &world, "n1");
}

#[test]
fn row_36_a_name_outside_the_policy_says_the_pattern() {
    let world = World::with(&ServerOptions::new(json!({ "policy": { "names": "rack-*" } })));
    let token = world.server.token(&[]);
    let ended = refused(&world, "n1", &token, &[], 5, "NAME_NOT_ALLOWED");
    let values = &ended.result()["diagnosis"]["values"];
    assert_eq!((&values["name"], &values["pattern"]), (&json!("n1"), &json!("rack-*")));
    operator_sees_newest(&world, "NAME_NOT_ALLOWED");
}

#[test]
fn row_37_why_a_machine_is_banned_is_for_operators() {
    let world = World::start();
    let token = world.server.token(&["--uses", "2"]);
    let machine = world.machine("n1");
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    assert_eq!(world.server.admin(&["nodes", "ban", "n1", "--reason", "stolen in transit"]).code, Some(0));
    assert_eq!(machine.run(&["reset"]).code, Some(0));
    let ended = refused(&world, "n1", &token, &[], 5, "MACHINE_BANNED");
    assert!(!ended.ended.all().contains("stolen"), "{}", ended.ended.all());
    let seen = operator_sees_newest(&world, "MACHINE_BANNED");
    assert_eq!(seen["values"]["reason"], "stolen in transit");
    mended(&seen, "berth-server nodes unban n1");
}

#[test]
fn row_42_a_quota_says_which_and_when_it_frees() {
    let world = World::with(&ServerOptions::new(json!({ "policy": { "certificatesPerNameAndHour": 1 } })));
    let token = world.server.token(&["--uses", "2"]);
    let machine = world.machine("n1");
    assert_eq!(machine.join(world.server.endpoint(), &token, &[]).ended.code, Some(0));
    assert_eq!(machine.run(&["reset"]).code, Some(0));
    let ended = refused(&world, "n1", &token, &["--timeout", "3s"], 6, "QUOTA_REACHED");
    let values = &ended.result()["diagnosis"]["values"];
    assert_eq!(values["limit"], "1", "{values:#}");
    assert_ne!(values["frees"], Value::Null);
    operator_sees_newest(&world, "QUOTA_REACHED");
}

#[test]
fn row_43_a_join_that_waits_for_a_person_goes_on_when_it_is_approved() {
    let world = World::start();
    let token = world.server.token(&["--approval"]);
    let join = world.machine("n1").start_join(world.server.endpoint(), &token, &[]);
    let told = waits(&join, "APPROVAL_PENDING");
    let id = text(&told["values"]["join"]).to_owned();
    mended(&told, &format!("berth-server joins approve {id}"));
    operator_sees(&world, &json!(id), "APPROVAL_PENDING");
    let approved = world.server.admin(&["joins", "approve", &id]);
    assert_eq!(approved.code, Some(0), "{}", approved.all());
    ends_ready(join, &world, "n1");
    let events = world.server.explain("n1")["events"].to_string();
    assert!(events.contains("approved"), "who did it is in the record: {events}");
}

#[test]
fn row_47_a_file_that_cannot_be_written_is_rolled_back_and_waited_for() {
    let world = World::start();
    let machine = world.machine("m");
    let etc = machine.path("/etc/kubernetes");
    std::fs::create_dir_all(&etc).expect("a directory");
    let etc = etc.display();
    let read_only = format!("mount --bind {etc} {etc}; mount -o remount,bind,ro {etc}");
    let join = join_in(&world, "m", &["--mount"], &read_only, &["--node-name", "n1"]);
    let told = waits(&join, "FILE_NOT_WRITTEN");
    assert!(text(&told["values"]["path"]).contains("/etc/kubernetes"), "{told:#}");
    assert!(text(&told["values"]["error"]).to_lowercase().contains("read-only"), "{told:#}");
    assert!(!machine.path("/var/lib/kubelet/config.yaml").exists(), "all or nothing");
    let _writable = enter(&join, &["--mount"], &format!("mount -o remount,bind,rw {etc}")).expect_success();
    ends_ready(join, &world, "n1");
}

/// Starts a join in namespaces of its own, below the named machine's directory.
fn join_in(world: &World, machine: &str, namespaces: &[&str], prepare: &str, flags: &[&str]) -> Running {
    let machine = world.machine(machine);
    let file = machine.token_file(&world.server.token(&[])).display().to_string();
    let (endpoint, root) = (world.server.endpoint().to_string(), machine.root().display().to_string());
    let mut arguments = vec!["join", &endpoint, "-o", "json", "--token-file", &file, "--root", &root];
    arguments.extend(flags);
    start_in(namespaces, prepare, "berth-agent", &arguments)
}

/// The diagnosis that a running join waits with.
fn waits(join: &Running, code: &str) -> Value {
    eventually(code, Duration::from_secs(20), || {
        let lines = join.stdout();
        let told = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.filter(|line| line["type"] == "waiting")
            .map(|line| line["diagnosis"].clone())
            .find(|why| why["code"] == code)
    })
}

fn ends_ready(join: Running, world: &World, node: &str) {
    let ended = join.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    assert_eq!(world.server.admin_json(&["nodes", "show", node])["readiness"], "Ready");
}

fn refused(world: &World, machine: &str, token: &str, flags: &[&str], exit: i32, code: &str) -> Joined {
    let ended = world.machine(machine).join(world.server.endpoint(), token, flags);
    assert_eq!((ended.ended.code, ended.code()), (Some(exit), Some(code)), "{}", ended.ended.all());
    assert!(!text(&ended.result()["diagnosis"]["mend"]).is_empty());
    ended
}

fn operator_sees_newest(world: &World, code: &str) -> Value {
    let joins = world.server.admin_json(&["joins", "list"]);
    let joins = joins["joins"].as_array().cloned().unwrap_or_default();
    let join = joins.iter().find(|join| join["diagnosis"]["code"] == code);
    let join = join.unwrap_or_else(|| panic!("no join with {code}: {joins:#?}"));
    operator_sees(world, &join["id"], code)
}

fn operator_sees(world: &World, join: &Value, code: &str) -> Value {
    let explained = world.server.explain(join.as_str().expect("a join id"));
    let why = explained["join"]["diagnosis"].clone();
    assert_eq!(why["code"], code, "{explained:#}");
    assert!(!text(&why["mend"]).is_empty(), "{explained:#}");
    why
}

fn mended(told: &Value, by: &str) {
    assert!(text(&told["mend"]).contains(by), "{told:#}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
