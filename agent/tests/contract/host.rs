//! The contract of `Host`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use berth_agent::host::{Machine, MemoryHost, Node};
use berth_agent::plan::{Action, Found, Live, Plan, Step, changes};
use berth_agent::ports::{ApplyError, Host};
use berth_domain::facts::HostFacts;
use berth_domain::timestamp::Timestamp;

/// A host, and somebody else's hands on it.
trait World {
    fn host(&self) -> &dyn Host;
    fn put(&self, path: &str, node: Option<Node>);
    fn at(&self, path: &str) -> Option<Node>;
}

fn keeps_the_contract(fresh: &dyn Fn() -> Box<dyn World>) {
    a_plan_stands_once_it_is_applied(&*fresh());
    what_stands_already_is_kept(&*fresh());
    what_no_plan_replaces_stops_all_of_it(&*fresh());
    undo_brings_back_what_stood_there_before_the_first_plan(&*fresh());
    what_somebody_has_changed_since_is_left(&*fresh());
    only_what_berth_made_is_retired(&*fresh());
    elsewhere_than_on_the_running_system_nothing_is_loaded_or_set(&*fresh());
}

fn elsewhere_than_on_the_running_system_nothing_is_loaded_or_set(world: &dyn World) {
    let host = world.host();
    let plan = Plan {
        steps: vec![file("/etc/file", 0o644, "x")],
        live: vec![
            Live::Module { name: "no_such_module" },
            Live::Setting { name: "net.no_such_setting", value: "1" },
        ],
    };
    assert!(!host.installed().live && !host.see(&plan).is_live);
    let shown = changes(&plan, &host.see(&plan));
    assert!(shown.iter().any(|change| change.diff.contains("only on the running system")), "{shown:?}");
    let applied = host.apply(&plan, now()).expect("the files are all there is to do");
    assert_eq!(applied.live, [""; 0]);
    assert_eq!(world.at("/etc/file"), Some(node_file(0o644, "x")));
}

fn a_plan_stands_once_it_is_applied(world: &dyn World) {
    let host = world.host();
    let plan = Plan {
        steps: vec![
            file("/etc/a/b/file", 0o600, "one"),
            link("/etc/a/link", "b/file"),
            directory("/var/d", 0o700),
        ],
        ..Plan::default()
    };
    assert!(changes(&plan, &host.see(&plan)).iter().all(|change| change.action == Action::Create));
    let applied = host.apply(&plan, now()).expect("nothing is in the way");
    let wanted = ["/etc", "/etc/a", "/etc/a/b", "/etc/a/b/file", "/etc/a/link", "/var", "/var/d"];
    let made: Vec<&Path> =
        applied.changed.iter().map(PathBuf::as_path).filter(|path| *path != Path::new("/var")).collect();
    assert_eq!(
        made,
        wanted.iter().map(Path::new).filter(|path| *path != Path::new("/var")).collect::<Vec<_>>()
    );
    assert_eq!(applied.kept, 0);
    assert_eq!(world.at("/etc/a/b/file"), Some(node_file(0o600, "one")));
    assert_eq!(world.at("/etc/a/b"), Some(Node::Directory { mode: 0o755 }));
    assert_eq!(world.at("/var/d"), Some(Node::Directory { mode: 0o700 }));
    assert_eq!(host.see(&plan).at(Path::new("/etc/a/link")), &Found::Symlink { target: "b/file".into() });
    assert!(changes(&plan, &host.see(&plan)).iter().all(|change| change.action == Action::Keep));
}

fn what_stands_already_is_kept(world: &dyn World) {
    let host = world.host();
    world.put("/etc", Some(Node::Directory { mode: 0o755 }));
    world.put("/etc/narrow", Some(Node::Directory { mode: 0o700 }));
    world.put("/etc/same", Some(node_file(0o644, "same")));
    let plan = Plan {
        steps: vec![directory("/etc/narrow", 0o755), file("/etc/same", 0o644, "same")],
        ..Plan::default()
    };
    let applied = host.apply(&plan, now()).expect("nothing is in the way");
    assert_eq!((applied.changed, applied.kept), (Vec::new(), 2));
    assert_eq!(world.at("/etc/narrow"), Some(Node::Directory { mode: 0o700 }), "a narrower mode stays");
    let undone = host.undo(now()).expect("nothing to undo");
    assert_eq!(undone, Default::default());
    assert_eq!(
        world.at("/etc/same"),
        Some(node_file(0o644, "same")),
        "what Berth did not write is not its own"
    );
}

