//! What is installed that has to do with being a node: runtimes, kubelet, tools.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use berth_domain::facts::{Arch, Kubelet, Runtime, RuntimeState, bounds};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{Roots, Versions, read};

/// Where container runtimes listen, by the runtime that usually does.
pub(in crate::host) const SOCKETS: [(&str, &str); 4] = [
    ("containerd", "/run/containerd/containerd.sock"),
    ("cri-o", "/run/crio/crio.sock"),
    ("cri-dockerd", "/run/cri-dockerd.sock"),
    ("k3s containerd", "/run/k3s/containerd/containerd.sock"),
];

/// Where a kubelet may be.
pub(in crate::host) const KUBELETS: [&str; 4] =
    ["/usr/bin/kubelet", "/usr/local/bin/kubelet", "/opt/bin/kubelet", "/usr/sbin/kubelet"];

const TOOLS: [&str; 8] = ["mount", "umount", "modprobe", "nsenter", "iptables", "nft", "conntrack", "ip"];

/// Where programs may be; `/opt/bin` on systems whose `/usr` is read-only.
const PROGRAM_DIRECTORIES: [&str; 7] =
    ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", "opt/bin"];

/// How long the kubelet may take to say its version.
const KUBELET_DEADLINE: Duration = Duration::from_secs(2);

/// Runtimes whose socket exists; none has been asked yet.
pub(super) fn runtimes(roots: &Roots) -> Vec<Runtime> {
    let is_socket = |path: &str| {
        let metadata = fs::metadata(read::below(&roots.live, path));
        metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
    };
    let found = SOCKETS.iter().filter(|(_, socket)| is_socket(socket));
    found
        .map(|(name, socket)| Runtime {
            name: (*name).to_owned(),
            socket: (*socket).to_owned(),
            version: None,
            state: RuntimeState::SocketFound,
            problem: None,
        })
        .collect()
}

/// The first kubelet that can be found, with the architecture its header tells.
pub(super) fn kubelet(roots: &Roots) -> Option<Kubelet> {
    let path = first(&roots.live, &KUBELETS)?;
    let header = read::bytes(&read::below(&roots.live, path), 20).unwrap_or_default();
    Some(Kubelet { path: path.to_owned(), arch: Arch::from_elf_header(&header), version: None })
}

pub(super) fn tools(roots: &Roots) -> BTreeMap<String, Option<String>> {
    TOOLS.iter().map(|tool| ((*tool).to_owned(), program(&roots.live, tool))).collect()
}

/// Where a program of this name is below a root, as the node sees it.
pub(in crate::host) fn program(root: &Path, name: &str) -> Option<String> {
    let paths = PROGRAM_DIRECTORIES.iter().map(|directory| format!("/{directory}/{name}"));
    paths.into_iter().find(|path| is_program(&read::below(root, path)))
}

/// The first of these that is a program below a root.
pub(super) fn first(root: &Path, paths: &[&'static str]) -> Option<&'static str> {
    paths.iter().copied().find(|path| is_program(&read::below(root, path)))
}

/// What `kubelet --version` says, if the kubelet is built for this machine:
/// the header tells more about the others than the failure to run them would.
pub(super) async fn kubelet_version(
    roots: &Roots,
    kubelet: Option<&Kubelet>,
    arch: Option<Arch>,
    versions: &Versions,
) -> Option<String> {
    let kubelet = kubelet.filter(|kubelet| arch.is_some() && kubelet.arch == arch)?;
    let path = read::below(&roots.live, &kubelet.path);
    versions.of(&path, printed_version(&path, KUBELET_DEADLINE)).await
}

/// Runs `program --version` and takes the last word of the first line it
/// prints. It is killed at the deadline.
async fn printed_version(program: &Path, deadline: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env_clear()
        // It prints a word and ends: a collector and threads for it are a third of its cost.
        .envs([("GOGC", "off"), ("GOMAXPROCS", "1")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = on_one_processor(|| command.spawn()).ok()?;
    let mut output = Vec::new();
    let stdout = child.stdout.take()?.take(4096);
    let read = async {
        let mut stdout = stdout;
        stdout.read_to_end(&mut output).await
    };
    let ended = tokio::time::timeout(deadline, read).await;
    // Killed or ended, the child is waited for, so that no zombie is left.
    let _ = child.kill().await;
    ended.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().next()?.split_whitespace().last().map(bounds::text)
}

/// Starts a program that may use but the processor on which this is called: one whose
/// threads only wait for each other costs less when they need not wake up another.
fn on_one_processor<T>(start: impl FnOnce() -> T) -> T {
    let own = sched_getaffinity(None).ok();
    let here = Some(sched_getcpu()).filter(|cpu| *cpu < CpuSet::MAX_CPU);
    let narrowed = own.zip(here).filter(|(_, cpu)| {
        let mut one = CpuSet::new();
        one.set(*cpu);
        sched_setaffinity(None, &one).is_ok()
    });
    let started = start();
    if let Some((own, _)) = narrowed {
        // It fails where the machine has taken away all of them, and then given others.
        let _ = sched_setaffinity(None, &own);
    }
    started
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn script(directory: &Path, text: &str) -> std::path::PathBuf {
        let path = directory.join("kubelet");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
        path
    }

    #[tokio::test]
    async fn a_kubelet_tells_its_version() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = script(directory.path(), "echo Kubernetes v1.36.1");
        assert_eq!(printed_version(&path, Duration::from_secs(10)).await.as_deref(), Some("v1.36.1"));
        let path = script(directory.path(), "exit 1");
        assert_eq!(printed_version(&path, Duration::from_secs(10)).await, None);
    }

    #[tokio::test]
    async fn a_kubelet_is_run_once_until_its_file_is_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let runs = directory.path().join("runs");
        let versions = Versions::default();
        let said = async |text: &str| {
            let path = script(directory.path(), &format!("echo >>{}; {text}", runs.display()));
            let mut heard = Vec::new();
            for _ in 0..3 {
                let ask = printed_version(&path, Duration::from_secs(10));
                heard.push(versions.of(&path, ask).await);
            }
            (heard, fs::read_to_string(&runs).unwrap_or_default().lines().count())
        };
        let thrice = |version: &str| vec![Some(version.to_owned()); 3];
        assert_eq!(said("echo Kubernetes v1.36.1").await, (thrice("v1.36.1"), 1));
        assert_eq!(said("echo Kubernetes v1.36.2").await, (thrice("v1.36.2"), 2));
        assert_eq!(said("exit 1 # asked again").await, (vec![None; 3], 5));
        assert_eq!(said("echo Kubernetes v1.36.1").await, (thrice("v1.36.1"), 6));
    }

    #[tokio::test]
    async fn it_is_asked_on_one_processor_and_the_agent_keeps_all_of_its_own() {
        let before = sched_getaffinity(None).expect("affinity");
        let directory = tempfile::tempdir().expect("a directory");
        let path = script(directory.path(), "exec grep Cpus_allowed_list /proc/self/status");
        let allowed = printed_version(&path, Duration::from_secs(10)).await.expect("a list");
        assert!(allowed.parse::<usize>().is_ok_and(|cpu| before.is_set(cpu)), "{allowed}");
        assert_eq!(sched_getaffinity(None).expect("affinity"), before);
    }

    #[tokio::test]
    async fn a_kubelet_that_hangs_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = script(directory.path(), "exec sleep 60");
        let start = Instant::now();
        assert_eq!(printed_version(&path, Duration::from_millis(50)).await, None);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
