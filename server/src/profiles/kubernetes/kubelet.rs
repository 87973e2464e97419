//! A cluster's KubeletConfiguration, as kubeadm keeps it, made fit for a profile:
//! what the agent decides is taken out, what opens the kubelet is refused.

use berth_domain::profile::{KubeletSettings, check_kubelet};
use serde_json::{Map, Value};

use super::Problem;

/// What the file must be.
const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// Directories of kubeadm's layout. Berth's nodes have the same, so a path in them
/// says nothing new; the agent names the file.
const LAYOUT: [&str; 2] = ["/etc/kubernetes/", "/var/lib/kubelet/"];

/// A setting that the agent decides (its plan/kubelet), and what may stand there
/// without contradicting it.
enum Owned {
    /// The agent's own value.
    Is(bool),
    /// The agent's own word.
    Says(&'static str),
    /// Any switch: kubeadm leaves rotation to the kubelet, Berth does it itself.
    Switch,
    /// A path of kubeadm's layout.
    Path,
}

const OWNED: [(&str, Owned); 7] = [
    ("authentication.anonymous.enabled", Owned::Is(false)),
    ("authentication.webhook.enabled", Owned::Is(true)),
    ("authentication.x509.clientCAFile", Owned::Path),
    ("authorization.mode", Owned::Says("Webhook")),
    ("rotateCertificates", Owned::Switch),
    ("serverTLSBootstrap", Owned::Switch),
    ("staticPodPath", Owned::Path),
];

/// Reads a KubeletConfiguration in YAML.
pub(super) fn settings(text: &str, object: &str) -> Result<KubeletSettings, Problem> {
    let wrong = |field: &str, problem: String| Problem::at(object, &format!("kubelet: {field}"), problem);
    let Value::Object(mut read) = super::yaml(text).map_err(|problem| wrong("the document", problem))? else {
        return Err(wrong("the document", "it is no KubeletConfiguration".to_owned()));
    };
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let found = read.remove(field);
        if found.as_ref().and_then(Value::as_str) != Some(wanted) {
            return Err(wrong(field, format!("it is {}, not {wanted}", shown(found.as_ref()))));
        }
    }
    let dangerous: KubeletSettings = read.clone().into_iter().collect();
    check_kubelet(&dangerous).map_err(|found| wrong(found.field, found.to_string()))?;
    for (field, owned) in OWNED {
        if let Some(found) = take(&mut read, field).filter(|found| !owned.permits(found)) {
            let found = shown(Some(&found));
            return Err(wrong(field, format!("{field} is {found}; leave it out, the agent sets it")));
        }
    }
    // What kubeadm writes for "as the node says".
    if read.get("containerRuntimeEndpoint").and_then(Value::as_str) == Some("") {
        read.remove("containerRuntimeEndpoint");
    }
    Ok(read.into_iter().collect())
}

impl Owned {
    fn permits(&self, found: &Value) -> bool {
        match self {
            Self::Is(value) => found.as_bool() == Some(*value),
            Self::Says(word) => found.as_str() == Some(word),
            Self::Switch => found.is_boolean(),
            Self::Path => found.as_str().is_some_and(|path| {
                path.is_empty()
                    || (LAYOUT.iter().any(|within| path.starts_with(within)) && !path.contains(".."))
            }),
        }
    }
}

/// Takes the value at a dotted path out, and what is empty without it; a null
/// says nothing.
fn take(settings: &mut Map<String, Value>, field: &str) -> Option<Value> {
    let found = match field.split_once('.') {
        None => settings.remove(field),
        Some((first, rest)) => {
            let Some(Value::Object(below)) = settings.get_mut(first) else { return None };
            let found = take(below, rest);
            if below.is_empty() {
                settings.remove(first);
            }
            found
        }
    };
    found.filter(|found| !found.is_null())
}

