use berth_domain::identity::{MachineId, SpkiHash};
use berth_domain::name::PoolName;
use berth_domain::node::{CertificateTerms, Readiness};
use berth_domain::timestamp::Timestamp;

use super::*;

fn seen(taints: Value, ready: &str, annotations: Value) -> SeenNode {
    let node = json!({
        "metadata": { "name": "n1", "uid": "u", "resourceVersion": "7", "annotations": annotations },
        "spec": { "taints": taints },
        "status": { "conditions": [
            { "type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": "no network" },
        ] },
    });
    SeenNode::of(serde_json::from_value(node).expect("a Node"))
}

pub(in crate::registry::kube) fn record(taints: &[&str]) -> NodeRecord {
    let key = SpkiHash::of(b"key");
    NodeRecord {
        identity: berth_domain::identity::NodeIdentity {
            name: "n1".parse().expect("a name"),
            pool: PoolName::default(),
        },
        machine: MachineId::of(b"machine"),
        join: JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), key),
        key,
        next_key: None,
        labels: [("node-role.kubernetes.io/worker".parse().expect("a key"), "".parse().expect("a value"))]
            .into(),
        taints: taints.iter().map(|taint| taint.parse().expect("a taint")).collect(),
        certificate: CertificateTerms {
            serial: Some("01".to_owned()),
            not_before: Timestamp::from_millis(0),
            not_after: Timestamp::LAST,
        },
        issued: Vec::new(),
        readiness: Readiness::Bound,
        last_seen: Timestamp::from_millis(0),
    }
}

#[test]
fn what_others_put_on_a_node_stays_and_the_joining_taint_goes() {
    let others = json!({ "key": "theirs", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" });
    let node = seen(json!([{ "key": JOINING_TAINT, "effect": "NoSchedule" }, others]), "True", json!({}));
    let applied = node.applied(&record(&["gpu=a:NoSchedule", "theirs:NoExecute"]), Some("t"), None);
    let taints = json!([others, { "key": "gpu", "value": "a", "effect": "NoSchedule" }]);
    assert_eq!(applied["spec"], json!({ "taints": taints }));
    assert_eq!(applied["metadata"]["resourceVersion"], "7");
    assert_eq!(applied["metadata"]["uid"], "u");
    assert_eq!(applied["metadata"]["labels"], json!({ "node-role.kubernetes.io/worker": "" }));
    assert_eq!(applied["metadata"]["annotations"][TRACE_ANNOTATION], "t");
}

#[test]
fn a_provider_id_that_is_set_stays() {
    let mut node = seen(json!([]), "True", json!({}));
    assert_eq!(node.applied(&record(&[]), None, Some("berth://n1"))["spec"]["providerID"], "berth://n1");
    node.provider_id = Some("other://n1".to_owned());
    assert_eq!(node.applied(&record(&[]), None, Some("berth://n1"))["spec"]["providerID"], "other://n1");
}

#[test]
fn a_node_is_due_once_in_a_join() {
    let join = record(&[]).join;
    assert!(seen(json!([]), "True", json!({})).is_due(join));
    let done = json!({ JOIN_ANNOTATION: join.to_string() });
    assert!(!seen(json!([]), "True", done.clone()).is_due(join));
    assert!(seen(json!([{ "key": JOINING_TAINT, "effect": "NoSchedule" }]), "True", done).is_due(join));
}

#[test]
fn what_is_in_the_way_is_said_in_the_nodes_own_words() {
    let code = |node: &SeenNode| node.in_the_way().map(|why| why.code());
    let not_ready = seen(json!([]), "False", json!({}));
    assert_eq!(
        not_ready.in_the_way().and_then(|why| why.value("condition").map(str::to_owned)).as_deref(),
        Some("KubeletNotReady: no network")
    );
    assert_eq!(code(&seen(json!([]), "Unknown", json!({}))), Some(Code::NodeNotReady));
    let cloud = json!([{ "key": CLOUD_TAINT, "value": "true", "effect": "NoSchedule" }]);
    assert_eq!(code(&seen(cloud, "True", json!({}))), Some(Code::CloudProviderPending));
    let stale = json!([{ "key": NOT_READY_TAINT, "effect": "NoSchedule" }]);
    assert_eq!(code(&seen(stale, "True", json!({}))), Some(Code::NodeNotReady));
    assert_eq!(code(&seen(json!([]), "True", json!({}))), None);
}

#[test]
fn a_node_under_pressure_is_ready_and_takes_no_pods() {
    let mut node = seen(json!([]), "True", json!({}));
    node.conditions.push(Condition {
        kind: "DiskPressure".to_owned(),
        holds: true,
        words: "KubeletHasDiskPressure: kubelet has disk pressure".to_owned(),
    });
    let why = node.in_the_way().expect("it takes no pods");
    assert_eq!((why.code(), why.value("resource")), (Code::NodeUnderPressure, Some("disk space")));
    node.conditions.pop();
    assert_eq!(node.in_the_way(), None);
}
