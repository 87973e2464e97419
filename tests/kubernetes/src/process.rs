//! Processes of a cluster: started with a clean environment in a group of their
//! own, their output in a file, their id in another, ended by id.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The one way to start a program here.
#[expect(clippy::disallowed_methods, reason = "the place where a cluster's processes are started")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command of a cluster. It has nothing of this process's environment but the
/// path; the cluster's folder is its home, so it leaves no cache elsewhere.
pub(crate) fn command_in(folder: &Path, program: &Path) -> Command {
    let mut command = command(program);
    command.env_clear().env("HOME", folder).env(MARK, folder).current_dir(folder);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// A process in the background. It is killed with this value.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    id_file: PathBuf,
}

impl Process {
    /// Starts it; `name` names its log and the file with its id.
    pub(crate) fn start(folder: &Path, name: &str, mut command: Command) -> Result<Self> {
        let log = log_file(folder, name);
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("making {}", log.display()))?;
        let same = file.try_clone().context("sharing a log file")?;
        let child = command.stdout(file).stderr(same).spawn();
        let child = child.with_context(|| format!("starting {name}"))?;
        let id_file = folder.join(IDS).join(format!("{name}.pid"));
        let process = Self { child, log, id_file };
        fs::write(&process.id_file, process.id().to_string())
            .with_context(|| format!("writing {}", process.id_file.display()))?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking after a process")
    }

    /// Signals it, unless its end was seen: its id may be another's by now.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        match self.ended()? {
            None => kill(self.id(), signal),
            Some(status) => bail!("it has ended with {status}; it said:\n{}", self.last_words()),
        }
    }

    /// Asks it to end, and kills it if it has not within the grace.
    pub(crate) fn stop(&mut self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + grace;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill().context("killing a process that does not end")?;
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// The end of its log, for a message.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
    }

    /// Lets it outlive this process; its id stays in its file.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _gone_with_its_folder = fs::remove_file(&self.id_file);
    }
}

/// What a program said and how it ended.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
///
/// # Errors
/// It did not start, or was not done in time and was killed.
pub(crate) fn finish(mut command: Command, input: &str, within: Duration) -> Result<Finished> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why itself.
        let _unread = stdin.write_all(input.as_bytes());
    }
    let deadline = Instant::now() + within;
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait().context("asking after a process")? {
            break status;
        }
        if Instant::now() > deadline {
            late = true;
            child.kill().with_context(|| format!("killing {name}"))?;
        }
        thread::sleep(TICK);
    };
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    if late {
        bail!("{name} was not done after {within:?}; it said:\n{stdout}{stderr}");
    }
    Ok(Finished { code: status.code(), stdout, stderr })
}

/// Signals a process by its id. One that is gone is left in peace.
pub(crate) fn kill(id: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process has an id above 0")?;
    match kill_process(id, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signalling process {}", id.as_raw_nonzero())),
    }
}

/// True if the process was started for the cluster in this folder: an id that
/// was read from a file may by now be another's.
pub(crate) fn belongs(id: u32, folder: &Path) -> bool {
    let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    let mark = format!("{MARK}={}", folder.display());
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

pub(crate) fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(LOGS).join(format!("{name}.log"))
}

fn collect(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut from) = from {
            // What was read before an error is kept.
            let _broken = from.read_to_end(&mut said);
        }
        said
    })
}

/// The folder of a cluster's logs.
pub(crate) const LOGS: &str = "log";
/// The folder of the ids of a cluster's processes.
pub(crate) const IDS: &str = "run";
/// The variable by which a cluster's processes are known.
pub(crate) const MARK: &str = "BERTH_CLUSTER";
/// How often a wait looks up.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when its process fails.
const LAST_LINES: usize = 20;