/// Lays settings over others as a JSON merge patch (RFC 7396): maps are merged,
/// null takes a setting away, everything else replaces.
pub(super) fn lay(under: &mut KubeletSettings, over: &KubeletSettings) {
    for (key, value) in over {
        match value {
            Value::Null => drop(under.remove(key)),
            Value::Object(_) => merge(under.entry(key.clone()).or_insert(Value::Null), value),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge(under: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        *under = over.clone();
        return;
    };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    let Value::Object(under) = under else { return };
    for (key, value) in over {
        if value.is_null() {
            under.remove(key);
        } else {
            merge(under.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "not there".to_owned(), |value| value.to_string().chars().take(80).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// `kubectl -n kube-system get cm kubelet-config -o jsonpath={.data.kubelet}`,
    /// as kubeadm 1.36 writes it.
    pub(in crate::profiles::kubernetes) const KUBEADM: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
healthzBindAddress: 127.0.0.1
healthzPort: 10248
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
";

    fn read(change: &str) -> Result<KubeletSettings, Problem> {
        settings(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{change}"), "ConfigMap o")
    }

    fn object(value: Value) -> KubeletSettings {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn what_kubeadm_writes_loses_what_the_agent_decides_and_keeps_the_rest() {
        let read = settings(KUBEADM, "ConfigMap o").expect("as kubeadm writes it");
        let wanted = json!({
            "authentication": {"webhook": {"cacheTTL": "0s"}},
            "authorization": {"webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
            "cgroupDriver": "systemd",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}},
        });
        assert_eq!(read, object(wanted));
    }

    #[test]
    fn what_opens_the_kubelet_is_refused_with_its_place() {
        for (change, field) in [
            ("readOnlyPort: 10255", "readOnlyPort"),
            ("authentication: {anonymous: {enabled: true}}", "authentication.anonymous.enabled"),
            ("authorization: {mode: AlwaysAllow}", "authorization.mode"),
            ("enableSystemLogQuery: true", "enableSystemLogQuery"),
            ("authentication: {webhook: {enabled: false}}", "authentication.webhook.enabled"),
            ("authentication: {x509: {clientCAFile: /tmp/ca.crt}}", "authentication.x509.clientCAFile"),
            ("staticPodPath: /home/alice", "staticPodPath"),
            ("staticPodPath: /etc/kubernetes/../../tmp", "staticPodPath"),
            ("rotateCertificates: \"true\"", "rotateCertificates"),
        ] {
            let why = read(change).expect_err(change);
            assert_eq!(why.field, format!("ConfigMap o, kubelet: {field}"));
        }
    }

    #[test]
    fn paths_of_kubeadms_layout_and_rotation_are_no_contradiction() {
        for change in [
            "staticPodPath: /etc/kubernetes/static",
            "authentication: {x509: {clientCAFile: /var/lib/kubelet/pki/ca.pem}}",
            "rotateCertificates: false",
            "serverTLSBootstrap: false",
            "staticPodPath: null",
            "authentication: null",
        ] {
            let read = read(change).expect(change);
            assert!(read.values().all(Value::is_null), "{change}: {read:?}");
        }
    }

    #[test]
    fn what_is_no_kubelet_configuration_is_refused() {
        for text in [
            "",
            "[]",
            "apiVersion: v1\nkind: Pod",
            "kind: KubeletConfiguration",
            ": {",
            "a: &a [*a]",
            "a\n---\nb",
        ] {
            assert!(settings(text, "ConfigMap o").is_err(), "{text:?}");
        }
    }

    #[test]
    fn settings_are_laid_as_merge_patches() {
        let mut under = object(json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 1}));
        lay(
            &mut under,
            &object(json!({"a": {"c": null, "x": {"y": 1}}, "d": [2], "e": null, "f": {"g": null}})),
        );
        assert_eq!(under, object(json!({"a": {"b": 1, "x": {"y": 1}}, "d": [2], "f": {}})));
    }
}
