//! The end of a node on this machine: its units stopped, its pods ended, and what they
//! have mounted, linked and written taken away. What was there before stays. Each
//! step is safe to repeat: after a crash, the same again goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_domain::diagnosis::Diagnosis;
use berth_domain::phase::Phase;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::record::{Kept, LINKS, TREES, names};
use super::{NodeServices, packets, refused, routes};
use crate::host::cri::Cri;
use crate::host::{program, survey};
use crate::plan::{CONTAINERD, KUBELET};
use crate::ports::{Left, Undone};

/// How long all pods together may take to end. What runs on after that is killed.
const PODS: Duration = Duration::from_secs(30);

/// How long ip(8) may take.
const LINK: Duration = Duration::from_secs(5);

impl NodeServices {
    /// Ends the node's programs and all that they have made. Nothing to do is no
    /// error.
    ///
    /// # Errors
    /// The record cannot be read, or the service manager refuses to stop a unit.
    pub async fn end(&self) -> Result<Undone, Diagnosis> {
        let record =
            self.record.load().map_err(|error| self.record.not_kept(error, Phase::Initialization))?;
        let mut undone = Undone::default();
        let Some(expected) = record.expected().filter(|_| self.live) else { return Ok(undone) };
        // The kubelet first: it would start its pods again.
        self.stop(&record, KUBELET, &mut undone).await?;
        let ending = async { Cri::reach(Path::new(&expected.socket)).await?.end_pods().await };
        // What could not be ended so is killed below.
        let _ = timeout(PODS, ending).await;
        self.stop(&record, CONTAINERD, &mut undone).await?;
        let cleaned = tokio::task::spawn_blocking(move || {
            clean(&record, &mut undone);
            undone
        });
        cleaned
            .await
            .map_err(|error| self.record.not_kept(io::Error::other(error.to_string()), Phase::Initialization))
    }

    /// Stops the kubelet, if a join had started it: its node is no more. Its pods and
    /// files stay until [`NodeServices::end`].
    ///
    /// # Errors
    /// The record cannot be read, or the service manager refuses.
    pub async fn stop_kubelet(&self) -> Result<(), Diagnosis> {
        let record = self.record.load().map_err(|error| self.record.not_kept(error, Phase::Registration))?;
        if !self.live || record.expected().is_none() {
            return Ok(());
        }
        self.stop(&record, KUBELET, &mut Undone::default()).await
    }

    /// The units that [`NodeServices::end`] would stop.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn would_stop(&self) -> Result<Vec<String>, Diagnosis> {
        let record =
            self.record.load().map_err(|error| self.record.not_kept(error, Phase::Initialization))?;
        Ok(record.units().filter(|_| self.live).map(str::to_owned).collect())
    }

    /// Once the files are back: units that ran before run again, and the record is
    /// forgotten.
    ///
    /// # Errors
    /// The service manager refuses.
    pub async fn restore(&self) -> Result<(), Diagnosis> {
        let kept = |error| self.record.not_kept(error, Phase::Initialization);
        let record = self.record.load().map_err(kept)?;
        if self.live && record.units().next().is_some() {
            self.units.reload().await.map_err(refused)?;
            for name in record.units().filter(|name| record.ran_before(name)) {
                self.units.start(name).await.map_err(refused)?;
            }
        }
        self.record.forget().map_err(kept)
    }

    async fn stop(&self, record: &Kept, name: &str, undone: &mut Undone) -> Result<(), Diagnosis> {
        if record.units().any(|unit| unit == name) {
            self.units.stop(name).await.map_err(refused)?;
            undone.stopped.push(name.to_owned());
        }
        Ok(())
    }
}

/// What is left once nothing is started any more. Blocks.
fn clean(record: &Kept, undone: &mut Undone) {
    kill(record);
    unmount_all(record);
    for name in names(Path::new(LINKS)).difference(&record.links).filter(|name| is_bridge(name)) {
        match program::run("ip", &["link", "delete", name], LINK) {
            Ok(_) => undone.removed.push(Path::new(LINKS).join(name)),
            Err(_) => {
                undone.left.push(Left { path: Path::new(LINKS).join(name), why: "ip cannot delete it" })
            }
        }
    }
    if let Err(error) = routes::clear() {
        tracing::warn!(%error, "the routes to pods of other nodes were not removed");
    }
    if let Err(error) = packets::clean() {
        tracing::warn!(%error, "the packet filter's chains of pods were not removed");
    }
    for tree in TREES.iter().rev().filter(|tree| record.has_own_runtime() || !tree.contains("containerd")) {
        empty(Path::new(tree), record.trees.get(*tree), undone);
    }
}

/// Links that network add-ons make once a machine: those of pods end with them.
fn is_bridge(name: &str) -> bool {
    ["cni0", "cbr0", "flannel.1", "kube-ipvs0", "nodelocaldns"].contains(&name)
}

