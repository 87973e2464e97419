//! A virtual machine: a kernel, control groups, modules and a TPM of its own, on a
//! disk that outlives a cut of its power. Root comes in by ssh.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::background;
use crate::disk::Disk;
use crate::hardware::{Hardware, console_of};
use crate::network;
use crate::process::{SOON, TICK, command, finish, finish_reading, succeed};

/// A virtual machine in its folder.
pub(crate) struct VirtualMachine {
    folder: PathBuf,
    network: String,
    disk: Disk,
}

impl VirtualMachine {
    pub(crate) fn at(folder: &Path, disk: &Disk, network: &str) -> Self {
        Self { folder: folder.to_owned(), network: network.to_owned(), disk: disk.clone() }
    }

    /// Whether a machine's folder is a virtual machine's.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(CHANGES).exists()
    }

    /// Gives it a disk as if new, and a TPM.
    pub(crate) fn make(&self) -> Result<()> {
        let mut create = command("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(self.disk.image());
        create.arg(self.folder.join(CHANGES));
        succeed(create, SOON).context("making a machine's disk")?;
        fs::create_dir(self.folder.join(TPM)).context("making a machine's TPM")
    }

    /// QEMU's process, if it runs.
    pub(crate) fn process(&self) -> Option<u32> {
        background::running(self.world(), &self.named("qemu"))
    }

    /// Starts it on the disk as it is, and waits until root can come in and systemd
    /// says that it runs.
    pub(crate) fn boot(&self, number: u8) -> Result<()> {
        let files = self.archive()?;
        self.start_tpm()?;
        network::lay_line(&self.network, number)?;
        let (changes, tpm) = (self.folder.join(CHANGES), self.folder.join(TPM_SOCKET));
        let hardware = Hardware {
            name: self.name(),
            number,
            disk: &self.disk,
            changes: &changes,
            files: files.as_deref(),
            tpm: &tpm,
            console: &console_of(&self.folder),
        };
        background::start(self.world(), &self.named("qemu"), self.inside(hardware.command()?))?;
        self.open_way_in(number)?;
        if let Some(files) = files {
            // On the disk before anything else happens: a cut of power loses none of them.
            self.must(
                number,
                "tar --extract --directory=/ --file=/dev/vda && sync && systemctl daemon-reload",
            )?;
            fs::remove_file(&files).with_context(|| format!("removing {}", files.display()))?;
        }
        self.wait_until_running(number)
    }

    /// Kills QEMU: all that the guest had not flushed to its disk is lost. The way in goes
    /// with it, which would wait for the guest.
    pub(crate) fn cut(&self) -> Result<()> {
        background::end(self.world(), &self.named("qemu"))?;
        background::end(self.world(), &self.named("ssh"))
    }

    /// A command that runs these words on it. With a terminal, the words are a person's.
    pub(crate) fn command(&self, number: u8, words: &[&str], terminal: bool) -> Command {
        let mut ssh = self.ssh(number);
        if terminal {
            ssh.arg("-t");
        }
        ssh.arg("--").arg(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        ssh
    }

    /// Puts a file onto it: at once if it runs, else with its next start.
    pub(crate) fn put(&self, number: u8, file: &Path, path: &str) -> Result<()> {
        if self.process().is_none() {
            let to = self.folder.join(FILES).join(path.trim_start_matches('/'));
            let parent = to.parent().unwrap_or(&self.folder);
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
            fs::copy(file, &to).with_context(|| format!("putting {path} onto {}", self.name()))?;
            return Ok(());
        }
        let mode = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?;
        let mode = if std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o111 == 0 {
            "644"
        } else {
            "755"
        };
        let parent = Path::new(path).parent().unwrap_or(Path::new("/")).display().to_string();
        let line = format!(
            "mkdir -p {} && cat >{path} && chmod {mode} {path} && sync",
            quoted(&parent),
            path = quoted(path)
        );
        let from = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let ran =
            finish_reading(self.command(number, &["/bin/sh", "-c", &line], false), from.into(), PUT_WITHIN)?;
        if ran.code != Some(0) {
            bail!("{path} was not put onto {}: {}", self.name(), ran.stderr);
        }
        Ok(())
    }

    /// What it wrote to its console.
    pub(crate) fn words(&self) -> String {
        let console = fs::read(console_of(&self.folder)).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let qemu = background::said(self.world(), &self.named("qemu"));
        format!("QEMU said: {qemu}\nits console: {console}")
    }

    fn name(&self) -> &str {
        self.folder.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
    }

    fn world(&self) -> &Path {
        self.folder.parent().and_then(Path::parent).unwrap_or(&self.folder)
    }

    /// The name of one of its processes.
    fn named(&self, process: &str) -> String {
        format!("{}.{process}", self.name())
    }

    /// The same command, in the network of the world.
    fn inside(&self, wrapped: Command) -> Command {
        let mut nsenter = command("nsenter");
        nsenter.arg(format!("--net={}", network::place(&self.network).display())).arg("--");
        nsenter.arg(wrapped.get_program()).args(wrapped.get_args());
        nsenter
    }

    /// What waits to be put onto it, as one archive.
    fn archive(&self) -> Result<Option<PathBuf>> {
        let (files, archive) = (self.folder.join(FILES), self.folder.join("files.tar"));
        if files.exists() {
            let mut tar = command("tar");
            tar.args(["--create", "--owner=0", "--group=0", "--no-same-owner", "--file"]).arg(&archive);
            tar.arg("--directory").arg(&files);
            let names = fs::read_dir(&files).context("reading files for a machine")?.flatten();
            tar.args(names.map(|entry| entry.file_name()));
            succeed(tar, SOON * 3).context("packing files for a machine")?;
            fs::remove_dir_all(&files).context("removing files that are packed")?;
        }
        Ok(archive.exists().then_some(archive))
    }

    /// A TPM 2.0, which ends with QEMU; its state stays.
    fn start_tpm(&self) -> Result<()> {
        let socket = self.folder.join(TPM_SOCKET);
        let _absent = fs::remove_file(&socket);
        let mut swtpm = command("swtpm");
        swtpm.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
        swtpm.arg(format!("dir={}", self.folder.join(TPM).display()));
        swtpm.args(["--ctrl", &format!("type=unixio,path={}", socket.display())]);
        background::start(self.world(), &self.named("tpm"), swtpm)?;
        let deadline = Instant::now() + SOON;
        while !socket.exists() {
            if Instant::now() > deadline {
                bail!("no TPM for {}: {}", self.name(), background::said(self.world(), &self.named("tpm")));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until ssh is answered, and keeps one connection for all that follows: a
    /// handshake takes an emulated machine more than a second.
    fn open_way_in(&self, number: u8) -> Result<()> {
        let socket = self.folder.join(WAY_IN);
        let deadline = Instant::now() + BOOTED_WITHIN;
        let name = self.named("ssh");
        loop {
            if background::running(self.world(), &name).is_none() {
                let _absent = fs::remove_file(&socket);
                let mut master = self.ssh(number);
                master.args(["-M", "-N"]);
                background::start(self.world(), &name, master)?;
            }
            if socket.exists() {
                return Ok(());
            }
            if Instant::now() > deadline || self.process().is_none() {
                bail!("{} cannot be entered; {}", self.name(), self.words());
            }
            thread::sleep(AGAIN);
        }
    }

    fn ssh(&self, number: u8) -> Command {
        let mut ssh = command("ssh");
        ssh.arg("-F").arg("none").arg("-i").arg(self.disk.key()).arg("-S").arg(self.folder.join(WAY_IN));
        for option in SSH {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", network::address(number)));
        self.inside(ssh)
    }

    fn wait_until_running(&self, number: u8) -> Result<()> {
        let words = ["systemctl", "is-system-running", "--wait"];
        let said = finish(self.command(number, &words, false), BOOTED_WITHIN)?;
        match said.stdout.trim() {
            "running" => Ok(()),
            said => {
                let failed = self.must(number, "systemctl list-units --failed --plain");
                bail!("{} does not run but is {said:?}: {failed:?}\n{}", self.name(), self.words())
            }
        }
    }

    fn must(&self, number: u8, line: &str) -> Result<String> {
        succeed(self.command(number, &["/bin/sh", "-ec", line], false), SOON * 3)
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The machine's own changes to the disk.
const CHANGES: &str = "disk.qcow2";
/// Files for its next start.
const FILES: &str = "files";
const TPM: &str = "tpm";
const TPM_SOCKET: &str = "tpm.sock";
/// The socket of the connection that is kept.
const WAY_IN: &str = "ssh";
const SSH: [&str; 8] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    // An emulated machine takes its time; a dead one does not answer at all.
    "ConnectTimeout=20",
    "ServerAliveInterval=20",
    "ServerAliveCountMax=6",
    "ControlPersist=no",
];
const AGAIN: Duration = Duration::from_millis(200);
/// What an emulated machine may take on a busy host.
pub(crate) const BOOTED_WITHIN: Duration = Duration::from_secs(400);
const PUT_WITHIN: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_each_word() {
        let words = ["/bin/sh", "-c", "echo \"it's\" $1 'two  words'"];
        let line = words.map(quoted).join(" ");
        let mut sh = command("/bin/sh");
        sh.args(["-c", &format!("printf '%s\\n' {line}")]);
        assert_eq!(succeed(sh, SOON).expect("a shell"), words.join("\n") + "\n");
    }
}
