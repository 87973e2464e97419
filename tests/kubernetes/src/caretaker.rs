//! A process that waits for its owner's end, however it comes, and then clears
//! away what the owner could not: a value in a `static` is never dropped, and a
//! test that is killed drops nothing.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{MARK, command};

/// Ends the cluster in its folder and removes the folder, when it is dropped or
/// its owner has ended.
pub(crate) struct Caretaker {
    child: Child,
}

impl Caretaker {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        // Only the owner holds the other end of its standard input, so that end
        // closes with the owner. The group keeps Ctrl-C away from it.
        let child = command("/bin/sh")
            .args(["-c", SCRIPT, MARK])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the caretaker of a cluster")?;
        Ok(Self { child })
    }

    /// Lets the cluster outlive its owner.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        self.child.kill().context("dismissing the caretaker of a cluster")
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _reaped: io::Result<_> = self.child.wait();
    }
}

/// A process is killed only if its environment says that it is of this cluster.
/// A hollow node's socket is not in the folder: see `hollow::remove_sockets`.
const SCRIPT: &str = r#"
cat >/dev/null
for file in "$1"/run/*.pid; do
  id=$(cat "$file") || continue
  if tr '\0' '\n' <"/proc/$id/environ" | grep -Fqx "$0=$1"; then kill -KILL "$id"; fi
done
sed -n 's|.*endpoint="unix://\(/tmp/kubelet_remote_[0-9]*\.sock\)".*|\1|p' "$1"/log/node-*.log | xargs -r rm -f
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf -- "$1" && break
  sleep 0.2
done
"#;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::process::{IDS, LOGS, Process, command_in};

    #[test]
    fn what_the_owner_left_is_ended_and_removed() {
        let folder = tempfile::tempdir().expect("a folder").keep();
        for name in [IDS, LOGS] {
            std::fs::create_dir(folder.join(name)).expect("a folder in it");
        }
        let caretaker = Caretaker::start(&folder).expect("sh runs");
        let mut sleeper = command_in(&folder, Path::new("/bin/sleep"));
        sleeper.arg("1000");
        let mut sleeper = Process::start(&folder, "sleeper", sleeper).expect("sleep runs");
        let mut stranger = command("sleep");
        let mut stranger = stranger.arg("1000").spawn().expect("sleep runs");
        std::fs::write(folder.join(IDS).join("stranger.pid"), stranger.id().to_string()).expect("an id");
        drop(caretaker);
        let deadline = Instant::now() + Duration::from_secs(10);
        while sleeper.ended().expect("it is our child").is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(sleeper.ended().expect("it is our child").is_some(), "the sleeper lives on");
        assert!(!PathBuf::from(&folder).exists(), "{} is still there", folder.display());
        assert!(stranger.try_wait().expect("it is our child").is_none(), "a stranger was killed");
        stranger.kill().expect("it is our child");
        stranger.wait().expect("it is our child");
    }
}
