//! Chromium without a window, driven by W3C WebDriver over plain HTTP: enough to open a
//! page as a person does, to read it, and to keep a picture.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command;
use crate::jaeger::free_addresses;
use crate::programs::not_run;

/// A browser; it ends with this value.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    // Its profile; Chromium leaves things there.
    _folder: TempDir,
}

impl Browser {
    /// Opens one. Nothing, said loudly, where there is none.
    ///
    /// # Errors
    /// It does not start; or there is none where `CI` is true.
    pub fn open() -> Result<Option<Self>> {
        if !Path::new(DRIVER).exists() {
            not_run("no browser; to mend: apt-get install chromium chromium-driver")?;
            return Ok(None);
        }
        let [address] = free_addresses()?;
        let folder = tempfile::Builder::new().prefix("berth-browser-").tempdir();
        let folder = folder.context("making a folder for a browser")?;
        // Its browser is no child of ours: all of its processes are in a namespace that ends
        // with the driver, and that with this process.
        let mut driver = command("setpriv");
        driver.args(["--pdeathsig", "KILL", "--", "unshare", "--user", "--map-root-user", "--pid"]);
        driver.args(["--fork", "--kill-child", "--mount-proc", "--", DRIVER]);
        driver.arg(format!("--port={}", address.port()));
        driver.env("HOME", folder.path()).env("TMPDIR", folder.path());
        let driver = driver.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let driver = driver.context("starting chromedriver")?;
        let mut browser = Self { driver, address, session: String::new(), _folder: folder };
        browser.begin()?;
        Ok(Some(browser))
    }

    /// Opens a page and waits until an element of this CSS selector is there.
    ///
    /// # Errors
    /// It does not come.
    pub fn go_to(&self, url: &str, selector: &str) -> Result<()> {
        self.ask("POST", "/url", &json!({ "url": url }))?;
        let element = json!({ "using": "css selector", "value": selector });
        self.ask("POST", "/element", &element).with_context(|| format!("waiting for {selector} of {url}"))?;
        Ok(())
    }

    /// All text that the page shows.
    ///
    /// # Errors
    /// The page is gone.
    pub fn text(&self) -> Result<String> {
        let script = json!({ "script": "return document.body.innerText", "args": [] });
        let said = self.ask("POST", "/execute/sync", &script)?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// What the page has complained of on its console.
    ///
    /// # Errors
    /// The page is gone.
    pub fn complaints(&self) -> Result<Vec<Value>> {
        let said = self.ask("POST", "/se/log", &json!({ "type": "browser" }))?;
        let entries = said.as_array().cloned().unwrap_or_default();
        Ok(entries.into_iter().filter(|entry| entry["level"] == "SEVERE").collect())
    }

    /// Keeps a picture of the page, PNG.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let said = self.ask("GET", "/screenshot", &Value::Null)?;
        let bytes =
            BASE64.decode(said.as_str().unwrap_or_default().as_bytes()).context("reading a picture")?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    fn begin(&mut self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if began.elapsed() > READY_WITHIN {
                bail!("chromedriver does not answer after {READY_WITHIN:?}");
            }
            thread::sleep(POLL);
        }
        // Root has no sandbox there, and a test's page is its own.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1400,1000",
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": BROWSER, "args": arguments },
            "timeouts": { "implicit": 30_000, "pageLoad": 60_000, "script": 30_000 },
        } } });
        let begun = request(self.address, "POST", "/session", &capabilities)?;
        let session = begun.pointer("/sessionId").and_then(Value::as_str).context("no session")?;
        session.clone_into(&mut self.session);
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        request(self.address, method, &format!("/session/{}{path}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; its driver is ours to end.
        let _gone = self.ask("DELETE", "", &Value::Null);
        let _ended = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}

/// One question to the driver; its `value`.
fn request(address: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(address).context("reaching chromedriver")?;
    stream.set_read_timeout(Some(ANSWER)).context("setting a deadline")?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .context("asking chromedriver")?;
    let mut answer = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).context("hearing chromedriver")?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut bytes = vec![0; length.context("chromedriver says no length")?];
    answer.read_exact(&mut bytes).context("hearing chromedriver")?;
    let said: Value = serde_json::from_slice(&bytes).context("reading chromedriver's answer")?;
    let value = said.get("value").cloned().unwrap_or_default();
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
        bail!("{method} {path}: {error}: {message}");
    }
    Ok(value)
}

const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";
const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