fn what_no_plan_replaces_stops_all_of_it(world: &dyn World) {
    world.put("/etc", Some(Node::Directory { mode: 0o755 }));
    world.put("/etc/dir", Some(Node::Directory { mode: 0o755 }));
    world.put("/etc/file", Some(node_file(0o644, "theirs")));
    for (step, path) in [
        (file("/etc/dir", 0o644, "x"), "/etc/dir"),
        (link("/etc/dir", "x"), "/etc/dir"),
        (directory("/etc/file", 0o755), "/etc/file"),
        (file("/etc/file/below", 0o644, "x"), "/etc/file"),
    ] {
        let plan = Plan { steps: vec![file("/etc/first", 0o644, "x"), step], ..Plan::default() };
        let refused = world.host().apply(&plan, now()).expect_err("something is in the way");
        assert!(
            matches!(refused, ApplyError::InTheWay { .. } | ApplyError::NotWritten { .. }),
            "{refused:?}"
        );
        assert!(refused.path().starts_with(path), "{refused:?}");
        assert_eq!(world.at("/etc/first"), None, "all steps or none");
    }
    assert_eq!(world.at("/etc/file"), Some(node_file(0o644, "theirs")));
}

fn undo_brings_back_what_stood_there_before_the_first_plan(world: &dyn World) {
    let host = world.host();
    world.put("/etc", Some(Node::Directory { mode: 0o755 }));
    world.put("/etc/file", Some(node_file(0o640, "theirs")));
    world.put("/etc/link", Some(Node::Symlink { target: "theirs".into() }));
    world.put("/etc/wide", Some(Node::Directory { mode: 0o777 }));
    for generation in ["one", "two"] {
        let plan = Plan {
            steps: vec![
                file("/etc/file", 0o600, generation),
                link("/etc/link", generation),
                directory("/etc/wide", 0o700),
                file("/etc/new/file", 0o600, generation),
            ],
            ..Plan::default()
        };
        host.apply(&plan, now()).expect("nothing is in the way");
        assert_eq!(world.at("/etc/file"), Some(node_file(0o600, generation)));
    }
    assert_eq!(world.at("/etc/wide"), Some(Node::Directory { mode: 0o700 }));
    let undone = host.undo(now()).expect("nothing is in the way");
    assert_eq!(world.at("/etc/file"), Some(node_file(0o640, "theirs")));
    assert_eq!(world.at("/etc/link"), Some(Node::Symlink { target: "theirs".into() }));
    assert_eq!(world.at("/etc/wide"), Some(Node::Directory { mode: 0o777 }));
    assert_eq!(world.at("/etc/new"), None);
    assert_eq!(undone.restored.len(), 3, "{undone:?}");
    assert_eq!(undone.removed, ["/etc/new/file", "/etc/new"].map(PathBuf::from));
    assert_eq!(undone.left, []);
    assert_eq!(host.undo(now()).expect("nothing to undo"), Default::default());
}

fn what_somebody_has_changed_since_is_left(world: &dyn World) {
    let host = world.host();
    let plan = Plan {
        steps: vec![
            file("/etc/a/edited", 0o644, "ours"),
            file("/etc/b/ours", 0o644, "ours"),
            directory("/etc/c", 0o755),
        ],
        ..Plan::default()
    };
    host.apply(&plan, now()).expect("nothing is in the way");
    world.put("/etc/a/edited", Some(node_file(0o644, "edited")));
    world.put("/etc/b/theirs", Some(node_file(0o644, "theirs")));
    world.put("/etc/c", Some(Node::Directory { mode: 0o750 }));
    let undone = host.undo(now()).expect("nothing is in the way");
    let left: Vec<&Path> = undone.left.iter().map(|left| left.path.as_path()).collect();
    assert_eq!(left, ["/etc/b", "/etc/a/edited", "/etc/a", "/etc"].map(Path::new));
    assert_eq!(world.at("/etc/a/edited"), Some(node_file(0o644, "edited")));
    assert_eq!(world.at("/etc/b/theirs"), Some(node_file(0o644, "theirs")));
    assert_eq!(world.at("/etc/b/ours"), None);
    assert_eq!(world.at("/etc/c"), None, "an empty directory goes, whatever its mode");
}

