//! What a thief of the credential would try.

use serde_json::{Value, json};

use crate::cases::Body::{Changed, Json, None};
use crate::cases::{Case, Expected, of};
use crate::permitted::approved;
use crate::refused_by;
use crate::world::{KUBELETS, REQUESTS, World, lasting_token, request, set};

/// Calls for which there is no rule, or a rule that names something else.
pub(crate) fn by_rbac(world: &World) -> Vec<Case<'_>> {
    let of = |name, method, path: &str, body| of(&world.server, Expected::Rbac, name, method, path, body);
    let any = |kind: &str| Json(json!({"kind": kind, "metadata": {"name": "stolen"}}));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let pods = "/api/v1/namespaces/berth-system/pods";
    let account = "/api/v1/namespaces/berth-system/serviceaccounts/berth-server";
    let reads = [
        ("read a Secret of kube-system", "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef"),
        ("list the Secrets of kube-system", "/api/v1/namespaces/kube-system/secrets"),
        ("list all Secrets", "/api/v1/secrets"),
        ("read a Secret of default", "/api/v1/namespaces/default/secrets/x"),
        ("list the Secrets of its own namespace", "/api/v1/namespaces/berth-system/secrets"),
        (
            "read another ConfigMap of kube-system",
            "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt",
        ),
        ("list the ConfigMaps of kube-system", "/api/v1/namespaces/kube-system/configmaps"),
        (
            "read another Lease of kube-system",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler",
        ),
        (
            "read another Lease of its own namespace",
            "/apis/coordination.k8s.io/v1/namespaces/berth-system/leases/x",
        ),
        ("read its own settings", "/api/v1/namespaces/berth-system/configmaps/berth-server"),
        ("list namespaces", "/api/v1/namespaces"),
        ("read another namespace", "/api/v1/namespaces/default"),
        ("read a Pod", "/api/v1/namespaces/berth-system/pods/x"),
        ("watch Pods", "/api/v1/pods?watch=true&timeoutSeconds=1"),
        ("reach a kubelet through the API server", "/api/v1/nodes/joined/proxy/pods"),
        ("read tokens of another namespace", "/apis/berth.dev/v1alpha1/namespaces/default/jointokens"),
        ("read roles", &format!("{rbac}/clusterroles")),
        ("read the API server's metrics", "/metrics"),
    ];
    let mut table: Vec<Case<'_>> =
        reads.into_iter().map(|(name, path)| of(name, "GET", path, None)).collect();
    table.extend([
        of("replace a Node", "PUT", "/api/v1/nodes/joined", any("Node")),
        of("delete all Nodes", "DELETE", "/api/v1/nodes", None),
        of("write a Node's status", "PATCH", "/api/v1/nodes/joined/status", Json(json!({"status": {}}))),
        of("run a Pod", "POST", pods, any("Pod")),
        of("enter a Pod", "POST", &format!("{pods}/x/exec?command=sh"), None),
        of("delete a Pod", "DELETE", &format!("{pods}/x"), None),
        of("add a container to a Pod", "PATCH", &format!("{pods}/x/ephemeralcontainers"), Json(json!({}))),
        of("run a DaemonSet", "POST", "/apis/apps/v1/namespaces/berth-system/daemonsets", any("DaemonSet")),
        of(
            "change its own Deployment",
            "PATCH",
            "/apis/apps/v1/namespaces/berth-system/deployments/berth-server",
            Json(json!({})),
        ),
        of("bind cluster-admin", "POST", &format!("{rbac}/clusterrolebindings"), any("ClusterRoleBinding")),
        of("widen its ClusterRole", "PATCH", &format!("{rbac}/clusterroles/berth-server"), Json(json!({}))),
        of(
            "widen its Role",
            "PATCH",
            &format!("{rbac}/namespaces/berth-system/roles/berth-server"),
            Json(json!({})),
        ),
        of(
            "bind a Role in kube-system",
            "POST",
            &format!("{rbac}/namespaces/kube-system/rolebindings"),
            any("RoleBinding"),
        ),
        of(
            "take away the policies over it",
            "DELETE",
            &format!("{admission}/validatingadmissionpolicies/berth-server-nodes"),
            None,
        ),
        of(
            "unbind the policies over it",
            "DELETE",
            &format!("{admission}/validatingadmissionpolicybindings/berth-server-nodes"),
            None,
        ),
        of(
            "put a webhook in the way",
            "POST",
            &format!("{admission}/mutatingwebhookconfigurations"),
            any("MutatingWebhookConfiguration"),
        ),
        of("ask for a token of its own account", "POST", &format!("{account}/token"), Json(json!({}))),
        of("try others' tokens", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", any("TokenReview")),
        of(
            "ask what others may do",
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            any("SubjectAccessReview"),
        ),
        of("change a Secret", "PUT", "/api/v1/namespaces/berth-system/secrets/x", any("Secret")),
        of("delete a Secret", "DELETE", "/api/v1/namespaces/berth-system/secrets/x", None),
        of("plant a Secret in kube-system", "POST", "/api/v1/namespaces/kube-system/secrets", any("Secret")),
        of(
            "tell events in kube-system",
            "POST",
            "/apis/events.k8s.io/v1/namespaces/kube-system/events",
            any("Event"),
        ),
        of(
            "rewrite an event",
            "PATCH",
            "/apis/events.k8s.io/v1/namespaces/default/events/x",
            Json(json!({})),
        ),
        of(
            "take a node's Lease",
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/joined",
            any("Lease"),
        ),
        of("change a profile", "PATCH", "/apis/berth.dev/v1alpha1/nodeprofiles/default", Json(json!({}))),
        of(
            "change its own kinds",
            "PATCH",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nodejoins.berth.dev",
            Json(json!({})),
        ),
        of(
            "sign a certificate itself",
            "PUT",
            &format!("{REQUESTS}/berth-undecided/status"),
            Changed(|request| {
                set(request, "/status", "certificate", "eA==".into());
            }),
        ),
        of("delete a certificate request", "DELETE", &format!("{REQUESTS}/berth-foreign"), None),
        Case {
            expected: Expected::Refused("not permitted to approve requests with signerName"),
            ..of(
                "approve its own request for kube-apiserver-client",
                "PUT",
                &format!("{REQUESTS}/berth-user/approval"),
                approved(),
            )
        },
    ]);
    table
}

