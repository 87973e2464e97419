//! Other programs: started here, waited for with a deadline.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status; nothing if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The one way to start a program here.
#[expect(clippy::disallowed_methods, reason = "the place where this crate starts processes")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs a program to its end, whatever its exit status.
///
/// # Errors
/// It did not start, or was not done in time and was killed.
pub(crate) fn finish(command: Command, within: Duration) -> Result<Ran> {
    finish_reading(command, Stdio::null(), within)
}

/// The same, with something to read.
pub(crate) fn finish_reading(mut command: Command, input: Stdio, within: Duration) -> Result<Ran> {
    let name = spoken(&command);
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + within;
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("asking after {name}"))? {
            break status;
        }
        if !late && Instant::now() > deadline {
            late = true;
            child.kill().with_context(|| format!("killing {name}"))?;
        }
        thread::sleep(TICK);
    };
    // What it has left in the background may hold its output open.
    let text = |said: Receiver<Vec<u8>>| -> Result<String> {
        let said = said.recv_timeout(deadline.saturating_duration_since(Instant::now()).max(TICK));
        let said = said.with_context(|| format!("{name} has ended, and its output has not"))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let ran = Ran { code: status.code(), stdout: text(stdout)?, stderr: text(stderr)? };
    if late {
        bail!("{name} was not done after {within:?}; it said:\n{}{}", ran.stdout, ran.stderr);
    }
    Ok(ran)
}

/// Runs a program that must succeed; its output.
///
/// # Errors
/// It did not, or not in time: with all that it said.
pub(crate) fn succeed(command: Command, within: Duration) -> Result<String> {
    let name = spoken(&command);
    let ran = finish(command, within)?;
    if ran.code != Some(0) {
        bail!("{name} ended with {:?}; it said:\n{}{}", ran.code, ran.stdout, ran.stderr);
    }
    Ok(ran.stdout)
}

fn collect(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, said) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before an error is kept.
            let _broken = from.read_to_end(&mut bytes);
        }
        // Nobody may be waiting any more.
        let _unheard = sender.send(bytes);
    });
    said
}

fn spoken(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The one child of a process, once it has one.
pub(crate) fn first_child(process: u32) -> Result<u32> {
    let deadline = Instant::now() + SOON;
    while Path::new(&format!("/proc/{process}")).exists() && Instant::now() < deadline {
        let entries = fs::read_dir("/proc").context("reading /proc")?.flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        if let Some(child) = { ids }.find(|id| parent(*id) == Some(process)) {
            return Ok(child);
        }
        thread::sleep(TICK);
    }
    bail!("a machine's first process did not start")
}

/// The parent of a process that lives.
pub(crate) fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may have anything in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    if state == "Z" { None } else { fields.next()?.parse().ok() }
}

/// How often a wait looks up.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// What a program may take that only asks the kernel for something.
pub(crate) const SOON: Duration = Duration::from_secs(20);
