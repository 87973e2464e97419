//! A machine's own control groups: one below this process's in each hierarchy, so
//! that a new cgroup namespace shows the machine nothing above. Both versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::process::{SOON, TICK};

/// Makes them; their paths.
pub(crate) fn make(name: &str) -> Result<Vec<PathBuf>> {
    let own = fs::read_to_string("/proc/self/cgroup").context("reading this process's control groups")?;
    let root = Path::new("/sys/fs/cgroup");
    let groups: Vec<PathBuf> = own.lines().filter_map(|line| group(line, root, name)).collect();
    for group in &groups {
        fs::create_dir_all(group).with_context(|| format!("making {}", group.display()))?;
        if group.join("cpuset.cpus").exists() && !group.join("cgroup.controllers").exists() {
            fill_cpuset(group)?;
        }
    }
    Ok(groups)
}

/// Takes away the groups that a file names, and all below them. They have no members
/// any more, but the kernel may take a moment to see that.
pub(crate) fn remove(named_in: &Path) -> Result<()> {
    let groups = fs::read_to_string(named_in).with_context(|| format!("reading {}", named_in.display()))?;
    for group in groups.lines().map(Path::new) {
        let deadline = Instant::now() + SOON;
        while group.exists() && !emptied(group) {
            if Instant::now() > deadline {
                bail!("the control group {} does not go", group.display());
            }
            thread::sleep(TICK);
        }
    }
    Ok(())
}

/// Removes a group after those below it; whether it is gone.
fn emptied(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = below.filter(|path| path.is_dir()).all(|child| emptied(&child));
    all && fs::remove_dir(group).is_ok()
}

/// The directory for a line of `/proc/self/cgroup`: number, controllers, path.
fn group(line: &str, root: &Path, name: &str) -> Option<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let hybrid = root.join("unified");
    let hierarchy = match (number, controllers.strip_prefix("name=").unwrap_or(controllers)) {
        ("0", _) if hybrid.is_dir() => hybrid,
        ("0", _) => root.to_owned(),
        (_, controllers) => root.join(controllers),
    };
    Some(hierarchy.join(path.trim_start_matches('/')).join(name))
}

/// Version 1 gives a new group no processors, and takes no process into it.
fn fill_cpuset(group: &Path) -> Result<()> {
    let parent = group.parent().unwrap_or(group);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file}"))?;
        fs::write(group.join(file), value.trim()).with_context(|| format!("writing {file}"))?;
    }
    fs::write(group.join("cgroup.clone_children"), "1").context("writing cgroup.clone_children")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_has_its_directory() {
        let root = tempfile::tempdir().expect("a folder");
        let of = |line| {
            group(line, root.path(), "m").map(|path| path.strip_prefix(root.path()).map(Path::to_owned))
        };
        assert_eq!(of("4:memory:/a/b"), Some(Ok("memory/a/b/m".into())));
        assert_eq!(of("9:name=systemd:/"), Some(Ok("systemd/m".into())));
        assert_eq!(of("2:cpu,cpuacct:/"), Some(Ok("cpu,cpuacct/m".into())));
        assert_eq!(of("0::/user.slice"), Some(Ok("user.slice/m".into())));
        fs::create_dir(root.path().join("unified")).expect("a folder");
        assert_eq!(of("0::/"), Some(Ok("unified/m".into())));
    }
}
