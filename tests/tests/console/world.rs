//! A server with a console, a browser that is signed in, and what every page of it
//! must keep to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use berth_tests::{Browser, ServerOptions, World, own_address};
use serde_json::{Value, json};

/// The port of every test's console, on an address of its own.
const PORT: u16 = 18490;

/// A world whose server has a console.
pub(crate) struct ConsoleWorld {
    pub(crate) world: World,
    pub(crate) address: SocketAddr,
}

impl ConsoleWorld {
    pub(crate) fn start() -> Self {
        Self::with(json!({}))
    }

    pub(crate) fn with(configuration: Value) -> Self {
        let address = SocketAddr::from((own_address(), PORT));
        let options = ServerOptions::new(json!({
            "attendance": { "heartbeatInterval": "1s" },
            "console": { "listen": address, "traceURL": "http://traces.example.com/trace/{trace}" },
        }));
        Self { world: World::with(&options.over(configuration)), address }
    }

    /// Its operator's token, as the first start made it.
    pub(crate) fn token(&self) -> String {
        token_of(&self.world.path().join("server/console.tokens"))
    }

    /// A browser that is signed in.
    pub(crate) fn browser(&self) -> Browser {
        signed_in(self.address, &self.token())
    }

    /// One request as it is; status, head and body of the answer.
    pub(crate) fn send(&self, request: &str) -> (u16, String, String) {
        send(self.address, request)
    }
}

pub(crate) fn token_of(file: &std::path::Path) -> String {
    let line = std::fs::read_to_string(file).expect("the token file");
    line.split_whitespace().nth(1).expect("NAME TOKEN").to_owned()
}

pub(crate) fn signed_in(address: SocketAddr, token: &str) -> Browser {
    let browser = Browser::start(1280, 800);
    browser.open(&format!("http://{address}/"));
    browser.find("#token").write(token);
    browser.find("form button").click();
    browser.reads("#line", "Live");
    browser
}

pub(crate) fn send(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("the console listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    // A refused body may be cut while it is written.
    let _written = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, head.to_owned(), body.to_owned())
}

/// Goes to a view of the page.
pub(crate) fn go(browser: &Browser, hash: &str) {
    browser.run("location.hash = arguments[0]", &[json!(hash)]);
}

/// axe-core finds nothing serious, in light and dark.
pub(crate) fn is_accessible(browser: &Browser, what: &str) {
    let axe = axe();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        browser.run(&axe, &[]);
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations
                .filter(({ impact }) => ['serious', 'critical'].includes(impact))
                .map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`) }))),
                (error) => done(String(error)));";
        let found = browser.run_async(script, &[]);
        assert_eq!(found, json!([]), "{what} in {scheme}: {found:#}");
    }
    browser.prefers("light");
}

/// axe-core, as `cargo xtask test` fetches it.
fn axe() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/tools/npm/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; axe-core is missing, so the pages were not checked for screen readers; to mend: cargo xtask test --only browser",
            path.display()
        )
    })
}

/// Nothing was complained about, and nothing was asked of anybody else.
pub(crate) fn kept_to_itself(browser: &Browser, address: SocketAddr) {
    let complaints: Vec<Value> =
        browser.console().into_iter().filter(|said| said["level"] != "DEBUG").collect();
    assert_eq!(complaints, Vec::<Value>::new());
    let own = format!("http://{address}/");
    let asked = browser.requests();
    assert!(asked.len() > 10, "{asked:?}");
    // What has no host, and the browser's own page, which was there before ours.
    let begins = [own.as_str(), "data:", "chrome://"];
    let foreign: Vec<&String> =
        asked.iter().filter(|url| !begins.iter().any(|begin| url.starts_with(begin))).collect();
    assert!(foreign.is_empty(), "requests left the origin: {foreign:?}");
}

/// Keeps a picture beside the test programs, for people to look at.
pub(crate) fn keep_picture(browser: &Browser, name: &str) {
    let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pictures");
    std::fs::create_dir_all(&pictures).expect("a directory for pictures");
    std::fs::write(pictures.join(format!("{name}.png")), browser.picture()).expect("a picture");
}
