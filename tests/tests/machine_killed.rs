//! A machine is cut off while it joins: all its processes at once, with no last words,
//! at points spread over the join. Started again with the same disk and nobody's hands
//! on it, it becomes a node; each file is as before or as planned, then and at the end.
//!
//! The disk is in memory here, so what a cut takes of a real disk's cache is not
//! shown: that needs the power of a virtual machine.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops where something is not as expected"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use berth_agent::join::POINTS;
use berth_machine::Machine;
use berth_tests::{MachineWorld, eventually};

#[test]
fn a_machine_that_is_cut_off_while_it_joins_becomes_a_node_by_itself() {
    let Some(world) = MachineWorld::start() else { return };
    let began = Instant::now();
    let planned = of_a_join_that_nothing_cut(&world);
    let cuts: Vec<Cut> = POINTS.into_iter().map(Cut::Point).chain(SIGHTS.map(Cut::Sight)).collect();
    assert_eq!(cuts.len(), 20, "the points of a join have changed: choose others");
    // Each worker has one machine at a time: a disk is in memory.
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(cut) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    cut_off(&world, cut, &planned);
                }
            });
        }
    });
    println!("{} machines cut off, each a node at the end, in {:?}", cuts.len(), began.elapsed());
}

/// When a machine is cut off.
enum Cut {
    /// The agent passes one of its own points, right before or after an effect.
    Point(&'static str),
    /// Something is seen on the machine.
    Sight((&'static str, &'static str)),
}

impl Cut {
    fn name(&self) -> &'static str {
        match self {
            Self::Point(name) | Self::Sight((name, _)) => name,
        }
    }
}

/// What the agent has no point for: the runtime's and the kubelet's own steps, and
/// those of the network. A file that appears.
const SIGHTS: [(&str, &str); 7] = [
    ("software-comes", "/var/lib/berth/bundle/part"),
    ("runtime-answers", "/run/containerd/containerd.sock"),
    ("kubelet-writes", "/var/lib/kubelet/cpu_manager_state"),
    ("programs-are-laid", "/usr/local/bin/runc"),
    ("network-is-laid", "/etc/cni/net.d/10-berth.conflist"),
    ("kubelet-serves", "/var/lib/kubelet/pki/kubelet-server-current.pem"),
    ("node-attends", "/run/attends"),
];

/// Files as a join leaves them, by path, with what is the machine's own taken out.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a join writes, from one that nothing cut.
fn of_a_join_that_nothing_cut(world: &MachineWorld) -> Files {
    let mut machine = world.unattended("cut-none");
    let before = files(&machine);
    machine.power_on().expect("it starts");
    world.ready(&machine);
    let mut planned = files(&machine);
    planned.retain(|path, content| before.get(path) != Some(content));
    // What a first boot of any machine writes, and what the kubelet keeps for itself.
    planned.retain(|path, _| {
        !["etc/.updated", "etc/.pwd.lock", "etc/ld.so.cache"].iter().any(|of| path == Path::new(of))
    });
    planned.retain(|path, _| !path.to_string_lossy().ends_with("_state"));
    for path in ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/config.yaml", "usr/local/bin/kubelet"] {
        assert!(planned.contains_key(Path::new(path)), "{path} is not among {:?}", planned.keys());
    }
    gone(world, machine);
    planned
}

fn cut_off(world: &MachineWorld, cut: &Cut, planned: &Files) {
    let began = Instant::now();
    let mut machine = world.unattended(&format!("cut-{}", cut.name()));
    let drop_in = machine.on_disk(DROP_IN);
    fs::create_dir_all(drop_in.parent().expect("it has a parent")).expect("a directory");
    let (arrangement, seen) = match cut {
        Cut::Point(point) => (
            format!(
                "Restart=no\nExecStart=\nExecStart=/usr/local/bin/berth-agent run --crash-at {point}\nExecStopPost=/bin/touch /run/passed\n"
            ),
            "/run/passed",
        ),
        Cut::Sight((_, path)) => ("ExecStartPost=/bin/touch /run/attends\n".to_owned(), *path),
    };
    fs::write(&drop_in, format!("[Service]\n{arrangement}")).expect("a drop-in");
    machine.power_on().expect("it starts");
    seen_on(&machine, cut.name(), seen);
    machine.cut().expect("it is cut off");
    fs::remove_file(&drop_in).expect("it is there");
    files_are_old_or_planned(&machine, planned, cut.name());

    let (again, last_beat) = (Instant::now(), beat(world, &machine));
    machine.power_on().expect("it starts again");
    world.ready(&machine);
    eventually("the new start's kubelet speaks", PATIENCE, || {
        (beat(world, &machine) != last_beat).then_some(())
    });
    let after = files(&machine);
    for (path, content) in planned {
        let found =
            after.get(path).unwrap_or_else(|| panic!("{}: {} is missing", cut.name(), path.display()));
        assert!(found == content || is_own(path, found), "{}: {} is another", cut.name(), path.display());
    }
    let left = machine.sh("find / -xdev -name '*.berth-new' -o -path '/var/lib/berth/bundle/part/*'; find /var -xdev -name '*.berth-new'");
    assert_eq!(left.expect("a list"), "", "{}: what the cut has left", cut.name());
    gone(world, machine);
    println!("cut at {}: {:?}, Ready again after {:?}", cut.name(), again - began, again.elapsed());
}