/// Calls that RBAC alone would let pass.
pub(crate) fn by_policy(world: &World) -> Vec<Case<'_>> {
    let mut table = requests(world);
    table.extend(nodes(world));
    table.push(of(
        &world.server,
        refused_by("berth-server-secrets", "no Secrets of a type"),
        "turn an hour's credential into one for ever",
        "POST",
        "/api/v1/namespaces/berth-system/secrets",
        Json(lasting_token()),
    ));
    table
}

fn requests(world: &World) -> Vec<Case<'_>> {
    let submit = |name, words, change: fn(&mut Value)| {
        let mut request = request("berth-stolen", KUBELETS);
        change(&mut request);
        let policy = refused_by("berth-server-requests", words);
        of(&world.server, policy, name, "POST", REQUESTS, Json(request))
    };
    let decide = |name, words, request: &str, change| {
        let path = format!("{REQUESTS}/{request}/approval");
        let policy = refused_by("berth-server-approvals", words);
        of(&world.server, policy, name, "PUT", path, change)
    };
    vec![
        submit("ask for a serving certificate", "no other signer", |request| {
            set(request, "/spec", "signerName", "kubernetes.io/kubelet-serving".into());
        }),
        submit("ask for a user's certificate", "no other signer", |request| {
            set(request, "/spec", "signerName", "kubernetes.io/kube-apiserver-client".into());
        }),
        submit("ask under another's name", "are named berth-", |request| {
            set(request, "/metadata", "name", "csr-abcde".into());
        }),
        submit("ask for a certificate that also serves", "client auth alone", |request| {
            set(request, "/spec", "usages", json!(["digital signature", "client auth", "server auth"]));
        }),
        submit("ask for a year", "a day at most", |request| {
            set(request, "/spec", "expirationSeconds", 31_536_000.into());
        }),
        submit("ask for as long as the signer gives", "a day at most", |request| {
            request
                .pointer_mut("/spec")
                .and_then(Value::as_object_mut)
                .map(|spec| spec.remove("expirationSeconds"));
        }),
        decide("approve another's request", "submitted itself", "berth-foreign", approved()),
        decide(
            "approve a serving request that no node has made",
            "that nodes ask for",
            "berth-serving",
            approved(),
        ),
        decide(
            "deny its own request",
            "says Approved and nothing else",
            "berth-undecided",
            Changed(|request| {
                set(
                    request,
                    "/status",
                    "conditions",
                    json!([{"type": "Denied", "status": "True", "reason": "x"}]),
                );
            }),
        ),
        decide(
            "change labels under an approval",
            "nothing but the condition",
            "berth-undecided",
            Changed(|request| {
                set(request, "/metadata", "labels", json!({"stolen": "yes"}));
                set(
                    request,
                    "/status",
                    "conditions",
                    json!([{"type": "Approved", "status": "True", "reason": "x"}]),
                );
            }),
        ),
        decide(
            "hold back a request by a finalizer",
            "nothing but the condition",
            "berth-undecided",
            Changed(|request| {
                set(request, "/metadata", "finalizers", json!(["berth.dev/stolen"]));
                set(
                    request,
                    "/status",
                    "conditions",
                    json!([{"type": "Approved", "status": "True", "reason": "x"}]),
                );
            }),
        ),
    ]
}

