//! What Berth needs in a cluster, applied once the API server answers.

use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// Applies a kustomization and waits until its kinds are served.
pub(crate) fn install(kubeconfig: &Path, manifests: &Path) -> Result<()> {
    let began = Instant::now();
    while !kubectl(kubeconfig, &["get", "--raw=/readyz"])?.status.success() {
        if began.elapsed() > READY_WITHIN {
            bail!("the API server is not ready after {READY_WITHIN:?}: docker compose logs kube-apiserver");
        }
        thread::sleep(POLL);
    }
    println!("the API server is ready after {:.1} s", began.elapsed().as_secs_f64());
    let manifests = manifests.display().to_string();
    asked(kubeconfig, &["apply", "--server-side", "--force-conflicts", "--kustomize", &manifests])?;
    asked(kubeconfig, &["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    println!("installed what Berth needs");
    Ok(())
}

/// What kubectl says.
///
/// # Errors
/// It ended with another status than 0; with all that it said.
pub(crate) fn asked(kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
    let ended = kubectl(kubeconfig, arguments)?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    if !ended.status.success() {
        let status = ended.status;
        let complaint = String::from_utf8_lossy(&ended.stderr);
        bail!("kubectl {} ended with {status}; it said:\n{said}{complaint}", arguments.join(" "));
    }
    Ok(said)
}

fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
    let mut kubectl = command("kubectl");
    kubectl.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir=/tmp").args(arguments);
    // Each has a deadline of its own, so that a server that hangs is asked again.
    kubectl.arg("--request-timeout=20s").output().context("starting kubectl")
}

const READY_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);
