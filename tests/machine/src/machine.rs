//! One machine: made, started, cut off, entered.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::background::MARK;
use crate::ground::Ground;
use crate::groups;
use crate::network;
use crate::process::{Ran, SOON, TICK, command, finish, first_child, parent, succeed};
use crate::virtual_machine::VirtualMachine;

/// What a machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Namespaces of this host's kernel: up in a second.
    Namespaces,
    /// QEMU, with a kernel, control groups, modules and a TPM of its own: up in a minute
    /// or two where it is emulated.
    Virtual,
}

/// A machine. It lives as long as its world.
pub struct Machine {
    folder: PathBuf,
    root: PathBuf,
    network: String,
    emulated: Option<VirtualMachine>,
}

impl Machine {
    pub(crate) fn at(folder: &Path, ground: &Ground, network: &str) -> Result<Self> {
        let kind = if VirtualMachine::is_in(folder) { Kind::Virtual } else { Kind::Namespaces };
        Self::of(kind, folder, ground, network)
    }

    fn of(kind: Kind, folder: &Path, ground: &Ground, network: &str) -> Result<Self> {
        let emulated = match kind {
            Kind::Namespaces => None,
            Kind::Virtual => {
                let disk = ground.disk().context("the ground was not laid for virtual machines")?;
                Some(VirtualMachine::at(folder, disk, network))
            }
        };
        Ok(Self { folder: folder.to_owned(), root: ground.root(), network: network.to_owned(), emulated })
    }

