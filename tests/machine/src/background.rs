//! Programs that live as long as their world: known by their name, ended by
//! `clear.sh`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{SOON, TICK};

/// Starts one; the file of what it says.
pub(crate) fn start(world: &Path, name: &str, mut program: Command) -> Result<PathBuf> {
    let log = log(world, name);
    let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let same = file.try_clone().context("sharing a log file")?;
    program.stdin(Stdio::null()).stdout(file).stderr(same).process_group(0);
    let mut child = program.env(MARK, world).spawn().with_context(|| format!("starting {name}"))?;
    fs::write(with_id(&log), child.id().to_string()).context("writing the id of a process")?;
    // Reaped when it ends, however long it lives.
    thread::spawn(move || child.wait());
    Ok(log)
}

/// The process of this name, if it runs and is this world's.
pub(crate) fn running(world: &Path, name: &str) -> Option<u32> {
    let id = fs::read_to_string(with_id(&log(world, name))).ok()?;
    let id: u32 = id.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let has_ended = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
    let mark = format!("{MARK}={}", world.display());
    // One that is just becoming another program has no environment for a moment.
    let is_ours = environment.is_empty()
        || environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
    (is_ours && !has_ended).then_some(id)
}

/// Kills one, and waits until nothing of it is left: what it held is free then.
pub(crate) fn end(world: &Path, name: &str) -> Result<()> {
    let Some(id) = running(world, name) else { return Ok(()) };
    let process = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process has an id above 0")?;
    kill_process(process, Signal::KILL).with_context(|| format!("ending {name}"))?;
    let deadline = Instant::now() + SOON;
    // Its threads may outlive its own end, until it is reaped.
    while Path::new(&format!("/proc/{id}")).exists() {
        if Instant::now() > deadline {
            bail!("{name} (process {id}) does not end");
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// What one has said.
pub(crate) fn said(world: &Path, name: &str) -> String {
    fs::read_to_string(log(world, name)).unwrap_or_default()
}

/// The file of a process's id. A name may have a dot in it.
fn with_id(log: &Path) -> PathBuf {
    log.with_extension("pid")
}

fn log(world: &Path, name: &str) -> PathBuf {
    world.join(PROCESSES).join(format!("{name}.log"))
}

/// The folder of the ids and logs.
pub(crate) const PROCESSES: &str = "processes";
/// The variable by which a world's processes are known.
pub(crate) const MARK: &str = "BERTH_WORLD";
