//! Docker's command line, towards one daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A daemon, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Docker {
    /// `None`: the one that the environment names, or the usual one.
    socket: Option<PathBuf>,
    compose: &'static [&'static str],
}

impl Docker {
    /// The daemon that this person uses.
    ///
    /// # Errors
    /// Docker or compose is missing, or no daemon answers; says how to mend it.
    pub fn of_this_machine() -> Result<Self> {
        Self::at(None)
    }

    /// A daemon that listens on a socket.
    ///
    /// # Errors
    /// As [`Docker::of_this_machine`].
    pub fn at(socket: Option<&Path>) -> Result<Self> {
        let mut docker = Self { socket: socket.map(Path::to_owned), compose: &[] };
        let asked = docker.docker(&["version", "--format", "{{.Server.Version}}"]).output();
        let Ok(asked) = asked else {
            bail!("there is no docker; to mend: apt-get install docker.io docker-compose");
        };
        if !asked.status.success() {
            let said = String::from_utf8_lossy(&asked.stderr);
            bail!(
                "no Docker daemon answers; to mend: start it (systemctl start docker), or name another by DOCKER_HOST; it said: {}",
                said.trim()
            );
        }
        let runs = |words: &[&str]| {
            let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
            let asked = command(program).args(arguments).arg("version").output();
            asked.is_ok_and(|asked| asked.status.success())
        };
        let found = COMPOSE.into_iter().find(|words| runs(words));
        docker.compose =
            found.context("there is no docker compose; to mend: apt-get install docker-compose")?;
        Ok(docker)
    }

    /// `docker ARGUMENTS`.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        self.towards(&["docker"], arguments)
    }

    /// `docker compose ARGUMENTS`, of whichever version there is.
    #[must_use]
    pub fn compose(&self, arguments: &[&str]) -> Command {
        self.towards(self.compose, arguments)
    }

    /// The version of compose that is used, such as `2.26.1`.
    ///
    /// # Errors
    /// It does not say.
    pub fn compose_version(&self) -> Result<String> {
        Self::said(self.compose(&["version", "--short"])).map(|said| said.trim().to_owned())
    }

    /// What a command says, once it has ended well.
    ///
    /// # Errors
    /// It ended otherwise; with all that it said.
    pub fn said(mut command: Command) -> Result<String> {
        let began = Instant::now();
        let Output { status, stdout, stderr } =
            command.output().with_context(|| format!("starting {}", spoken(&command)))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if !status.success() {
            let took = began.elapsed().as_secs();
            bail!("{} ended with {status} after {took} s; it said:\n{stdout}{stderr}", spoken(&command));
        }
        Ok(stdout.into_owned())
    }

    fn towards(&self, words: &[&str], arguments: &[&str]) -> Command {
        let (program, first) = words.split_first().unwrap_or((&"docker", &[]));
        let mut command = command(program);
        // Debian's builder has no BuildKit, and these images need none.
        command.args(first).args(arguments).env("DOCKER_BUILDKIT", "0");
        // docker-compose 1.29 gives up after a minute: 20 machines take longer on a small one.
        command.env("COMPOSE_HTTP_TIMEOUT", PATIENCE.as_secs().to_string());
        if let Some(socket) = &self.socket {
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
        command
    }
}

fn spoken(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Version 2 first.
const COMPOSE: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
const PATIENCE: Duration = Duration::from_secs(300);
