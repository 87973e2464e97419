//! Processes of a world: started with a clean environment, their output kept,
//! ended by id.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A process that has ended, and all that it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Both outputs, for a message.
    #[must_use]
    pub fn all(&self) -> String {
        format!("exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// The same, if it ended well.
    #[must_use]
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.all());
        self
    }

    /// Its standard output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{}", self.all()))
    }
}

/// A process that runs; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts a program of the project.
    #[must_use]
    pub fn start(program: &str, arrange: impl FnOnce(&mut Command)) -> Self {
        Self::start_command(Command::new(binary(program)), arrange)
    }

    /// Starts any command, with nothing of this process's environment but the path.
    #[must_use]
    pub fn start_command(mut command: Command, arrange: impl FnOnce(&mut Command)) -> Self {
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        arrange(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut readers = Vec::new();
        let stdout = drain(child.stdout.take(), &mut readers);
        let stderr = drain(child.stderr.take(), &mut readers);
        Self { child, stdout, stderr, readers }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Writes to its standard input, if that was left open, and closes it.
    pub fn type_in(&mut self, typed: &str) {
        use std::io::Write as _;
        let mut stdin = self.child.stdin.take().expect("standard input was left open");
        stdin.write_all(typed.as_bytes()).expect("the process reads");
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// SIGKILL: no last words.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        self.collect(status)
    }

    /// SIGTERM, then its own end within the patience.
    pub fn terminate(self, patience: Duration) -> Ended {
        let id = i32::try_from(self.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        // It may have ended by itself just now.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.wait(patience)
    }

    /// Waits for its own end.
    pub fn wait(mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return self.collect(status);
            }
            if Instant::now() > deadline {
                self.child.kill().expect("it is our child");
                let status = self.child.wait().expect("it is our child");
                let ended = self.collect(status);
                panic!("it did not end within {patience:?}\n{}", ended.all());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn collect(&mut self, status: ExitStatus) -> Ended {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Looks again and again until something is there.
///
/// # Panics
/// It was not there within the patience; says what was looked for.
pub fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} was not seen within {patience:?}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A program of the system, to be started in a world.
#[must_use]
pub fn system_program(name: &str) -> Command {
    Command::new(name)
}

/// The path of a program of the project, built once for this test process.
pub fn binary(program: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "berth-server", "--package", "berth-agent", "--bins"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "berth-server and berth-agent do not build");
        let mut path = std::env::current_exe().expect("this test has a path");
        path.pop();
        if path.ends_with("deps") {
            path.pop();
        }
        path
    });
    directory.join(program)
}

fn drain<R: std::io::Read + Send + 'static>(
    from: Option<R>,
    readers: &mut Vec<JoinHandle<()>>,
) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    if let Some(mut from) = from {
        let kept = Arc::clone(&kept);
        readers.push(std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut chunk) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(chunk.get(..read).unwrap_or_default());
            }
        }));
    }
    kept
}

fn text(kept: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}
