//! A Docker of a test's own: its data, socket and processes are below one folder, and
//! it ends with this value or with this process. Start it in a network of its own
//! ([`alone`](crate::alone)).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command;
use crate::docker::Docker;
use crate::programs::not_run;

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    folder: Option<TempDir>,
    docker: Docker,
}

impl Daemon {
    /// Starts one. Nothing, said loudly, where there is no Docker to start.
    ///
    /// # Errors
    /// It does not answer in time, with the end of its log; or there is none where
    /// `CI` is true.
    pub fn start() -> Result<Option<Self>> {
        if !Path::new(PROGRAM).exists() {
            not_run("no Docker daemon to start; to mend: apt-get install docker.io docker-compose")?;
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("berth-docker-").tempdir();
        let folder = folder.context("making a folder for Docker")?;
        let path = |name: &str| folder.path().join(name);
        let log = path("dockerd.log");
        let file = File::create(&log).context("making Docker's log")?;
        // Should this process be killed, the daemon is told to end all the same.
        let mut dockerd = command("setpriv");
        dockerd.args(["--pdeathsig", "TERM", "--", PROGRAM]);
        dockerd.arg("--host").arg(format!("unix://{}", path("docker.sock").display()));
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "docker.pid")] {
            dockerd.arg(flag).arg(path(name));
        }
        dockerd.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "warn"]);
        let same = file.try_clone().context("sharing a log file")?;
        let child = dockerd.stdin(Stdio::null()).stdout(file).stderr(same).spawn();
        let child = child.context("starting dockerd; to mend: apt-get install docker.io util-linux")?;
        let mut starting = Starting { child: Some(child), log };
        let docker = starting.until_it_answers(&path("docker.sock"))?;
        let child = starting.child.take().context("the daemon runs")?;
        Ok(Some(Self { child, folder: Some(folder), docker }))
    }

    /// Its command line.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Ends it, and says whether anything was left behind.
    ///
    /// # Errors
    /// It did not end in time, or left mounts or files.
    pub fn end(mut self) -> Result<()> {
        end(&mut self.child)?;
        let folder = self.folder.take().context("it has a folder")?;
        let path = folder.path().to_owned();
        folder.close().with_context(|| format!("removing {}", path.display()))?;
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        if let Some(left) = mounts.lines().find(|line| line.contains(&*path.to_string_lossy())) {
            bail!("a mount was left behind: {left}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed has its own say.
        let _late = end(&mut self.child);
    }
}

/// A daemon that may yet fail.
struct Starting {
    child: Option<Child>,
    log: PathBuf,
}

impl Starting {
    fn until_it_answers(&mut self, socket: &Path) -> Result<Docker> {
        let began = Instant::now();
        loop {
            if socket.exists()
                && let Ok(docker) = Docker::at(Some(socket))
            {
                return Ok(docker);
            }
            let ended =
                self.child.as_mut().map(Child::try_wait).transpose().context("asking after dockerd")?;
            if ended.flatten().is_some() || began.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
                bail!("dockerd does not answer after {:?}; it said:\n{last}", began.elapsed());
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _late = end(child);
        }
    }
}

/// Asks a process to end, and kills it if it has not within the grace.
fn end(child: &mut Child) -> Result<()> {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (None, Some(id)) = (child.try_wait().context("asking after dockerd")?, id) {
        kill_process(id, Signal::TERM).context("asking dockerd to end")?;
    }
    let asked = Instant::now();
    while child.try_wait().context("asking after dockerd")?.is_none() {
        if asked.elapsed() > GRACE {
            child.kill().context("killing dockerd")?;
            child.wait().context("waiting for dockerd")?;
            bail!("dockerd did not end within {GRACE:?} and was killed");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

const PROGRAM: &str = "/usr/sbin/dockerd";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Docker gives its containers 15 s, and has 20 of them to end at worst.
const GRACE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
