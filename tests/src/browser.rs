//! A real browser for tests of pages: Chromium, driven over HTTP as the W3C says
//! (WebDriver 2). It has a profile of its own, talks to nobody but the page under
//! test, and ends with the test, also where that is killed.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Running, eventually, system_program};

/// How long a browser may take to start, and a page to show something.
const START: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// Words of setpriv(1) and unshare(1) in front of a driver. Its browser is no child of
/// ours, and has many of its own: they are all in one namespace of processes, which ends
/// with its first, which ends with unshare, which ends with the thread that started it.
const ENDS_WITH_US: [&str; 11] = [
    "--pdeathsig",
    "KILL",
    "--",
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
];

/// The key under which WebDriver names elements (WebDriver 2, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
    _process: Running,
}

/// Something on the page.
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Browser {
    /// Starts a browser whose window has this size, in pixels.
    ///
    /// # Panics
    /// Chromium or its driver is missing, or does not start.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::Builder::new().prefix("berth-browser-").tempdir().expect("a directory");
        let mut process = Running::start_command(system_program("setpriv"), |command| {
            command.args(ENDS_WITH_US);
            command.args(["chromedriver", "--port=0"]).env("TMPDIR", profile.path());
        });
        let port = eventually(
            "a driver that listens (to mend: apt-get install chromium chromium-driver util-linux)",
            START,
            || {
                assert!(
                    !process.has_ended(),
                    "chromedriver ended:\n{}{}",
                    process.stdout(),
                    process.stderr()
                );
                let said = process.stdout();
                let (_, rest) = said.split_once("started successfully on port ")?;
                rest.split('.').next()?.trim().parse::<u16>().ok()
            },
        );
        let mut browser = Self {
            driver: (Ipv4Addr::LOCALHOST, port).into(),
            session: String::new(),
            _process: process,
            _profile: profile,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", browser._profile.path().join("profile").display()),
            &format!("--window-size={width},{height}"),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let begun = browser.call("POST", "/session", &wanted);
        browser.session = begun["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Goes to an address and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Runs a script in the page; what it returns.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Runs a script whose last argument is called with the result.
    pub fn run_async(&self, script: &str, arguments: &[Value]) -> Value {
        self.command("POST", "/execute/async", &json!({ "script": script, "args": arguments }))
    }

    /// What a selector finds first, as soon as it is there.
    pub fn find(&self, css: &str) -> Element<'_> {
        eventually(css, PATIENCE, || self.look(css))
    }

    /// What a selector finds first, if it is there now.
    #[must_use]
    pub fn look(&self, css: &str) -> Option<Element<'_>> {
        let found = self.command("POST", "/elements", &json!({ "using": "css selector", "value": css }));
        let id = found.get(0)?.get(ELEMENT)?.as_str()?.to_owned();
        Some(Element { browser: self, id })
    }

    /// Waits until the text that the page shows there has these words in it; all of it,
    /// with one space where it has a gap.
    ///
    /// # Panics
    /// It never has.
    pub fn reads(&self, css: &str, words: &str) -> String {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            let script =
                "return (document.querySelector(arguments[0])?.innerText ?? '').replace(/\\s+/g, ' ')";
            last = self.run(script, &[json!(css)]).as_str().unwrap_or_default().to_owned();
            if last.contains(words) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{css} never had the words {words:?}; at last it was:\n{last}\n{:#?}", self.console())
    }

    /// Presses keys where the focus is.
    pub fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let actions: Vec<Value> = each.collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.command("POST", "/actions", &body);
    }

    /// What the page and the browser had to complain about since the last call.
    #[must_use]
    pub fn console(&self) -> Vec<Value> {
        let said = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        said.as_array().cloned().unwrap_or_default()
    }

    /// Every address that the page asked for since the last call.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let told = self.command("POST", "/se/log", &json!({ "type": "performance" }));
        let events = told.as_array().cloned().unwrap_or_default();
        let url = |event: Value| {
            let event: Value = serde_json::from_str(event["message"].as_str()?).ok()?;
            let message = &event["message"];
            (message["method"] == "Network.requestWillBeSent")
                .then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        events.into_iter().filter_map(url).collect()
    }

    /// Lets the page think that its reader likes it dark or light.
    pub fn prefers(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Gives the page a screen of this size.
    pub fn screen(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// A picture of what is seen, PNG.
    #[must_use]
    pub fn picture(&self) -> Vec<u8> {
        let text = self.command("GET", "/screenshot", &Value::Null);
        data_encoding::BASE64.decode(text.as_str().unwrap_or_default().as_bytes()).expect("a picture")
    }

    fn devtools(&self, method: &str, parameters: &Value) {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": method, "params": parameters }));
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    /// One command of the protocol; its value.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.driver).expect("the driver answers");
        stream.set_read_timeout(Some(START)).expect("a socket");
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let length = body.len();
        let host = self.driver;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("the driver reads");
        let (head, body) = answer(&mut BufReader::new(stream)).expect("the driver answers");
        let value: Value = serde_json::from_slice(&body).expect("the driver answers with JSON");
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {:#}", value["value"]);
        value["value"].clone()
    }
}

/// Head and body of an answer. The driver keeps its connections, whatever it is told.
fn answer(stream: &mut impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; its driver is ended with its process.
        if let Ok(mut stream) = TcpStream::connect(self.driver) {
            let path = format!("/session/{}", self.session);
            let request =
                format!("DELETE {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.driver);
            // A test that failed has better things to tell.
            let _ended = stream.set_read_timeout(Some(PATIENCE));
            let _ended = stream.write_all(request.as_bytes());
            let _ended = answer(&mut BufReader::new(stream));
        }
    }
}

impl Element<'_> {
    /// Clicks it, as a person would.
    pub fn click(&self) {
        self.command("/click", &json!({}));
    }

    /// Writes into it.
    pub fn write(&self, text: &str) {
        self.command("/value", &json!({ "text": text }));
    }

    fn command(&self, path: &str, body: &Value) {
        self.browser.command("POST", &format!("/element/{}{path}", self.id), body);
    }
}
