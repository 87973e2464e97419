//! The page for every reader: by keyboard, on a narrow screen, after a restart.

use std::path::Path;
use std::time::Duration;

use berth_tests::{Browser, Running, eventually, system_program};
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

#[test]
fn a_browser_ends_with_the_test_that_started_it_also_where_that_is_killed() {
    const NAME: &str = "pages::a_browser_ends_with_the_test_that_started_it_also_where_that_is_killed";
    if std::env::var_os("BERTH_TO_BE_KILLED").is_some() {
        let browser = Browser::start(320, 320);
        browser.open("about:blank");
        println!("it is open");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let own = std::env::current_exe().expect("this test has a path");
    let mut killed = Running::start_command(system_program(&own.to_string_lossy()), |command| {
        command.args(["--exact", NAME, "--nocapture"]).env("TMPDIR", folder.path());
        command.env("BERTH_TO_BE_KILLED", "yes");
    });
    eventually("the browser of the test that is killed", Duration::from_secs(60), || {
        assert!(!killed.has_ended(), "{}{}", killed.stdout(), killed.stderr());
        killed.stdout().contains("it is open").then_some(())
    });
    assert!(processes_below(folder.path()) > 2, "a driver and a browser with its parts");
    let _killed = killed.kill();
    eventually("the end of the browser", Duration::from_secs(10), || {
        (processes_below(folder.path()) == 0).then_some(())
    });
}

/// How many processes have this folder in their command line or their environment.
fn processes_below(folder: &Path) -> usize {
    let folder = folder.to_string_lossy();
    let has = |path: std::path::PathBuf| {
        // Another may have ended between the list and the look.
        std::fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&*folder))
    };
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    all.filter(|process| has(process.path().join("cmdline")) || has(process.path().join("environ"))).count()
}
