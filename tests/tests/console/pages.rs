//! The page for every reader: by keyboard, on a narrow screen, after a restart.

use berth_tests::Browser;
use serde_json::json;

use crate::world::{ConsoleWorld, go, is_accessible, keep_picture, kept_to_itself};

/// Enter and ArrowDown (WebDriver 2, 17.4.2).
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";

#[test]
fn everything_can_be_reached_by_keys_alone_and_fits_a_narrow_screen() {
    let other = berth_tests::own_address();
    let console = ConsoleWorld::with(json!({ "console": { "servers": [format!("{other}:9")] } }));
    let server = &console.world.server;
    // Ids have no digits above 7: a search for these finds names only.
    for name in ["n8", "n9"] {
        let token = server.token(&[]);
        let joined = console.world.machine(name).join(server.endpoint(), &token, &[]);
        assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    }
    let browser = Browser::start(1280, 800);
    browser.open(&format!("http://{}/", console.address));
    browser.find("#token");
    is_accessible(&browser, "signing in");
    browser.find("#token").write("wrong");
    browser.press(ENTER);
    browser.reads("#token-bad", "no operator's token");
    // A wrong token is answered with 401, which the browser notes.
    assert_eq!(browser.console().iter().filter(|said| said["level"] == "SEVERE").count(), 1);
    browser.run("document.getElementById('token').value = ''", &[]);
    browser.find("#token").write(&console.token());
    browser.press(ENTER);
    browser.reads("tbody tr.row", "Ready");

    browser.press("/");
    browser.press("9");
    let focused = || browser.run("return document.activeElement.textContent", &[]);
    browser.reads("#content", "All 2");
    let rows = browser.run("return document.querySelectorAll('tbody tr.row').length", &[]);
    assert_eq!(rows, json!(1), "the search leaves one");
    browser.run("document.querySelector('.list').focus()", &[]);
    browser.press(DOWN);
    assert_eq!(focused(), json!("n9"));
    browser.press(ENTER);
    browser.reads("h1", "n9");
    assert_eq!(
        browser.run("return document.activeElement.id", &[]),
        json!("content"),
        "readers hear the new view"
    );

    go(&browser, "#/servers");
    let servers = browser.reads("#content", "No answer");
    assert!(servers.contains("this server"), "{servers}");
    is_accessible(&browser, "the servers");
    for (hash, wanted) in [
        ("#/joins", "Ready"),
        ("#/joins/n8", "The record"),
        ("#/nodes", "Ready"),
        ("#/nodes/n8", "facts"),
        ("#/tokens", "Spent"),
        ("#/servers", "this server"),
    ] {
        browser.screen(1280, 800);
        go(&browser, hash);
        browser.reads("#content", wanted);
        browser.screen(320, 640);
        let name = hash.trim_start_matches("#/").replace('/', "-");
        keep_picture(&browser, &format!("narrow-{name}"));
        let width = browser.run("return document.documentElement.scrollWidth", &[]);
        assert_eq!(width, json!(320), "{hash} does not fit");
        is_accessible(&browser, &format!("{hash} on a narrow screen"));
        browser.screen(1280, 800);
        browser.prefers("dark");
        keep_picture(&browser, &format!("dark-{name}"));
        browser.prefers("light");
        keep_picture(&browser, &format!("light-{name}"));
    }
    kept_to_itself(&browser, console.address);
}

#[test]
fn a_page_outlives_its_server_and_asks_who_is_there() {
    let mut console = ConsoleWorld::start();
    let browser = console.browser();
    let _ended = console.world.server.stop();
    browser.reads("#line", "Not connected");
    console.world.server.start_again();
    // Sessions live in the process: the page shows where to sign in again.
    browser.reads("h1", "Sign in");
    browser.find("#token").write(&console.token());
    browser.press(ENTER);
    browser.reads("#line", "Live");
}
