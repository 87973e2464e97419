//! What the server tells a node about its cluster: the evidence from which the
//! agent plans the node's files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::{Digest, NodeIdentity};
use crate::labels::{Labels, Taint};
use crate::pods::PodNetwork;
use crate::version::KubernetesVersion;

/// The most API endpoints of one profile.
pub const MOST_ENDPOINTS: usize = 16;

/// The longest kubelet configuration, in bytes of JSON.
pub const LONGEST_KUBELET_CONFIGURATION: usize = 32 * 1024;

/// Settings of the kubelet: a `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1)
/// without its apiVersion and kind.
pub type KubeletSettings = BTreeMap<String, serde_json::Value>;

/// The profile of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name in kubeconfigs.
    pub cluster_name: String,
    /// Who the node is.
    pub node: NodeIdentity,
    /// URLs of the API servers, `https://host:port`; at most [`MOST_ENDPOINTS`].
    pub api_endpoints: Vec<String>,
    /// The cluster's CA certificates, PEM.
    pub ca_bundle: String,
    /// The kubelet's settings; the agent adds what depends on the host.
    pub kubelet: KubeletSettings,
    /// Labels that the kubelet may set on its own Node.
    pub labels: Labels,
    /// Taints that the Node is registered with.
    pub taints: Vec<Taint>,
    /// Who makes the network of its pods.
    #[serde(default, skip_serializing_if = "PodNetwork::is_none")]
    pub network: PodNetwork,
    /// What version its API server has, where that is known: a kubelet must fit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<KubernetesVersion>,
    /// The bundle of software that the node gets: the digest of its manifest. Without
    /// one it uses what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
}

/// A setting that no profile may carry (SECURITY R18): it opens the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kubelet setting {field} must not be {found}: it opens the kubelet to strangers")]
pub struct DangerousSetting {
    /// The setting's path.
    pub field: &'static str,
    /// What it was set to.
    pub found: String,
}

impl Profile {
    /// Names this profile in the record: SHA-256 of its JSON form, whose maps
    /// are in key order.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Strings and maps with text keys: this cannot fail.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Checks the kubelet's settings against the deny list.
    ///
    /// # Errors
    /// Names the first setting that would let strangers in.
    pub fn check(&self) -> Result<(), DangerousSetting> {
        check_kubelet(&self.kubelet)
    }
}

/// Checks kubelet settings: no read-only port, no anonymous access, no
/// authorization that always allows, no reading of the host's logs through it.
///
/// # Errors
/// Names the first setting that would let strangers in.
pub fn check_kubelet(settings: &KubeletSettings) -> Result<(), DangerousSetting> {
    for (field, safe) in ONLY_SAFE {
        if let Some(found) = setting(settings, field).filter(|found| !safe.is(found)) {
            return Err(DangerousSetting { field, found: found.to_string() });
        }
    }
    Ok(())
}

fn setting<'a>(settings: &'a KubeletSettings, path: &str) -> Option<&'a serde_json::Value> {
    let mut keys = path.split('.');
    let first = settings.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}

/// The one value that a setting may have where it is given at all.
#[derive(Clone, Copy)]
enum Safe {
    Zero,
    False,
    Word(&'static str),
}

impl Safe {
    fn is(self, found: &serde_json::Value) -> bool {
        match self {
            Self::Zero => found.as_u64() == Some(0),
            Self::False => found.as_bool() == Some(false),
            Self::Word(word) => found.as_str() == Some(word),
        }
    }
}

const ONLY_SAFE: [(&str, Safe); 4] = [
    ("readOnlyPort", Safe::Zero),
    ("authentication.anonymous.enabled", Safe::False),
    ("authorization.mode", Safe::Word("Webhook")),
    ("enableSystemLogQuery", Safe::False),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> KubeletSettings {
        serde_json::from_value(json).expect("an object")
    }

    #[test]
    fn a_profile_cannot_open_the_kubelet() {
        for (json, field) in [
            (serde_json::json!({"readOnlyPort": 10255}), "readOnlyPort"),
            (
                serde_json::json!({"authentication": {"anonymous": {"enabled": true}}}),
                "authentication.anonymous.enabled",
            ),
            (serde_json::json!({"authorization": {"mode": "AlwaysAllow"}}), "authorization.mode"),
            (serde_json::json!({"enableSystemLogQuery": true}), "enableSystemLogQuery"),
        ] {
            assert_eq!(check_kubelet(&settings(json)).expect_err(field).field, field);
        }
        let good =
            serde_json::json!({"readOnlyPort": 0, "authorization": {"mode": "Webhook"}, "maxPods": 50});
        assert_eq!(check_kubelet(&settings(good)), Ok(()));
    }
}
