//! Real machines join while the page is looked at.

use std::time::Duration;

use berth_tests::{Browser, eventually, joined};
use serde_json::json;

use crate::world::{ConsoleWorld, go, is_accessible, keep_picture, kept_to_itself};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_join_is_watched_from_its_wait_to_ready_and_approved_on_the_page() {
    let console = ConsoleWorld::start();
    let browser = console.browser();
    browser.reads("#content", "No machine has asked to join yet.");
    let server = &console.world.server;
    let token = server.token(&["--approval"]);
    let machine = console.world.machine("rack1-n7");
    let joining = machine.start_join(server.endpoint(), &token, &[]);
    let row = browser.reads("tbody tr.row", "Waiting");
    assert!(row.contains("rack1-n7") && row.contains("APPROVAL_PENDING"), "{row}");
    is_accessible(&browser, "the list of joins");
    keep_picture(&browser, "joins");

    browser.find("tbody tr.row a").click();
    let why = browser.reads(".why", "APPROVAL_PENDING");
    assert!(why.contains("berth-server joins approve j-"), "the mend is there: {why}");
    is_accessible(&browser, "a join that waits");
    keep_picture(&browser, "join-waits");
    browser.find("[data-keep=approve]").click();
    let joined = joined(joining.wait(PATIENCE));
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    browser.reads(".head", "Ready");
    let story = browser.reads(".events", "ready");
    assert!(story.contains("by=console:operator"), "who approved is in the record: {story}");
    assert_drawn_from_spans(&browser);
    let trace = browser.run("return document.querySelector('[data-keep=trace]')?.href ?? ''", &[]);
    let trace_id = server.explain("rack1-n7")["join"]["traceId"].as_str().expect("a trace").to_owned();
    assert_eq!(trace, json!(format!("http://traces.example.com/trace/{trace_id}")));
    is_accessible(&browser, "a join that is Ready");
    keep_picture(&browser, "join-ready");
    kept_to_itself(&browser, console.address);
}

/// Rows of both sides, each as deep as its parents say; the wait is the record's.
fn assert_drawn_from_spans(browser: &Browser) {
    // The agent's come over its line, a little after Ready.
    browser.reads(".waterfall", "calls JoinService/Join");
    let drawn = browser.reads("#drawn-from", "The spans of both sides");
    assert!(!drawn.contains("another server") && drawn.contains("The whole trace"), "{drawn}");
    let script = "return [...document.querySelectorAll('.waterfall tbody tr')].map((row) => [
        row.dataset.side, Number(row.dataset.depth),
        [...row.cells[0].childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join(''),
    ])";
    let rows = browser.run(script, &[]);
    for wanted in [
        json!(["agent", 0, "join"]),
        json!(["agent", 1, "initialization"]),
        json!(["agent", 1, "calls JoinService/Enroll"]),
        json!(["server", 2, "answers JoinService/Enroll"]),
        json!(["server", 3, "authentication"]),
        json!(["server", 4, "redeem"]),
        json!(["server", 3, "authorization"]),
        json!(["server", 4, "bind"]),
        json!(["server", 4, "sign"]),
        json!(["agent", 1, "calls JoinService/Join"]),
        json!(["server", 2, "answers JoinService/Join"]),
        json!(["server", 3, "registration"]),
        json!(["server", 1, "waits: APPROVAL_PENDING"]),
    ] {
        assert!(rows.as_array().expect("rows").contains(&wanted), "{wanted} is not in {rows:#}");
    }
    let open = browser.run("return document.querySelector('.waterfall').innerText.includes('goes on')", &[]);
    assert_eq!(open, json!(false), "all of it has ended");
}

