//! The certificate that a kubelet wants to serve with (`serverTLSBootstrap`): a
//! hollow node serves with one of its own making, so that others ask in its name.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use data_encoding::BASE64;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use crate::cluster::Cluster;

impl Cluster {
    /// Asks, as the node of a kubeconfig, for a certificate to serve with; the
    /// name of the CertificateSigningRequest that now waits for approval.
    ///
    /// # Errors
    /// It is not taken.
    pub fn ask_for_serving(&self, node: &str, kubeconfig: &Path) -> Result<String> {
        let name = format!("csr-{node}");
        self.ask_to_serve_as(node, kubeconfig, &name, &[node])?;
        Ok(name)
    }

    /// The same under these names and addresses, by a request of this name.
    ///
    /// # Errors
    /// It is not taken.
    pub fn ask_to_serve_as(&self, node: &str, kubeconfig: &Path, name: &str, claimed: &[&str]) -> Result<()> {
        let claimed: Vec<String> = claimed.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(claimed).context("naming a node")?;
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        let key = KeyPair::generate().context("making a kubelet's key")?;
        let request = params.serialize_request(&key).context("making a kubelet's request")?;
        let request = request.pem().context("writing a kubelet's request")?;
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "signerName": "kubernetes.io/kubelet-serving",
                "request": BASE64.encode(request.as_bytes()),
                "usages": ["digital signature", "server auth"],
            },
        });
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let (status, answer) = self.api_as(kubeconfig)?.request("POST", path, Some(&object))?;
        if status != 201 {
            bail!("the request {name} was not taken ({status}): {answer}");
        }
        Ok(())
    }
}
