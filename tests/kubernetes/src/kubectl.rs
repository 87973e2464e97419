//! kubectl, as an administrator or as anybody else.

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use data_encoding::BASE64;
use serde_json::Value;

use crate::api::Api;
use crate::cluster::Cluster;
use crate::process::{command_in, finish};
use crate::programs::{Program, Programs};

/// A command that ended, well or not.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Cluster {
    /// Runs kubectl as an administrator; its standard output.
    ///
    /// # Errors
    /// It ended with another status than 0, or not within two minutes.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(&self.programs, &self.folder, self.kubeconfig(), arguments, "")
    }

    /// Runs kubectl as the user of a kubeconfig, whatever its exit status.
    ///
    /// # Errors
    /// It did not start, or did not end within two minutes.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<Ran> {
        ask(&self.programs, &self.folder, kubeconfig, arguments, "")
    }

    /// The API server, asked as the user of a kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or names neither a certificate nor a token.
    pub fn api_as(&self, kubeconfig: &Path) -> Result<Api> {
        api_of(&self.programs, &self.folder, kubeconfig)
    }

    /// Applies a manifest, YAML or JSON, as an administrator, whoever else set its fields.
    ///
    /// # Errors
    /// It was refused.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        run(&self.programs, &self.folder, self.kubeconfig(), &arguments, manifest).map(drop)
    }
}

/// The API server of a kubeconfig, as kubectl reads it.
pub(crate) fn api_of(programs: &Programs, folder: &Path, kubeconfig: &Path) -> Result<Api> {
    let arguments = ["config", "view", "--raw", "--minify", "--flatten", "--output=json"];
    let view = run(programs, folder, kubeconfig, &arguments, "")?;
    let view: Value = serde_json::from_str(&view).context("reading what kubectl config view says")?;
    let text = |pointer: &str| view.pointer(pointer).and_then(Value::as_str);
    let data = |pointer: &str| -> Result<Option<Vec<u8>>> {
        let decoded = text(pointer).map(|data| BASE64.decode(data.as_bytes())).transpose();
        decoded.with_context(|| format!("reading {pointer} of {}", kubeconfig.display()))
    };
    let server = text("/clusters/0/cluster/server").context("the kubeconfig names no server")?;
    let host = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let mut found = host.to_socket_addrs().with_context(|| format!("finding {host}"))?;
    let address = found.next().with_context(|| format!("{host} has no address"))?;
    let ca = data("/clusters/0/cluster/certificate-authority-data")?;
    let ca = ca.context("the kubeconfig names no certificate authority")?;
    match (data("/users/0/user/client-certificate-data")?, data("/users/0/user/client-key-data")?) {
        (Some(certificate), Some(key)) => Api::with_certificate(address, &ca, &certificate, &key),
        (Some(_), None) | (None, Some(_) | None) => {
            let token = text("/users/0/user/token");
            let token = token.context("the kubeconfig has neither a client certificate nor a token")?;
            Api::with_token(address, &ca, Some(token.to_owned()))
        }
    }
}

fn run(
    programs: &Programs,
    folder: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String> {
    let Ran { code, stdout, stderr } = ask(programs, folder, kubeconfig, arguments, input)?;
    if code != Some(0) {
        bail!("kubectl {} ended with {code:?}; it said:\n{stdout}{stderr}", arguments.join(" "));
    }
    Ok(stdout)
}

fn ask(
    programs: &Programs,
    folder: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<Ran> {
    let mut kubectl = command_in(folder, &programs.path(Program::Kubectl)?);
    kubectl.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    let finished = finish(kubectl, input, WITHIN)?;
    Ok(Ran { code: finished.code, stdout: finished.stdout, stderr: finished.stderr })
}

const WITHIN: Duration = Duration::from_secs(120);