    /// Makes one that is off, with an empty disk.
    pub(crate) fn make(
        kind: Kind,
        folder: &Path,
        ground: &Ground,
        network: &str,
        number: u8,
    ) -> Result<Self> {
        let machine = Self::of(kind, folder, ground, network)?;
        fs::create_dir(folder).with_context(|| format!("making the machine {}", folder.display()))?;
        machine.keep("number", &number.to_string())?;
        if let Some(emulated) = &machine.emulated {
            emulated.make()?;
            return Ok(machine);
        }
        let groups = groups::make(&format!("{network}-{}", machine.name()))?;
        let groups: Vec<String> = groups.iter().map(|group| group.display().to_string()).collect();
        machine.keep(GROUPS, &(groups.join("\n") + "\n"))?;
        let disk = machine.disk();
        fs::create_dir(&disk).context("making a machine's disk")?;
        let mut mount = command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("mode=755,size={DISK}"), "berth-machine"]).arg(&disk);
        succeed(mount, SOON)?;
        for part in ["files", "work", "root"] {
            fs::create_dir(disk.join(part)).context("making a machine's disk")?;
        }
        let mut copy = command("cp");
        copy.arg("--archive").arg(machine.root.join("var")).arg(disk.join("var"));
        succeed(copy, SOON)?;
        machine.furnish(network::address(number))?;
        Ok(machine)
    }

    /// Its name, which is its host's name too.
    #[must_use]
    pub fn name(&self) -> &str {
        self.folder.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// Its address.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn address(&self) -> Result<Ipv4Addr> {
        self.number().map(network::address)
    }

    /// Its first process, or QEMU's, as the host counts, if it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        if let Some(emulated) = &self.emulated {
            return emulated.process();
        }
        let ids = fs::read_to_string(self.folder.join(IDS)).ok()?;
        let mut ids = ids.split_whitespace().map(str::parse);
        let (outer, inner) = (ids.next()?.ok()?, ids.next()?.ok()?);
        (parent(inner) == Some(outer)).then_some(inner)
    }

    /// Its root directory while it runs, as it sees it itself.
    ///
    /// # Errors
    /// It is off; or it is virtual, and this host does not see into it.
    pub fn root(&self) -> Result<PathBuf> {
        if self.emulated.is_some() {
            bail!("{} is a virtual machine: its files are its own", self.name());
        }
        Ok(PathBuf::from(format!("/proc/{}/root", self.running()?)))
    }

    /// Puts a file onto it, off or on. `path` is absolute, and not below `/var`.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn put(&self, file: &Path, path: &str) -> Result<()> {
        if let Some(emulated) = &self.emulated {
            return emulated.put(self.number()?, file, path);
        }
        let root = self.root().unwrap_or_else(|_| self.disk().join("files"));
        let to = root.join(path.trim_start_matches('/'));
        let parent = to.parent().unwrap_or(&root);
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::copy(file, &to).with_context(|| format!("putting {path} onto {}", self.name()))?;
        Ok(())
    }

    /// Starts it, on the disk as it is, and waits until systemd says that it runs.
    ///
    /// # Errors
    /// It runs already; or it does not come up: with what it said.
    pub fn boot(&mut self) -> Result<()> {
        self.power_on()?;
        self.wait_until_running()
    }

    /// Starts it, on the disk as it is, and leaves the rest to what is enabled there.
    ///
    /// # Errors
    /// It runs already, or its first process does not start: with what it said.
    pub fn power_on(&mut self) -> Result<()> {
        if self.process().is_some() {
            bail!("{} runs already", self.name());
        }
        if let Some(emulated) = &self.emulated {
            return emulated.boot(self.number()?);
        }
        let log = self.folder.join("log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("making {}", log.display()))?;
        let same = file.try_clone().context("sharing a log file")?;
        let mut sh = command("/bin/sh");
        sh.args(["-c", JOIN, "sh"]).arg(self.folder.join(GROUPS));
        sh.args(["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        sh.args(["--fork", "--kill-child", "--propagation", "private"]);
        sh.args(["/bin/sh", "-c", INIT, "init.sh"]).arg(&self.root).arg(self.disk());
        sh.env_clear().env("PATH", PATH).env(MARK, self.world()).current_dir("/");
        sh.stdin(Stdio::piped()).stdout(file).stderr(same).process_group(0);
        let mut child = sh.spawn().with_context(|| format!("starting {}", self.name()))?;
        let outer = child.id();
        let inner = first_child(outer).with_context(|| self.words())?;
        self.keep(IDS, &format!("{outer} {inner}\n"))?;
        network::connect(&self.network, self.number()?, inner)?;
        let line = child.stdin.take().context("a machine has a standard input")?;
        { line }.write_all(b"go\n").with_context(|| format!("starting {}: {}", self.name(), self.words()))?;
        // Reaped when it ends, however long it lives.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Cuts it off: every process is killed, and the disk stays as it is. A virtual
    /// machine also loses what its kernel had not written to the disk yet.
    ///
    /// # Errors
    /// It is off.
    pub fn cut(&mut self) -> Result<()> {
        if let Some(emulated) = &self.emulated {
            return emulated.cut();
        }
        let inner = self.running()?;
        let id = i32::try_from(inner).ok().and_then(Pid::from_raw).context("a process has an id above 0")?;
        kill_process(id, Signal::KILL).with_context(|| format!("cutting {} off", self.name()))?;
        let deadline = Instant::now() + SOON;
        while Path::new(&format!("/proc/{inner}")).exists() {
            if Instant::now() > deadline {
                bail!("{} (process {inner}) does not end", self.name());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// A command that will run on it, as root, with nothing of this process's
    /// environment.
    ///
    /// # Errors
    /// It is off.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        self.command_for(words, false)
    }

    /// The same for a person at a terminal.
    ///
    /// # Errors
    /// It is off.
    pub fn command_of_a_person(&self, words: &[&str]) -> Result<Command> {
        self.command_for(words, true)
    }

    fn command_for(&self, words: &[&str], terminal: bool) -> Result<Command> {
        if let Some(emulated) = &self.emulated {
            self.running()?;
            return Ok(emulated.command(self.number()?, words, terminal));
        }
        let mut sh = command("/bin/sh");
        sh.args(["-c", JOIN, "sh"]).arg(self.folder.join(GROUPS));
        sh.args(["nsenter", "--target", &self.running()?.to_string()]);
        sh.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]);
        sh.args(words).env_clear().env("PATH", PATH).env("HOME", "/root");
        Ok(sh)
    }

    /// Runs a program on it to its end, whatever its exit status.
    ///
    /// # Errors
    /// It is off, or the program was not done in time.
    pub fn run(&self, words: &[&str], within: Duration) -> Result<Ran> {
        finish(self.command(words)?, within)
    }

    /// Runs a line of shell on it that must succeed; its output.
    ///
    /// # Errors
    /// It did not succeed: with all that it said.
    pub fn sh(&self, line: &str) -> Result<String> {
        succeed(self.command(&["/bin/sh", "-ec", line])?, SOON * 3)
    }

    /// Where a file of its own lies on its disk, on or off: absolute, as it sees it.
    /// Files of the root that all machines share are not there.
    #[must_use]
    pub fn on_disk(&self, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        let own = if path.starts_with("var/") { "" } else { "files" };
        self.disk().join(own).join(path)
    }

    /// Cuts it off if it runs, and throws it away with its disk.
    ///
    /// # Errors
    /// Something of it does not go.
    pub fn scrap(mut self) -> Result<()> {
        if self.process().is_some() {
            self.cut()?;
        }
        groups::remove(&self.folder.join(GROUPS))?;
        let mut umount = command("umount");
        umount.arg(self.disk());
        succeed(umount, SOON)?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }

    pub(crate) fn number(&self) -> Result<u8> {
        let path = self.folder.join("number");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().with_context(|| format!("reading {}", path.display()))
    }

    /// What makes this machine itself, and what its systemd shall not try: the
    /// kernel's devices and the network are the host's affair.
    fn furnish(&self, address: Ipv4Addr) -> Result<()> {
        let etc = self.disk().join("files/etc");
        let units = etc.join("systemd/system");
        fs::create_dir_all(&units).context("making a machine's files")?;
        for unit in MASKED {
            symlink("/dev/null", units.join(unit)).with_context(|| format!("masking {unit}"))?;
        }
        let journal = etc.join("systemd/journald.conf.d");
        fs::create_dir(&journal).context("making a machine's files")?;
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("making a machine's id")?;
        let name = self.name();
        for (path, text) in [
            (etc.join("hostname"), format!("{name}\n")),
            (etc.join("hosts"), format!("127.0.0.1 localhost\n{address} {name}\n")),
            (etc.join("resolv.conf"), format!("nameserver {}\n", network::CONTROL)),
            (etc.join("machine-id"), id.replace('-', "")),
            // The kernel's messages are all machines'.
            (journal.join("machine.conf"), "[Journal]\nReadKMsg=no\n".to_owned()),
        ] {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn wait_until_running(&self) -> Result<()> {
        let deadline = Instant::now() + BOOTED_WITHIN;
        loop {
            let said = self.run(&["systemctl", "is-system-running", "--wait"], BOOTED_WITHIN);
            match said.map(|said| said.stdout.trim().to_owned()).as_deref() {
                Ok("running") => return Ok(()),
                Ok("degraded") => {
                    let failed = self.run(&["systemctl", "list-units", "--failed", "--plain"], SOON)?;
                    bail!("{} runs, but not all of its units:\n{}", self.name(), failed.stdout);
                }
                said if Instant::now() > deadline || self.process().is_none() => {
                    bail!("{} does not come up ({said:?}); {}", self.name(), self.words())
                }
                _ => thread::sleep(TICK),
            }
        }
    }

    fn running(&self) -> Result<u32> {
        self.process().with_context(|| format!("{} is off", self.name()))
    }

    fn world(&self) -> &Path {
        self.folder.parent().and_then(Path::parent).unwrap_or(&self.folder)
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn keep(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| format!("writing {name} of a machine"))
    }

    fn words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("it said: {log}")
    }
}

/// Takes the shell into the groups that a file names, then runs the rest. Version 2
/// lets no process into a group that has others below it.
const JOIN: &str = r#"
while read -r group; do
  if [ -e "$group/cgroup.controllers" ] && [ "$2" = nsenter ]; then
    group=$group/entered
    mkdir -p "$group"
  fi
  echo 0 >"$group/cgroup.procs"
done <"$1"
shift
exec "$@"
"#;
const INIT: &str = include_str!("init.sh");
const IDS: &str = "ids";
const GROUPS: &str = "groups";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that a machine's disk holds, in memory.
const DISK: &str = "4g";
const BOOTED_WITHIN: Duration = Duration::from_secs(60);
const MASKED: [&str; 5] = [
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-udevd.service",
    "systemd-modules-load.service",
    "systemd-udev-trigger.service",
];