fn nodes(world: &World) -> Vec<Case<'_>> {
    let case = |policy: &'static str, words, name, method, path: &str, body: Value| {
        of(&world.server, refused_by(policy, words), name, method, path, Json(body))
    };
    let fields = |words, name, path: &str, body| case("berth-server-nodes", words, name, "PATCH", path, body);
    let role = |name, path: &str, body| {
        case("berth-server-control-plane", "of the control plane", name, "PATCH", path, body)
    };
    let gone = |name, path: &str| {
        of(
            &world.server,
            refused_by("berth-server-nodes", "none of the control plane"),
            name,
            "DELETE",
            path,
            None,
        )
    };
    let made = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "made-up"}});
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "control", "uid": "b7e4b0ab-5d5f-4c0a-9a55-0d7b7c0f1c11"}]);
    let label = "node-role.kubernetes.io/control-plane";
    let (joined, control, stranger) =
        ("/api/v1/nodes/joined", "/api/v1/nodes/control", "/api/v1/nodes/stranger");
    vec![
        case("berth-server-nodes", "makes no Nodes", "make a Node", "POST", "/api/v1/nodes", made.clone()),
        case(
            "berth-server-nodes",
            "makes no Nodes",
            "make a Node by server-side apply",
            "APPLY",
            "/api/v1/nodes/made-up?fieldManager=berth-server&force=true",
            made,
        ),
        fields(
            "did not come through Berth",
            "label a Node that came another way",
            stranger,
            json!({"metadata": {"labels": {"zone": "b"}}}),
        ),
        fields(
            "did not come through Berth",
            "mark a Node that came another way as its own",
            stranger,
            json!({"metadata": {"annotations": {"berth.dev/join": "j-ffffffffffffffff"}}}),
        ),
        fields(
            "did not come through Berth",
            "drive the Pods off a Node that came another way",
            stranger,
            json!({"spec": {"taints": [{"key": "stolen", "effect": "NoExecute"}]}}),
        ),
        fields(
            "owners and finalizers",
            "set a Node's owner",
            joined,
            json!({"metadata": {"ownerReferences": owner}}),
        ),
        fields(
            "owners and finalizers",
            "set a Node's finalizer",
            joined,
            json!({"metadata": {"finalizers": ["berth.dev/stolen"]}}),
        ),
        fields("nothing else", "cordon a Node", joined, json!({"spec": {"unschedulable": true}})),
        fields(
            "nothing else",
            "let pods onto a Node again",
            "/api/v1/nodes/left-alone",
            json!({"spec": {"unschedulable": false}}),
        ),
        gone("delete a Node that does not leave", joined),
        gone("delete a Node that is marked and takes pods", "/api/v1/nodes/marked"),
        gone("delete a Node that came another way", stranger),
        gone("delete a Node of the control plane that is marked to leave", "/api/v1/nodes/control-leaves"),
        role(
            "make a Node of the control plane by its label",
            joined,
            json!({"metadata": {"labels": {label: ""}}}),
        ),
        role(
            "make a Node of the control plane by the old label",
            joined,
            json!({"metadata": {"labels": {"node-role.kubernetes.io/master": ""}}}),
        ),
        role(
            "taint a Node as the control plane",
            joined,
            json!({"spec": {"taints": [{"key": label, "effect": "NoSchedule"}]}}),
        ),
        role("open the control plane to all Pods", control, json!({"spec": {"taints": []}})),
        role("take a Node out of the control plane", control, json!({"metadata": {"labels": {label: null}}})),
    ]
}
