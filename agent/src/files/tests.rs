use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn trees(root: &Path) -> [Tree; 2] {
    let old_kernel = Tree::open(root).expect("a directory");
    old_kernel.walk.without_openat2();
    [Tree::open(root).expect("a directory"), old_kernel]
}

#[test]
fn no_link_is_followed_whatever_the_kernel() {
    let outside = tempfile::tempdir().expect("a directory");
    fs::create_dir(outside.path().join("b")).expect("writable");
    fs::write(outside.path().join("b/secret"), "secret").expect("writable");
    let root = tempfile::tempdir().expect("a directory");
    symlink(outside.path(), root.path().join("a")).expect("writable");
    fs::create_dir(root.path().join("c")).expect("writable");
    symlink(outside.path().join("b"), root.path().join("c/b")).expect("writable");
    symlink(outside.path().join("b/secret"), root.path().join("c/secret")).expect("writable");
    for tree in trees(root.path()) {
        for path in ["/a/b/x", "/a/x", "/c/b/x"] {
            let refused = tree.write(Path::new(path), 0o600, None, b"x").expect_err("a link in its path");
            assert_eq!(refused.kind(), io::ErrorKind::NotADirectory, "{path}");
            assert!(tree.make_directory(Path::new(path), 0o700).is_err(), "{path}");
            assert!(tree.link(Path::new(path), Path::new("y"), None).is_err(), "{path}");
            assert!(tree.look(Path::new(path)).is_err(), "{path}");
        }
        assert!(tree.read(Path::new("/c/secret")).is_err(), "a link is not read through");
        assert!(tree.remove(Path::new("/c/b/secret")).is_err());
    }
    assert_eq!(fs::read_dir(outside.path().join("b")).expect("readable").count(), 1);
}

#[test]
fn only_absolute_paths_without_dots_are_taken() {
    let root = tempfile::tempdir().expect("a directory");
    for tree in trees(root.path()) {
        for path in ["a", "../a", "/../a", "/a/../../b", "/", ""] {
            let refused = tree.write(Path::new(path), 0o600, None, b"x").expect_err(path);
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
    }
}

#[test]
fn what_lies_at_the_name_beside_is_replaced_and_not_written_through() {
    let root = tempfile::tempdir().expect("a directory");
    let victim = root.path().join("victim");
    fs::write(&victim, "keep").expect("writable");
    for tree in trees(root.path()) {
        for path in ["/file", "/link"] {
            let beside = root.path().join(format!(".{}.berth-new", path.trim_start_matches('/')));
            symlink(&victim, &beside).expect("writable");
            if path == "/file" {
                tree.write(Path::new(path), 0o644, None, b"new").expect("writable");
            } else {
                tree.link(Path::new(path), Path::new("file"), None).expect("writable");
            }
            assert!(beside.symlink_metadata().is_err());
        }
        assert_eq!(fs::read_to_string(&victim).expect("there"), "keep");
        assert_eq!(fs::read_to_string(root.path().join("link")).expect("there"), "new");
    }
    fs::create_dir(root.path().join(".file.berth-new")).expect("writable");
    let [tree, _] = trees(root.path());
    assert!(
        tree.write(Path::new("/file"), 0o644, None, b"newer").is_err(),
        "a directory there is not removed"
    );
    assert_eq!(fs::read_to_string(root.path().join("file")).expect("there"), "new");
}

#[test]
fn a_fifo_does_not_hold_the_agent() {
    let root = tempfile::tempdir().expect("a directory");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("fifo"), mode).expect("writable");
    for tree in trees(root.path()) {
        assert_eq!(tree.look(Path::new("/fifo")).expect("there"), Entry::Other { kind: "a FIFO" });
        assert!(tree.read(Path::new("/fifo")).is_err());
    }
}

#[test]
fn a_state_directory_is_closed_to_others() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tempfile::tempdir().expect("a directory");
    let mode = |path: &str| root.path().join(path).metadata().expect("there").mode() & 0o777;
    let [tree, _] = trees(root.path());
    let state = State::at(tree, format!("{STATE_DIRECTORY}/inner"));
    state.write("file", b"x").expect("writable");
    assert_eq!(
        (
            mode("var/lib"),
            mode("var/lib/berth"),
            mode("var/lib/berth/inner"),
            mode("var/lib/berth/inner/file")
        ),
        (0o755, 0o700, 0o700, 0o600)
    );
    fs::set_permissions(
        root.path().join("var/lib/berth"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("its own");
    state.write("file", b"y").expect("writable");
    assert_eq!(mode("var/lib/berth"), 0o700);
}
