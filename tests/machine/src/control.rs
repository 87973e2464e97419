//! The control plane of a world of machines, beside them on their network.

use std::path::Path;

use anyhow::Result;
use berth_kubernetes::{Cluster, Component, Options};
use serde_json::{Value, json};

use crate::network::CONTROL;

/// Starts a control plane with Berth's manifests, in a new folder. The calling thread
/// has entered a world. Its API server verifies kubelets' certificates, which
/// kubeadm's does not; pods get their network from Berth.
///
/// # Errors
/// A component does not become ready, or refuses what a cluster of machines has.
pub fn control_plane(folder: &Path) -> Result<Cluster> {
    let options = Options { address: CONTROL.into(), folder: Some(folder.to_owned()), ..Options::default() };
    let ca = std::path::absolute(folder)?.join("pki/ca.crt").display().to_string();
    let options = options.flag(Component::ApiServer, &format!("--kubelet-certificate-authority={ca}"));
    let cluster = Cluster::start(&options)?;
    cluster.install("base")?;
    cluster.apply(&[profile(), kubelet_api()].map(|object| object.to_string()).join("\n---\n"))?;
    Ok(cluster)
}

/// Hosts of tests may have swap, and control groups of version 1, which kubelets from
/// 1.35 on refuse unless they are told otherwise.
fn profile() -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "NodeProfile",
        "metadata": { "name": "default" },
        "spec": { "podNetwork": "Bridge", "kubelet": { "failCgroupV1": false, "failSwapOn": false } },
    })
}

/// What the API server may ask of kubelets: `kubeadm init` makes such a binding.
fn kubelet_api() -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "kubelet-api" },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "system:kubelet-api-admin" },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": "kube-apiserver-kubelet-client" }],
    })
}