#[test]
fn a_join_that_stopped_shows_code_values_and_mend_as_the_command_does() {
    let console = ConsoleWorld::start();
    let browser = console.browser();
    let server = &console.world.server;
    let token = server.token(&["--name", "rack1-*"]);
    let refused = console.world.machine("rack2-n1").join(server.endpoint(), &token, &[]);
    assert_eq!(refused.code(), Some("TOKEN_BOUND_ELSEWHERE"), "{}", refused.ended.all());
    browser.reads("tbody tr.row", "Refused");
    browser.find("tbody tr.row a").click();
    let why = browser.reads(".why", "TOKEN_BOUND_ELSEWHERE");
    let joins = server.admin_json(&["joins", "list"]);
    let told = &server.explain(joins["joins"][0]["id"].as_str().expect("an id"))["join"]["diagnosis"];
    for said in [&told["cause"], &told["mend"]] {
        let said = said.as_str().expect("a sentence");
        assert!(why.contains(said), "{said} in {why}");
    }
    for value in told["values"].as_object().expect("values").values() {
        assert!(why.contains(value.as_str().expect("a text")), "{value} in {why}");
    }
    kept_to_itself(&browser, console.address);
}

#[test]
fn a_token_of_the_page_lets_a_machine_in_and_a_ban_cuts_its_line() {
    let console = ConsoleWorld::start();
    let browser = console.browser();
    let server = &console.world.server;
    go(&browser, "#/tokens");
    browser.find(".head button.main").click();
    browser.find("#taints").write("no taint");
    browser.find("form button[type=submit]").click();
    browser.reads("#taints-bad", "taint");
    // A wrong field is answered with 400, which the browser notes.
    assert_eq!(browser.console().iter().filter(|said| said["level"] == "SEVERE").count(), 1);
    browser.run("document.getElementById('taints').value = 'dedicated=gpu:NoSchedule'", &[]);
    browser.find("#names").write("rack1-*");
    browser.find("#labels").write("rack=r1");
    browser.find("#networks").write("127.0.0.0/8");
    is_accessible(&browser, "the form for tokens");
    browser.find("form button[type=submit]").click();
    let command = browser.reads("#command", "berth-agent join");
    let token = command.split(['\'', ' ']).find(|word| word.starts_with("berth1.")).expect("a token");
    keep_picture(&browser, "token-made");
    let machine = console.world.machine("rack1-n1");
    let joined = machine.join(server.endpoint(), token, &[]);
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let node = server.admin_json(&["nodes", "show", "rack1-n1"]);
    assert_eq!(
        (&node["labels"]["rack"], &node["taints"]),
        (&json!("r1"), &json!(["dedicated=gpu:NoSchedule"]))
    );
    let tokens = server.admin_json(&["token", "list"]);
    assert_eq!(tokens["tokens"][0]["createdBy"], "console:operator", "{tokens:#}");
    go(&browser, "#/servers");
    go(&browser, "#/tokens");
    browser.reads(".list", "Spent");
    assert!(!browser.reads("#content", "Tokens").contains("berth1."), "the secret was shown once");

    let endpoint = server.endpoint().to_string();
    let attending = machine.start(&["run"], |command| {
        command.args(["--server", &endpoint]);
    });
    let seen = || server.admin_json(&["nodes", "show", "rack1-n1"])["lastSeen"].clone();
    let before = seen();
    eventually("heartbeats", PATIENCE, || (seen() != before).then_some(()));
    go(&browser, "#/nodes");
    browser.reads("tbody tr.row", "Ready");
    is_accessible(&browser, "the list of nodes");
    browser.find("tbody tr.row a").click();
    browser.reads("#content", "The machine's facts");
    browser.find("[data-keep=ban]").click();
    browser.find("#words").write("stolen");
    is_accessible(&browser, "a question");
    browser.find("dialog button[value=yes]").click();
    browser.reads(".head", "Banned");
    let ended = attending.wait(Duration::from_secs(15));
    assert!(ended.all().contains("MACHINE_BANNED"), "{}", ended.all());
    let ban = &server.admin_json(&["nodes", "show", "rack1-n1"])["ban"];
    assert_eq!((&ban["by"], &ban["reason"]), (&json!("console:operator"), &json!("stolen")));
    browser.find("[data-keep=unban]").click();
    browser.find("dialog button[value=yes]").click();
    browser.find("[data-keep=ban]");
    kept_to_itself(&browser, console.address);
}
