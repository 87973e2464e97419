//! Berth's own part of a cluster: its kinds, rights and policies, and the account
//! that its replicas have, here as processes and not as pods.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cluster::Cluster;

/// Where the manifests put Berth.
pub const NAMESPACE: &str = "berth-system";

/// The account that they give the server.
pub const ACCOUNT: &str = "system:serviceaccount:berth-system:berth-server";

impl Cluster {
    /// Applies a kustomization of the project's manifests, `base` or one of
    /// `overlays`, and waits until its kinds are served. The Deployment is taken
    /// away again: here the replicas are processes.
    ///
    /// # Errors
    /// Something of it is refused.
    pub fn install(&self, kustomization: &str) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes").join(kustomization);
        self.kubectl(&["apply", "--server-side", "-k", &path.display().to_string()])?;
        self.kubectl(&["--namespace", NAMESPACE, "delete", "deployment", "berth-server", "--wait=false"])?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
        Ok(())
    }

    /// A kubeconfig of the server's account, by a token as a pod has it, good for
    /// some hours.
    ///
    /// # Errors
    /// The manifests are not there, or the cluster is borrowed.
    pub fn account(&self) -> Result<PathBuf> {
        self.kubeconfig_of_token(ACCOUNT, &self.account_token()?)
    }

    /// A token of the server's account, as a pod has it, good for some hours.
    ///
    /// # Errors
    /// The manifests are not there.
    pub fn account_token(&self) -> Result<String> {
        let words = ["--namespace", NAMESPACE, "create", "token", "berth-server", "--duration=4h"];
        Ok(self.kubectl(&words)?.trim().to_owned())
    }
}
