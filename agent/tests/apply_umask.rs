//! Modes are the plan's, whatever the umask. Alone in its process, because the
//! umask is the process's.

use std::os::unix::fs::MetadataExt as _;

use berth_agent::host::Machine;
use berth_agent::plan::{Plan, Step};
use berth_agent::ports::Host as _;
use berth_domain::timestamp::Timestamp;
use rustix::fs::Mode;

#[test]
fn no_umask_changes_a_mode() {
    for umask in [0o000, 0o777] {
        let root = tempfile::tempdir().expect("a directory");
        let file = |path: &str, mode| Step::File {
            path: path.into(),
            mode,
            content: "x".to_owned().into(),
            secret: mode == 0o600,
        };
        let plan = Plan {
            steps: vec![
                Step::Directory { path: "/pki".into(), mode: 0o700 },
                file("/pki/secret", 0o600),
                file("/public", 0o644),
                file("/implied/public", 0o644),
            ],
            ..Plan::default()
        };
        let machine = Machine::at(root.path()).expect("a directory");
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let applied = machine.apply(&plan, Timestamp::default());
        rustix::process::umask(before);
        applied.expect("nothing is in the way");
        for (path, mode) in [
            ("pki", 0o700),
            ("pki/secret", 0o600),
            ("public", 0o644),
            ("implied", 0o755),
            ("var/lib/berth", 0o700),
            ("var/lib/berth/applied/manifest.json", 0o600),
        ] {
            let found = root.path().join(path).metadata().expect("there").mode() & 0o7777;
            assert_eq!(found, mode, "{path} with umask {umask:o}");
        }
    }
}