/// Its Node goes while nobody can make it again and nobody else has its address: a node
/// with another's address gets no certificate.
fn gone(world: &MachineWorld, mut machine: Machine) {
    machine.cut().expect("it is cut off");
    world.kubectl(&["delete", "node", machine.name()]);
    machine.scrap().expect("it goes");
}

/// Waits until a file is there; so often that little happens between.
fn seen_on(machine: &Machine, what: &str, path: &str) {
    let root = machine.root().expect("it runs");
    let deadline = Instant::now() + PATIENCE;
    while fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_err() {
        if Instant::now() > deadline {
            let said = machine.sh(
                "systemctl show --property=StatusText berth-agent; systemctl status --no-pager kubelet containerd
                journalctl --no-pager --output=cat --lines=20 --unit=berth-agent --unit=kubelet",
            );
            panic!("{what} was not seen within {PATIENCE:?}:\n{}", said.unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What stands after the cut is as it was before, or as it was to be.
fn files_are_old_or_planned(machine: &Machine, planned: &Files, point: &str) {
    for (path, content) in files(machine) {
        let Some(wanted) = planned.get(&path) else { continue };
        assert!(
            content == *wanted || is_own(&path, &content),
            "{point}: {} is neither as before nor as planned:\n{}",
            path.display(),
            String::from_utf8_lossy(content.get(..2000).unwrap_or(&content))
        );
    }
}

/// Whether a file that differs from machine to machine is whole: keys, certificates,
/// the agent's record, the range of the node's pods.
fn is_own(path: &Path, content: &[u8]) -> bool {
    let of_its_own = OWN.iter().any(|own| path.starts_with(own));
    let text = String::from_utf8_lossy(content);
    let is_pem = text.starts_with("-----BEGIN ") && text.trim_end().ends_with("-----");
    of_its_own && (is_pem || serde_json::from_str::<serde_json::Value>(&text).is_ok())
}

/// When the kubelet last renewed its Lease, which it does first of all; nothing, if it
/// never did.
fn beat(world: &MachineWorld, machine: &Machine) -> String {
    let lease = ["get", "lease", "--namespace=kube-node-lease", "--ignore-not-found", machine.name()];
    world.kubectl(&[&lease[..], &["--output=jsonpath={.spec.renewTime}"]].concat())
}

/// All files of its own on a machine's disk.
fn files(machine: &Machine) -> Files {
    let mut found = Files::new();
    let name = machine.name().to_owned();
    let address = machine.address().expect("an address").to_string();
    for (root, at) in [("/etc", "etc"), ("/usr/local", "usr/local"), ("/opt", "opt")]
        .into_iter()
        .chain([("/var/lib/berth", "var/lib/berth"), ("/var/lib/kubelet", "var/lib/kubelet")])
    {
        walk(&machine.on_disk(root), Path::new(at), &mut |path, content| {
            let is_text = content.len() < 1 << 20 && !content.contains(&0);
            let content = match String::from_utf8(content) {
                Ok(text) if is_text => text.replace(&name, "NAME").replace(&address, "ADDRESS").into_bytes(),
                Ok(text) => text.into_bytes(),
                Err(bytes) => bytes.into_bytes(),
            };
            found.insert(path, content);
        });
    }
    found
}

fn walk(directory: &Path, at: &Path, found: &mut dyn FnMut(PathBuf, Vec<u8>)) {
    // What goes away while it is looked at was not there.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, at) = (entry.path(), at.join(entry.file_name()));
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let kind = metadata.file_type();
        // Pods' volumes and the kubelet's own state are no files of a plan.
        if kind.is_dir() && !NOT_PLANNED.iter().any(|other| at.starts_with(other)) {
            walk(&path, &at, found);
        } else if kind.is_file() && !at.to_string_lossy().ends_with(".berth-new") {
            found(at, fs::read(&path).unwrap_or_default());
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_default();
            found(at, target.to_string_lossy().into_owned().into_bytes());
        }
    }
}

const DROP_IN: &str = "/etc/systemd/system/berth-agent.service.d/90-cut.conf";
const OWN: [&str; 4] = ["var/lib/berth", "var/lib/kubelet/pki", "etc/cni/net.d", "etc/kubernetes/pki"];
const NOT_PLANNED: [&str; 6] = [
    "var/lib/kubelet/pods",
    "var/lib/kubelet/plugins",
    "var/lib/kubelet/plugins_registry",
    "var/lib/kubelet/device-plugins",
    "var/lib/kubelet/pki",
    "var/lib/berth/bundle",
];
/// As many machines as join at one time.
const AT_ONCE: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);
