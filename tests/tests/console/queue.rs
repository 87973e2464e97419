//! A join that waits for its turn, because another holds the only place.

use std::time::Duration;

use berth_tests::joined;
use berth_tests::race::{hold, runtime};
use serde_json::json;

use crate::world::{ConsoleWorld, keep_picture, kept_to_itself};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_join_is_watched_live_from_queued_to_ready() {
    let console = ConsoleWorld::with(json!({ "limits": { "joinsInFlight": 1 } }));
    let browser = console.browser();
    let server = &console.world.server;
    let token = server.token(&["--uses", "2"]);
    let runtime = runtime();
    let held = hold(&runtime, &token, server.endpoint());
    let joining = console.world.machine("n2").start_join(server.endpoint(), &token, &[]);
    let row = browser.reads("tbody tr.row", "Queued");
    assert!(row.contains("initialization") && row.contains("127."), "{row}");
    keep_picture(&browser, "joins-queued");
    let joins = server.admin_json(&["joins", "list"]);
    assert_eq!(joins["joins"][0]["state"], "Queued", "{joins:#}");
    runtime.block_on(async { drop(held) });
    browser.reads("tbody tr.row", "Ready");
    let joined = joined(joining.wait(PATIENCE));
    assert_eq!(joined.ended.code, Some(0), "{}", joined.ended.all());
    let chips = browser.reads(".chips", "Queued 0");
    assert!(chips.contains("All 1") && chips.contains("Ready 1"), "{chips}");
    kept_to_itself(&browser, console.address);
}
