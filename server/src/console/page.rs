//! The page: files of this source, as they stand.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;

use super::Console;
use super::answer::of_type;

/// Every file by its path. The views are parts of the one page, so that a reload
/// stays where it was.
pub(super) fn routes() -> Router<Arc<Console>> {
    FILES.iter().fold(Router::new(), |routes, (path, content_type, content)| {
        let file = || async { of_type(content_type, Body::from(*content)) };
        routes.route(path, get(file))
    })
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("assets/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("assets/console.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/main.js", SCRIPT, include_str!("assets/main.js")),
    ("/dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("/server.js", SCRIPT, include_str!("assets/server.js")),
    ("/store.js", SCRIPT, include_str!("assets/store.js")),
    ("/list.js", SCRIPT, include_str!("assets/list.js")),
    ("/joins.js", SCRIPT, include_str!("assets/joins.js")),
    ("/join.js", SCRIPT, include_str!("assets/join.js")),
    ("/waterfall.js", SCRIPT, include_str!("assets/waterfall.js")),
    ("/nodes.js", SCRIPT, include_str!("assets/nodes.js")),
    ("/tokens.js", SCRIPT, include_str!("assets/tokens.js")),
    ("/servers.js", SCRIPT, include_str!("assets/servers.js")),
];
