//! Other programs: how they are started here, waited for, and ended, whatever
//! happens in between.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The one way to start a program: in the workspace's root.
#[expect(clippy::disallowed_methods, reason = "the place where xtask starts processes")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// The root of the clone this was built in.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Runs a program to its end, its output before the viewer's eyes.
///
/// # Errors
/// It did not start, or ended with another status than 0.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let ended = command.status().with_context(|| format!("starting {}", spoken(command)))?;
    if !ended.success() {
        bail!("{} ended with {ended}", spoken(command));
    }
    Ok(())
}

/// From here on SIGINT and SIGTERM end the waits of this module with an error,
/// so that every value on the way is dropped and every process ended. A second
/// signal ends xtask at once.
pub(crate) fn heed_signals() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&INTERRUPTED))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)))
            .context("listening for signals")?;
    }
    Ok(())
}

/// Sleeps for a moment.
///
/// # Errors
/// Somebody wants this to end.
pub(crate) fn pause() -> Result<()> {
    thread::sleep(TICK);
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted; everything this started is ended");
    }
    Ok(())
}

/// What a program said and how it ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end; `heard` gets each line as it is said.
///
/// # Errors
/// It did not start, or was not done by the deadline, or somebody interrupts.
pub(crate) fn listen(
    command: &mut Command,
    within: Duration,
    mut heard: impl FnMut(&str),
) -> Result<Finished> {
    let deadline = Instant::now() + within;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", spoken(command)))?;
    let (said, lines) = channel();
    forward(child.stdout.take(), Stream::Out, said.clone());
    forward(child.stderr.take(), Stream::Err, said);
    let mut running = Running { child };
    let (mut stdout, mut stderr) = (String::new(), String::new());
    loop {
        match lines.recv_timeout(TICK) {
            Ok((stream, line)) => {
                heard(&line);
                let text = match stream {
                    Stream::Out => &mut stdout,
                    Stream::Err => &mut stderr,
                };
                text.push_str(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            pause()?;
        }
        if Instant::now() > deadline {
            bail!("{} was not done after {within:?}; it said:\n{stdout}{stderr}", spoken(command));
        }
    }
    let status = running.child.wait().context("waiting for a program to end")?;
    Ok(Finished { status, stdout, stderr })
}

/// A program in the background. It is ended with this value.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a program whose output goes to a file. Ctrl-C on the terminal does
    /// not reach it: it ends when it is told to.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let same = file.try_clone().context("sharing a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(same)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", spoken(command)))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking after a program")
    }

    /// Lets it outlive this process.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Failure means that it is gone, which is what is wanted.
            let _gone = kill_process(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if gone(&mut self.child) {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if gone(&mut self.child) {
                return;
            }
            thread::sleep(TICK);
        }
        self.signal(Signal::KILL);
        let _reaped = self.child.wait();
    }
}

/// Builds these packages' programs as a user would and says where each lies, in
/// the same order.
pub(crate) fn build(packages: &[&str], profile: &[&str]) -> Result<Vec<PathBuf>> {
    let chosen = packages.iter().flat_map(|package| ["--package", package]);
    let built = executables(&chosen.chain(["--bins"]).chain(profile.iter().copied()).collect::<Vec<_>>())?;
    packages.iter().map(|package| named(&built, package)).collect()
}

/// Builds an example of a package and says where it lies.
pub(crate) fn build_example(package: &str, example: &str, profile: &[&str]) -> Result<PathBuf> {
    let built = executables(&[&["--package", package, "--example", example], profile].concat())?;
    named(&built, example)
}

/// What `cargo build` made of these arguments that can be run.
fn executables(arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = command("cargo");
    cargo.args(["build", "--locked", "--message-format", "json-render-diagnostics"]).args(arguments);
    let built = cargo.stderr(Stdio::inherit()).output().context("starting cargo build")?;
    if !built.status.success() {
        bail!("cargo build ended with {}", built.status);
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from)).collect())
}

fn named(programs: &[PathBuf], name: &str) -> Result<PathBuf> {
    let program = programs.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
    program.cloned().with_context(|| format!("cargo build made no {name}"))
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// Sends each line; ends with the stream.
fn forward(from: Option<impl Read + Send + 'static>, stream: Stream, to: Sender<(Stream, String)>) {
    let Some(from) = from else { return };
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send((stream, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}

fn spoken(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// How often a wait looks up.
const TICK: Duration = Duration::from_millis(20);
/// What a program has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ended_with_its_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let sleeper =
            Running::start(command("sleep").arg("1000"), &folder.path().join("log")).expect("sleep starts");
        let of_the_process = PathBuf::from(format!("/proc/{}", sleeper.id()));
        assert!(of_the_process.exists());
        drop(sleeper);
        assert!(!of_the_process.exists());
    }

    #[test]
    fn what_a_program_says_is_heard_line_by_line() {
        let mut heard = Vec::new();
        let script = "echo one; sleep 0.1; echo two >&2; exit 4";
        let finished = listen(command("sh").args(["-c", script]), Duration::from_secs(10), |line| {
            heard.push(line.to_owned())
        })
        .expect("sh runs");
        assert_eq!(heard, ["one", "two"]);
        assert_eq!(
            (finished.status.code(), finished.stdout.as_str(), finished.stderr.as_str()),
            (Some(4), "one\n", "two\n")
        );
    }

    #[test]
    fn a_program_that_is_not_done_in_time_is_ended() {
        let started = Instant::now();
        let late = listen(command("sleep").arg("1000"), Duration::from_millis(50), |_| {});
        assert!(late.is_err_and(|error| error.to_string().contains("sleep 1000 was not done")));
        assert!(started.elapsed() < GRACE);
    }
}
