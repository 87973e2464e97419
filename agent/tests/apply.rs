//! Somebody else's links, pipes and directories in the agent's way, and an
//! umask that is not the usual one.

#![expect(clippy::expect_used, reason = "a test fails where something is not as expected")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use berth_agent::host::Machine;
use berth_agent::plan::{Action, Found, Plan, Step, Style, changes, diff};
use berth_agent::ports::{ApplyError, Host as _};
use berth_domain::diagnosis::Code;
use berth_domain::phase::Phase;
use berth_domain::timestamp::Timestamp;

const DEEP: &str = "/etc/kubernetes/pki/ca.crt";

/// A root, and a directory beside it that the agent must never touch.
struct World {
    both: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let both = tempfile::tempdir().expect("a directory");
        fs::create_dir(both.path().join("root")).expect("writable");
        fs::create_dir_all(both.path().join("outside/kubernetes/pki")).expect("writable");
        fs::write(both.path().join("outside/victim"), "keep").expect("writable");
        Self { both }
    }

    fn root(&self) -> PathBuf {
        self.both.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.both.path().join("outside")
    }

    fn machine(&self) -> Machine {
        Machine::at(&self.root()).expect("a directory")
    }

    fn nothing_happened_outside(&self) {
        assert_eq!(fs::read_to_string(self.outside().join("victim")).expect("there"), "keep");
        assert_eq!(fs::read_dir(self.outside()).expect("readable").count(), 2);
        assert_eq!(fs::read_dir(self.outside().join("kubernetes/pki")).expect("readable").count(), 0);
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn plan() -> Plan {
    Plan {
        steps: vec![
            file("/etc/first", "first"),
            file(DEEP, "ours"),
            Step::Symlink { path: "/etc/kubernetes/current".into(), target: "pki/ca.crt".into() },
        ],
        ..Plan::default()
    }
}

fn file(path: &str, text: &str) -> Step {
    Step::File { path: path.into(), mode: 0o640, content: text.to_owned().into(), secret: false }
}

#[test]
fn a_link_at_any_component_stops_the_plan_before_it_changes_anything() {
    for planted in ["etc/kubernetes", "etc/kubernetes/pki"] {
        let world = World::new();
        let link = world.root().join(planted);
        fs::create_dir_all(link.parent().expect("a parent")).expect("writable");
        let target = world.outside().join(planted.trim_start_matches("etc/"));
        symlink(target, &link).expect("writable");
        let refused = world.machine().apply(&plan(), now()).expect_err("a link is in the way");
        assert!(
            matches!(&refused, ApplyError::InTheWay { .. } | ApplyError::NotWritten { .. }),
            "{refused:?}"
        );
        let why = refused.into_diagnosis(Phase::Configuration);
        assert_eq!(why.code(), Code::FileNotWritten);
        assert!(why.cause().contains("symbolic link"), "{}", why.cause());
        assert!(!world.root().join("etc/first").exists(), "{planted}");
        world.nothing_happened_outside();
    }
}

#[test]
fn a_link_at_the_first_component_is_no_way_out_either() {
    let world = World::new();
    symlink(world.outside(), world.root().join("etc")).expect("writable");
    world.machine().apply(&plan(), now()).expect_err("a link is in the way");
    world.nothing_happened_outside();
    let world = World::new();
    symlink(world.outside(), world.root().join("var")).expect("writable");
    world.machine().apply(&plan(), now()).expect_err("the record would lie outside");
    world.nothing_happened_outside();
    assert!(!world.root().join("etc").exists());
}

#[test]
fn a_link_at_the_last_component_is_replaced_and_comes_back() {
    let world = World::new();
    let victim = world.outside().join("victim");
    fs::create_dir_all(world.root().join("etc/kubernetes/pki")).expect("writable");
    for path in [DEEP, "/etc/kubernetes/current", "/etc/first"] {
        symlink(&victim, world.root().join(path.trim_start_matches('/'))).expect("writable");
    }
    for beside in ["etc/kubernetes/pki/.ca.crt.berth-new", "etc/kubernetes/.current.berth-new"] {
        symlink(&victim, world.root().join(beside)).expect("writable");
    }
    let machine = world.machine();
    machine.apply(&plan(), now()).expect("links are replaced");
    world.nothing_happened_outside();
    let written = world.root().join(DEEP.trim_start_matches('/'));
    assert!(written.symlink_metadata().expect("there").is_file());
    assert_eq!(fs::read_to_string(written).expect("there"), "ours");
    machine.undo(now()).expect("nothing is in the way");
    assert_eq!(fs::read_link(world.root().join("etc/first")).expect("a link"), victim);
    world.nothing_happened_outside();
}

#[test]
fn a_link_put_into_the_path_after_the_plan_does_not_lead_the_undo_outside() {
    let world = World::new();
    let machine = world.machine();
    machine.apply(&plan(), now()).expect("nothing is in the way");
    fs::rename(world.root().join("etc/kubernetes"), world.root().join("moved")).expect("writable");
    fs::write(world.outside().join("kubernetes/pki/ca.crt"), "ours").expect("writable");
    symlink(world.outside().join("kubernetes"), world.root().join("etc/kubernetes")).expect("writable");
    let undone = machine.undo(now()).expect("what is theirs is left");
    assert!(undone.left.iter().any(|left| left.path == Path::new(DEEP)), "{undone:?}");
    assert!(world.outside().join("kubernetes/pki/ca.crt").exists());
    assert!(!world.root().join("etc/first").exists());
}

#[test]
fn a_pipe_or_directory_in_a_file_s_place_is_named_and_nothing_hangs() {
    let world = World::new();
    fs::create_dir_all(world.root().join("etc/kubernetes/pki")).expect("writable");
    let path = world.root().join(DEEP.trim_start_matches('/'));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("writable");
    let machine = world.machine();
    let seen = machine.see(&plan());
    assert_eq!(seen.at(Path::new(DEEP)), &Found::Other { kind: "a FIFO" });
    assert!(diff(&plan(), &seen, Style::default()).contains("a FIFO, which no plan replaces"));
    let refused = machine.apply(&plan(), now()).expect_err("a FIFO is in the way");
    assert!(refused.to_string().ends_with("ca.crt is a FIFO"), "{refused}");
    fs::remove_file(&path).expect("its own");
    fs::create_dir(&path).expect("writable");
    let refused = machine.apply(&plan(), now()).expect_err("a directory is in the way");
    assert!(refused.to_string().ends_with("ca.crt is a directory"), "{refused}");
    assert!(!world.root().join("etc/first").exists());
}

#[test]
fn a_path_that_would_climb_out_is_refused() {
    for path in ["/etc/../../outside/new", "etc/relative", "/../outside/new", "/"] {
        let world = World::new();
        let plan = Plan { steps: vec![file("/etc/first", "first"), file(path, "x")], ..Plan::default() };
        let refused = world.machine().apply(&plan, now()).expect_err(path);
        let why = refused.into_diagnosis(Phase::Configuration);
        assert_eq!(why.value("rolledBack"), Some("nothing, because nothing had been changed"), "{path}");
        assert!(!world.root().join("etc/first").exists(), "{path}");
        world.nothing_happened_outside();
    }
}

#[test]
fn what_stands_already_is_not_written_again() {
    let world = World::new();
    let machine = world.machine();
    machine.apply(&plan(), now()).expect("nothing is in the way");
    let path = world.root().join(DEEP.trim_start_matches('/'));
    let before = path.metadata().expect("there");
    let applied = machine.apply(&plan(), now()).expect("nothing is in the way");
    assert_eq!((applied.changed.len(), applied.kept), (0, 3));
    let after = path.metadata().expect("there");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert!(changes(&plan(), &machine.see(&plan())).iter().all(|change| change.action == Action::Keep));
}

#[test]
fn an_empty_root_is_empty_again_but_for_the_agent_s_own_parents() {
    let world = World::new();
    let machine = world.machine();
    let plan =
        plan().then(Plan { steps: vec![file("/var/lib/kubelet/config.yaml", "x")], ..Plan::default() });
    machine.apply(&plan, now()).expect("nothing is in the way");
    let undone = machine.undo(now()).expect("nothing is in the way");
    assert_eq!(undone.left, []);
    let left: Vec<_> = fs::read_dir(world.root())
        .expect("readable")
        .map(|entry| entry.expect("there").file_name())
        .collect();
    assert_eq!(left, ["var"]);
    assert_eq!(fs::read_dir(world.root().join("var/lib/berth")).expect("readable").count(), 0);
}
