//! The files of a joined node, in kubeadm's layout, because tools look there.

use berth_domain::diagnosis::{Code, Diagnosis};
use berth_domain::facts::HostFacts;
use berth_domain::phase::Phase;
use berth_domain::profile::{DangerousSetting, Profile};
use serde_json::{Value, json};

use super::certificate::{CURRENT, swap};
use super::kubelet::{
    CLUSTER_CA, CONFIGURATION, DROP_INS, FLAGS, INSTANCE, KUBECONFIG, configuration, flags, instance,
};
use super::units::{self, KUBELET};
use super::{Installed, Plan, directory, file, provenance};
use crate::credential::Credential;

/// Why a profile gives no plan.
#[derive(Debug, thiserror::Error)]
pub enum ProfileProblem {
    /// It would let strangers in (SECURITY R18).
    #[error("it opens the kubelet to strangers")]
    Dangerous(#[from] DangerousSetting),
    /// It sets what the agent itself decides.
    #[error("{field} is {found}; leave it out, the agent sets it")]
    Owned {
        /// The setting's path.
        field: &'static str,
        /// What it was set to.
        found: String,
    },
    /// The certificate is another node's.
    #[error("it is for the node {found}, and the certificate is for {wanted}")]
    OtherNode {
        /// The profile's node.
        found: String,
        /// The certificate's node.
        wanted: String,
    },
    /// An API server's address is not one.
    #[error("{found:?} is no https:// URL of an API server")]
    Endpoint {
        /// As it was given.
        found: String,
    },
    /// A word that goes into files on one line.
    #[error("{field} is not one printable word")]
    Word {
        /// The field.
        field: &'static str,
    },
    /// There is no certificate in the bundle.
    #[error("caBundle has no PEM certificate")]
    NoCa,
    /// The settings cannot be written.
    #[error("the kubelet's settings cannot be written as YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
}

impl ProfileProblem {
    /// The field of the profile that is to be corrected.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Dangerous(setting) => setting.field,
            Self::Owned { field, .. } | Self::Word { field } => field,
            Self::OtherNode { .. } => "node",
            Self::Endpoint { .. } => "apiEndpoints",
            Self::NoCa => "caBundle",
            Self::Yaml(_) => "kubelet",
        }
    }

    /// The same as a diagnosis.
    #[must_use]
    pub fn into_diagnosis(self, phase: Phase) -> Diagnosis {
        let problem = match &self {
            Self::Dangerous(setting) => setting.to_string(),
            Self::Yaml(cause) => format!("{self}: {cause}"),
            Self::Owned { .. }
            | Self::OtherNode { .. }
            | Self::Endpoint { .. }
            | Self::Word { .. }
            | Self::NoCa => self.to_string(),
        };
        Diagnosis::new(Code::ProfileInvalid, phase).with("field", self.field()).with("problem", problem)
    }
}

/// Plans the node's files, and that its kubelet runs where there is one. A cluster
/// without an API server (the embedded backend alone) gives no kubeconfig: there is
/// nothing that it could name, and no kubelet to run.
///
/// # Errors
/// Names the field of the profile that stands in the way.
pub fn node(
    profile: &Profile,
    credential: &Credential,
    facts: &HostFacts,
    installed: &Installed,
) -> Result<Plan, ProfileProblem> {
    check(profile, credential)?;
    let header = provenance(Some(&profile.cluster_id));
    let with_header = |text: String| format!("{header}{text}");
    let configuration = configuration(profile, facts, installed)?;
    let mut steps = vec![
        directory("/etc/kubernetes", 0o755),
        directory(DROP_INS, 0o755),
        directory("/etc/kubernetes/manifests", 0o755),
        directory("/etc/kubernetes/pki", 0o755),
        file(CLUSTER_CA, profile.ca_bundle.clone()),
        directory("/var/lib/kubelet", 0o750),
        file(CONFIGURATION, with_header(yaml(&configuration)?)),
        file(INSTANCE, with_header(yaml(&instance(&configuration))?)),
        file(FLAGS, with_header(flags(profile, !profile.api_endpoints.is_empty()))),
    ];
    steps.extend(swap(credential));
    if let Some(server) = profile.api_endpoints.first() {
        // Last: a kubelet that finds it finds all that it names.
        steps.push(file(KUBECONFIG, with_header(yaml(&kubeconfig(server))?)));
    }
    let mut plan = Plan { steps, live: Vec::new() };
    if let (Some(program), false) = (&installed.binaries.kubelet, profile.api_endpoints.is_empty()) {
        plan.steps.extend(units::kubelet(&installed.kubelet, program));
        plan.live.push(units::running(KUBELET, &plan));
    }
    Ok(plan)
}

/// File paths in place of data: client-go reads the files again, data never
/// (client-go transport/cert_rotation.go).
fn kubeconfig(server: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default-cluster",
            "cluster": { "certificate-authority": CLUSTER_CA, "server": server },
        }],
        "contexts": [{
            "name": "default-context",
            "context": { "cluster": "default-cluster", "namespace": "default", "user": "default-auth" },
        }],
        "current-context": "default-context",
        "users": [{
            "name": "default-auth",
            "user": { "client-certificate": CURRENT, "client-key": CURRENT },
        }],
    })
}

fn check(profile: &Profile, credential: &Credential) -> Result<(), ProfileProblem> {
    profile.check()?;
    if profile.node.name != credential.node().name {
        return Err(ProfileProblem::OtherNode {
            found: profile.node.name.to_string(),
            wanted: credential.node().name.to_string(),
        });
    }
    // It goes into a comment: a line break would end the comment.
    if profile.cluster_id.is_empty() || !profile.cluster_id.chars().all(|c| c.is_ascii_graphic()) {
        return Err(ProfileProblem::Word { field: "clusterId" });
    }
    let is_url = |text: &String| {
        let host = text.strip_prefix("https://").unwrap_or_default();
        !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic())
    };
    if let Some(found) = profile.api_endpoints.iter().find(|endpoint| !is_url(endpoint)) {
        return Err(ProfileProblem::Endpoint { found: found.clone() });
    }
    if !profile.ca_bundle.contains("-----BEGIN CERTIFICATE-----") {
        return Err(ProfileProblem::NoCa);
    }
    Ok(())
}

/// Block style throughout, every text that YAML 1.1 (Go's readers) would take
/// for something else in quotes, keys in order: the same bytes every time.
fn yaml(value: &Value) -> Result<String, ProfileProblem> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(value, options).map_err(ProfileProblem::Yaml)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