/// Kills what still runs in the pods' control groups, and shims without a runtime.
fn kill(record: &Kept) {
    let mut groups: Vec<PathBuf> = Vec::new();
    for hierarchy in hierarchies() {
        groups.extend(["kubepods", "kubepods.slice"].map(|name| hierarchy.join(name)));
        if record.has_own_runtime() {
            groups.push(hierarchy.join("system.slice").join(CONTAINERD));
        }
    }
    for _ in 0..KILL_ROUNDS {
        let pids: BTreeSet<i32> = groups.iter().flat_map(|group| members(group)).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // One that has ended meanwhile is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(KILL_STEP);
    }
    groups.iter().for_each(|group| remove_group(group));
}

/// The roots of the control groups: one on version 2, one a controller on version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = names(root).into_iter().map(|name| root.join(name)).filter(|path| path.is_dir());
    if root.join("cgroup.controllers").exists() { vec![root.to_owned()] } else { below.collect() }
}

fn members(group: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = listed.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(children(group).iter().flat_map(|child| members(child)));
    pids
}

fn children(group: &Path) -> Vec<PathBuf> {
    names(group).into_iter().map(|name| group.join(name)).filter(|path| path.is_dir()).collect()
}

/// A group that still has members stays; it is empty a moment later, or somebody's.
fn remove_group(group: &Path) {
    children(group).iter().for_each(|child| remove_group(child));
    let _ = fs::remove_dir(group);
}

/// Unmounts what pods and the runtime have mounted, the last mount first.
fn unmount_all(record: &Kept) {
    let mut points: Vec<PathBuf> = Vec::new();
    let _absent = survey::lines(Path::new("/proc/self/mountinfo"), |line| {
        let point = line.split(' ').nth(4).map(unescaped);
        points.extend(point.filter(|point| is_of_a_node(point, record)).map(PathBuf::from));
        std::ops::ControlFlow::Continue(())
    });
    for point in points.iter().rev() {
        if let Err(error) = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(%error, point = %point.display(), "a pod's mount stays");
        }
    }
    for name in names(Path::new(NETWORKS)).iter().filter(|name| name.starts_with("cni-")) {
        let _ = fs::remove_file(Path::new(NETWORKS).join(name));
    }
}

/// A disk that is mounted at one of these directories itself is the machine's.
fn is_of_a_node(point: &str, record: &Kept) -> bool {
    let below = |directory: &str| point.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    below("/var/lib/kubelet")
        || point.starts_with("/run/netns/cni-")
        || point.starts_with("/var/run/netns/cni-")
        || record.has_own_runtime() && (below("/run/containerd") || below("/var/lib/containerd"))
}

/// The kernel writes spaces and the like in octal (proc(5)).
fn unescaped(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(point.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Takes away what was not in a directory before the node ran, and the directory if it
/// was not there itself. Links are not followed.
fn empty(tree: &Path, before: Option<&Option<BTreeSet<String>>>, undone: &mut Undone) {
    // Nobody knows what was there: then nothing is taken away.
    let Some(before) = before else { return };
    let was_there = before.clone().unwrap_or_default();
    for name in names(tree).difference(&was_there) {
        let path = tree.join(name);
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => undone.removed.push(path),
            Err(_) => undone.left.push(Left { path, why: "it cannot be removed" }),
        }
    }
    if before.is_none() && fs::remove_dir(tree).is_ok() {
        undone.removed.push(tree.to_owned());
    }
}

const NETWORKS: &str = "/run/netns";
const KILL_ROUNDS: u32 = 50;
const KILL_STEP: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_with_the_node_is_taken_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = directory.path().join("tree");
        let outside = directory.path().join("outside");
        fs::create_dir_all(tree.join("pods/uid")).expect("directories");
        fs::create_dir_all(&outside).expect("a directory");
        fs::write(outside.join("theirs"), "x").expect("a file");
        fs::write(tree.join("config.yaml"), "x").expect("a file");
        fs::write(tree.join("cpu_manager_state"), "x").expect("a file");
        std::os::unix::fs::symlink(&outside, tree.join("pods/uid/link")).expect("a link");
        let before = BTreeSet::from(["config.yaml".to_owned()]);
        let mut undone = Undone::default();
        empty(&tree, Some(&Some(before.clone())), &mut undone);
        assert_eq!(names(&tree), before);
        assert!(outside.join("theirs").exists(), "links are not followed");
        assert_eq!((undone.removed.len(), undone.left.len()), (2, 0));
        empty(&tree, None, &mut undone);
        assert_eq!(names(&tree), before, "without a record nothing goes");
        empty(&tree, Some(&None), &mut undone);
        assert!(!tree.exists(), "it was not there");
    }

    #[test]
    fn a_disk_of_the_machine_stays_mounted() {
        let none = Kept::default();
        assert!(!is_of_a_node("/var/lib/kubelet", &none), "the directory's own disk");
        assert!(is_of_a_node("/var/lib/kubelet/pods/x/volumes/y", &none));
        assert!(!is_of_a_node("/var/lib/kubelet-data/x", &none));
        assert!(is_of_a_node("/run/netns/cni-1234", &none));
        assert!(!is_of_a_node("/run/netns/mine", &none));
        assert!(!is_of_a_node("/run/containerd/x/rootfs", &none), "somebody else's runtime");
    }
}
