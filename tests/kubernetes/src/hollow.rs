//! Hollow nodes: kubemark's kubelet, which registers, renews its lease and reports
//! like any other, over containers that are not real.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::components::LOCAL;
use crate::ports::free_port;
use crate::process::{Process, command_in, log_file};
use crate::programs::Program;

/// A hollow node's process. It is killed with this value.
pub struct HollowNode {
    process: Process,
    log: PathBuf,
}

impl Cluster {
    /// Starts a hollow node that is what its kubeconfig says. `flags` are
    /// kubemark's, such as `--node-labels=a=b`, `--register-with-taints=a=b:NoSchedule`,
    /// `--max-pods=10`, or `--bootstrap-kubeconfig=FILE` with `--cert-dir=FOLDER`.
    ///
    /// # Errors
    /// kubemark is missing, or this machine has no default route.
    pub fn hollow_node(&self, name: &str, kubeconfig: &Path, flags: &[&str]) -> Result<HollowNode> {
        default_route()?;
        let folder = self.folder.join(NODES).join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut kubemark = command_in(&self.folder, &self.programs.path(Program::Kubemark)?);
        // Its root directory is a temporary one.
        kubemark.env("TMPDIR", &folder);
        // Its log shall say where its runtime's socket is.
        kubemark.args(["--morph=kubelet", "--use-host-image-service=false", "--vmodule=remote_runtime=3"]);
        kubemark.arg(format!("--name={name}")).arg(format!("--kubeconfig={}", kubeconfig.display()));
        kubemark.arg(format!("--kubelet-port={}", free_port(LOCAL)?));
        kubemark.arg(format!("--kubelet-read-only-port={}", free_port(LOCAL)?));
        kubemark.args(flags);
        let process_name = format!("node-{name}");
        let process = Process::start(&self.folder, &process_name, kubemark)?;
        Ok(HollowNode { process, log: log_file(&self.folder, &process_name) })
    }
}

impl HollowNode {
    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The file of all that it says.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has ended by itself; with the end of its log.
    ///
    /// # Errors
    /// The system cannot say.
    pub fn ended(&mut self) -> Result<Option<String>> {
        let ended = self.process.ended()?;
        Ok(ended.map(|status| format!("ended with {status}; it said:\n{}", self.process.last_words())))
    }

    /// Lets it hang: its lease is not renewed.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(GRACE)
    }
}

impl Drop for HollowNode {
    fn drop(&mut self) {
        remove_sockets(&self.log);
    }
}

/// kubemark makes its runtime's socket in /tmp, whatever it is told, and leaves it
/// there. A node's log names it.
pub(crate) fn remove_sockets(log: &Path) {
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        let named = line.split_once("endpoint=\"unix://").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((socket, _)) = named
            && socket.starts_with("/tmp/kubelet_remote_")
        {
            // Gone already is as good.
            let _gone = fs::remove_file(socket);
        }
    }
}

/// True if the node in this JSON has the condition Ready.
pub(crate) fn is_ready(node: &str) -> bool {
    let node: Value = serde_json::from_str(node).unwrap_or_default();
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let text =
        |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).map(str::to_owned);
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| {
            text(condition, "type").as_deref() == Some("Ready")
                && text(condition, "status").as_deref() == Some("True")
        })
    })
}

/// A kubelet that is not told its address takes that of the default route, and
/// kubemark has no flag to tell it.
fn default_route() -> Result<()> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let default_v4 = v4.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    let default_v6 = v6.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00") && fields.last() != Some(&"lo")
    });
    if default_v4 || default_v6 {
        return Ok(());
    }
    bail!(
        "a hollow node takes its address from the default route, and this machine has none; to mend: \
         ip link add berth0 type dummy; ip address add 192.0.2.1/24 dev berth0; ip link set berth0 up; \
         ip route add default dev berth0"
    )
}

/// The folder of the nodes' folders.
pub(crate) const NODES: &str = "nodes";
const GRACE: Duration = Duration::from_secs(10);