fn only_what_berth_made_is_retired(world: &dyn World) {
    let host = world.host();
    world.put("/pki", Some(Node::Directory { mode: 0o755 }));
    world.put("/pki/pem-0", Some(node_file(0o644, "theirs")));
    let plan = |name: &str, keep: &[&str]| Plan {
        steps: vec![
            file(&format!("/pki/{name}"), 0o600, name),
            Step::Retire {
                directory: "/pki".into(),
                prefix: "pem-".into(),
                keep: keep.iter().map(ToString::to_string).collect(),
            },
        ],
        ..Plan::default()
    };
    host.apply(&plan("pem-1", &["pem-1"]), now()).expect("nothing is in the way");
    host.apply(&plan("pem-2", &["pem-2", "pem-1"]), now()).expect("nothing is in the way");
    let third = plan("pem-3", &["pem-3", "pem-2"]);
    assert_eq!(host.see(&third).retired, [PathBuf::from("/pki/pem-1")]);
    host.apply(&third, now()).expect("nothing is in the way");
    assert_eq!(world.at("/pki/pem-1"), None);
    assert_eq!(world.at("/pki/pem-2"), Some(node_file(0o600, "pem-2")));
    assert_eq!(world.at("/pki/pem-0"), Some(node_file(0o644, "theirs")));
    assert_eq!(host.undo(now()).expect("nothing is in the way").left, []);
    assert_eq!(world.at("/pki/pem-3"), None);
}

#[test]
fn the_machine_keeps_the_contract() {
    keeps_the_contract(&|| {
        let root = tempfile::tempdir().expect("a directory");
        let host = Machine::at(root.path()).expect("a directory");
        Box::new(Real { root, host })
    });
}

#[test]
fn the_double_keeps_the_contract() {
    keeps_the_contract(&|| Box::new(MemoryHost::with(HostFacts::default())));
}

struct Real {
    root: tempfile::TempDir,
    host: Machine,
}

impl Real {
    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }
}

impl World for Real {
    fn host(&self) -> &dyn Host {
        &self.host
    }

    fn put(&self, path: &str, node: Option<Node>) {
        let path = self.path(path);
        let mode = match node {
            None => return fs::remove_file(path).expect("removable"),
            Some(Node::Symlink { target }) => return symlink(target, path).expect("writable"),
            Some(Node::Directory { mode }) => {
                fs::create_dir_all(&path).expect("writable");
                mode
            }
            Some(Node::File { mode, content }) => {
                fs::write(&path, content).expect("writable");
                mode
            }
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own");
    }

    fn at(&self, path: &str) -> Option<Node> {
        let path = self.path(path);
        let metadata = path.symlink_metadata().ok()?;
        let mode = metadata.mode() & 0o7777;
        Some(if metadata.is_symlink() {
            Node::Symlink { target: fs::read_link(path).expect("a link") }
        } else if metadata.is_dir() {
            Node::Directory { mode }
        } else {
            Node::File { mode, content: fs::read(path).expect("readable") }
        })
    }
}

impl World for MemoryHost {
    fn host(&self) -> &dyn Host {
        self
    }

    fn put(&self, path: &str, node: Option<Node>) {
        Self::put(self, Path::new(path), node);
    }

    fn at(&self, path: &str) -> Option<Node> {
        Self::at(self, Path::new(path))
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn node_file(mode: u32, text: &str) -> Node {
    Node::File { mode, content: text.as_bytes().to_vec() }
}

fn file(path: &str, mode: u32, text: &str) -> Step {
    Step::File { path: path.into(), mode, content: text.to_owned().into(), secret: false }
}

fn link(path: &str, target: &str) -> Step {
    Step::Symlink { path: path.into(), target: target.into() }
}

fn directory(path: &str, mode: u32) -> Step {
    Step::Directory { path: path.into(), mode }
}
