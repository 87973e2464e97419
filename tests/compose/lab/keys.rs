//! The keys of the control plane, laid out by who may have them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::rand;
use berth_kubernetes::{ACCOUNT, Pki};
use data_encoding::HEXLOWER;

use crate::operator::keep;

/// Makes `control` (everything) and `server` (the way of berth-server into the
/// cluster, and what its console is served with) in a folder, unless they are there.
pub(crate) fn make(into: &Path) -> Result<()> {
    let control = into.join("control");
    // Written last: what is there is whole.
    let admin = control.join("admin.conf");
    if admin.exists() {
        println!("the keys are there");
        return Ok(());
    }
    let pki = control.join("pki");
    if pki.exists() {
        fs::remove_dir_all(&pki).context("clearing away keys that were half made")?;
    }
    let pki = Pki::make_for(&pki, &NAMES)?;
    let kubeconfig = |path: &Path, user: &str, groups: &[&str]| {
        pki.kubeconfig(path, API_SERVER, user, groups).with_context(|| format!("making {}", path.display()))
    };
    // A caller in this group may name the parent of the API server's spans.
    let server = into.join("server/kubeconfig");
    kubeconfig(&server, ACCOUNT, &["system:serviceaccounts", "system:monitoring"])?;
    let console = pki.serving("berth-console", &[])?;
    keep(&into.join("server/console.crt"), &console.certificate)?;
    keep(&into.join("server/console.key"), &console.key)?;
    let mut token = [0; 20];
    rand::fill(&mut token).context("asking the system for randomness")?;
    keep(&into.join("server/console.tokens"), &format!("operator {}\n", HEXLOWER.encode(&token)))?;
    let manager = control.join("controller-manager.conf");
    kubeconfig(&manager, "system:kube-controller-manager", &[])?;
    kubeconfig(&admin, "kubernetes-admin", &["system:masters"])?;
    println!("made the keys of a new control plane");
    Ok(())
}

/// Where the components are reached, in docker-compose.yml and from its host.
const NAMES: [&str; 3] = ["kube-apiserver", "etcd", "kube-controller-manager"];
const API_SERVER: &str = "kube-apiserver:6443";
