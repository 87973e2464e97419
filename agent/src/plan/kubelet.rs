//! The kubelet's configuration and flags: the profile's settings, with what
//! only the agent knows (paths, the runtime found) and what it owns (rotation).

use std::fmt::Write as _;

use berth_domain::facts::{HostFacts, RuntimeState};
use berth_domain::labels::{LabelKey, Taint};
use berth_domain::profile::Profile;
use serde_json::{Map, Value, json};

use super::{Installed, ProfileProblem, SOCKET};

/// The flags that have no place in the configuration file, for the kubelet's
/// unit (`EnvironmentFile`). kubeadm's own `kubeadm-flags.env` is left to it.
pub const FLAGS: &str = "/var/lib/kubelet/berth-flags.env";

/// The kubelet's configuration.
pub(super) const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";

/// What of the configuration is this machine's own, where kubeadm's tools look for
/// it (KEP-4656, NodeLocalCRISocket).
pub(super) const INSTANCE: &str = "/var/lib/kubelet/instance-config.yaml";

/// Files of this machine's owner that overrule the configuration (KEP-3983).
pub(super) const DROP_INS: &str = "/etc/kubernetes/kubelet.conf.d";

/// The way to the API server.
pub(super) const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// The cluster's CA certificates.
pub(super) const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// A `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1).
pub(super) fn configuration(
    profile: &Profile,
    facts: &HostFacts,
    installed: &Installed,
) -> Result<Value, ProfileProblem> {
    let mut settings: Map<String, Value> = profile.kubelet.clone().into_iter().collect();
    for (field, value) in owned() {
        lay(&mut settings, field, value)?;
    }
    settings.entry("containerRuntimeEndpoint").or_insert_with(|| runtime_endpoint(facts).into());
    if let Some(path) = &installed.resolv_conf {
        settings.entry("resolvConf").or_insert_with(|| path.display().to_string().into());
    }
    if let Some(path) = installed.distribution.volume_plugins {
        settings.entry("volumePluginDir").or_insert_with(|| path.into());
    }
    if !profile.taints.is_empty() {
        let taints: Vec<Value> = profile.taints.iter().map(taint).collect();
        lay(&mut settings, "registerWithTaints", Value::from(taints))?;
    }
    Ok(Value::Object(settings))
}

/// The part of the configuration that tells of this machine alone.
pub(super) fn instance(configuration: &Value) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": configuration["containerRuntimeEndpoint"],
    })
}

/// What no profile decides: where the agent puts the files, who may ask the
/// kubelet, and that the agent renews the certificate. `cgroupDriver` is not
/// here: kubelets ask the runtime (GA in 1.34), and only the profile knows of
/// runtimes that do not answer.
fn owned() -> [(&'static str, Value); 9] {
    [
        ("apiVersion", json!("kubelet.config.k8s.io/v1beta1")),
        ("kind", json!("KubeletConfiguration")),
        ("authentication.anonymous.enabled", json!(false)),
        ("authentication.webhook.enabled", json!(true)),
        ("authentication.x509.clientCAFile", json!(CLUSTER_CA)),
        ("authorization.mode", json!("Webhook")),
        ("rotateCertificates", json!(false)),
        ("serverTLSBootstrap", json!(true)),
        ("staticPodPath", json!("/etc/kubernetes/manifests")),
    ]
}

/// Puts a value at a dotted path. A profile that says something else there is
/// refused rather than overruled in silence.
fn lay(settings: &mut Map<String, Value>, field: &'static str, value: Value) -> Result<(), ProfileProblem> {
    let wrong = |found: &Value| ProfileProblem::Owned { field, found: found.to_string() };
    let (above, last) = field.rsplit_once('.').map_or((None, field), |(above, last)| (Some(above), last));
    let mut at = settings;
    for key in above.into_iter().flat_map(|above| above.split('.')) {
        let next = at.entry(key).or_insert_with(|| json!({}));
        at = match next {
            Value::Object(map) => map,
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(wrong(other));
            }
        };
    }
    match at.get(last) {
        Some(found) if *found != value => Err(wrong(found)),
        Some(_) => Ok(()),
        None => {
            at.insert(last.to_owned(), value);
            Ok(())
        }
    }
}

/// The runtime that answers, or whose socket is there, or the usual one.
fn runtime_endpoint(facts: &HostFacts) -> String {
    let of = |state| facts.runtimes.iter().find(|runtime| runtime.state == state);
    let found = of(RuntimeState::Answers).or_else(|| of(RuntimeState::SocketFound));
    format!("unix://{}", found.map_or(SOCKET, |runtime| runtime.socket.as_str()))
}

/// The socket that the kubelet is told of.
pub(super) fn runtime_socket(profile: &Profile, facts: &HostFacts) -> String {
    let told = profile.kubelet.get("containerRuntimeEndpoint").and_then(Value::as_str);
    let endpoint = told.map_or_else(|| runtime_endpoint(facts), str::to_owned);
    endpoint.strip_prefix("unix://").unwrap_or(&endpoint).to_owned()
}

fn taint(taint: &Taint) -> Value {
    json!({ "key": taint.key, "value": taint.value, "effect": taint.effect })
}

/// The kubelet's flags as an environment file. The name must be the one in the
/// certificate, whatever the host is called.
pub(super) fn flags(profile: &Profile, has_api: bool) -> String {
    let mut flags = format!("--config={CONFIGURATION} --config-dir={DROP_INS}");
    if has_api {
        flags.push_str(" --kubeconfig=");
        flags.push_str(KUBECONFIG);
    }
    // Writing to a String cannot fail.
    let _ = write!(flags, " --hostname-override={}", profile.node.name);
    let labels: Vec<String> = profile
        .labels
        .iter()
        .filter(|(key, _)| kubelet_may_set(key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !labels.is_empty() {
        flags.push_str(" --node-labels=");
        flags.push_str(&labels.join(","));
    }
    format!("BERTH_KUBELET_ARGS=\"{flags}\"\n")
}

/// Whether a kubelet may put this label on its own Node. NodeRestriction
/// refuses the others (k/k pkg/kubelet/apis/well_known_labels.go); the server
/// sets those.
pub(super) fn kubelet_may_set(key: &LabelKey) -> bool {
    let key = key.as_str();
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let within =
        |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes || KUBELET_DOMAINS.iter().any(|domain| within(domain)) || KUBELET_LABELS.contains(&key)
}

const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/instance-type",
];
