//! A machine in a container: berth-agent on a folder that stands for its disk, and
//! kubemark's kubelet once the agent has written what a kubelet needs. It ends with
//! either of them.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::MachineFiles;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::command;

/// Runs until told to stop, or until agent or kubelet ends.
pub(crate) fn run(disk: &Path, server: &str, token: &Path) -> Result<()> {
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop)).context("listening for signals")?;
    }
    // Beside it lies the kubelet's copy of the kubeconfig.
    let root = disk.join("root");
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let mut agent = Ended(start_agent(&root, server, token)?);
    let mut kubelet: Option<Ended> = None;
    while !told_to_stop.load(Ordering::Relaxed) {
        if let Some(status) = agent.0.try_wait().context("asking after the agent")? {
            bail!("the agent ended with {status}");
        }
        match &mut kubelet {
            Some(kubelet) => {
                if let Some(status) = kubelet.0.try_wait().context("asking after the kubelet")? {
                    bail!("the kubelet ended with {status}");
                }
            }
            None => {
                if let Some(files) = MachineFiles::of(&root)? {
                    kubelet = Some(Ended(start_kubelet(&files)?));
                }
            }
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// The token goes in by standard input: the agent removes a file that it has used,
/// and this one is for other machines too.
fn start_agent(root: &Path, server: &str, token: &Path) -> Result<Child> {
    let token = fs::File::open(token).with_context(|| format!("opening {}", token.display()))?;
    let mut agent = command("berth-agent");
    agent.args(["run", "--server", server, "--token-file", "-", "--root"]).arg(root);
    agent.stdin(Stdio::from(token)).spawn().context("starting berth-agent")
}

fn start_kubelet(files: &MachineFiles) -> Result<Child> {
    let mut kubelet = command("kubemark");
    kubelet.args(["--morph=kubelet", "--use-host-image-service=false", "--v=0"]);
    kubelet.arg(format!("--name={}", files.name()));
    kubelet.arg(format!("--kubeconfig={}", files.kubeconfig().display()));
    kubelet.args(["--kubelet-port=10250", "--kubelet-read-only-port=10255"]).args(files.flags());
    kubelet.stdin(Stdio::null()).spawn().context("starting kubemark")
}

/// A process that is ended with this value: asked first, and then killed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(id)) = (self.0.try_wait(), id) {
            // It may end at this very moment: then there is nobody to ask.
            let _gone = kill_process(id, Signal::TERM);
        }
        let asked = Instant::now();
        while let (Ok(None), true) = (self.0.try_wait(), asked.elapsed() < GRACE) {
            thread::sleep(POLL);
        }
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

const POLL: Duration = Duration::from_millis(25);
/// Less than half of what Docker gives a container: there are two to end.
const GRACE: Duration = Duration::from_secs(8);
