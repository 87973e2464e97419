//! A cluster with Berth's manifests, its account's own token, and what the cases
//! need to find there.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_kubernetes::{Api, Cluster, Options, Program, programs_for_tests};
use data_encoding::BASE64;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

/// Berth's account, as the API server calls it.
pub(crate) const SERVER: &str = "system:serviceaccount:berth-system:berth-server";

/// Certificate requests.
pub(crate) const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The signer of kubelets' client certificates.
pub(crate) const KUBELETS: &str = "kubernetes.io/kube-apiserver-client-kubelet";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Of Berth's account.
    pub(crate) kubeconfig: PathBuf,
    /// The API server, asked as that account.
    pub(crate) server: Api,
    /// As alice, who has the role `berth-operator`.
    pub(crate) alice: Api,
    /// As rita, whom somebody gave too much: she may write NodeJoins.
    pub(crate) rita: Api,
}

/// The one that all tests share. `None` where the programs are missing.
pub(crate) fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    // Else every test would wait for what failed the first.
    static BEGUN: AtomicBool = AtomicBool::new(false);
    WORLD
        .get_or_init(|| {
            let again = BEGUN.swap(true, Ordering::Relaxed);
            assert!(!again, "there is no world for this test: an earlier one says why");
            // Never a borrowed one: the policies would bind its users, and the account's
            // way in needs its keys.
            programs_for_tests(&Program::USUAL).expect("programs")?;
            Some(World::begin(Cluster::start(&Options::default()).expect("a cluster")))
        })
        .as_ref()
}

impl World {
    fn begin(cluster: Cluster) -> Self {
        let base = manifests("base");
        let base = base.to_str().expect("a path");
        let rendered = cluster.kubectl(&["kustomize", base]).expect("the manifests render");
        let documents = || rendered.split("\n---\n");
        let is_binding = |document: &&str| document.contains("kind: ValidatingAdmissionPolicyBinding");
        let unbound: Vec<&str> = documents().filter(|document| !is_binding(document)).collect();
        cluster.apply(&unbound.join("\n---\n")).expect("the manifests are taken");

        let token = cluster.kubectl(&["--namespace=berth-system", "create", "token", "berth-server"]);
        let token = token.expect("the account has a token");
        let kubeconfig = cluster.kubeconfig_of_token("berth-server", token.trim()).expect("a kubeconfig");
        let server = cluster.api_as(&kubeconfig).expect("a way in");
        let person = |name: &str| {
            let kubeconfig = cluster.kubeconfig_for(name, &[]).expect("a kubeconfig");
            cluster.api_as(&kubeconfig).expect("a way in")
        };
        let (alice, rita) = (person("alice"), person("rita"));
        let world = Self { kubeconfig, server, alice, rita, cluster };
        world.furnish();

        let bindings: Vec<&str> = documents().filter(is_binding).collect();
        world.cluster.apply(&bindings.join("\n---\n")).expect("the bindings are taken");
        world.wait_for_the_policies();
        world
    }

    /// Makes what the cases are about, before any policy holds.
    fn furnish(&self) {
        let bind = |role: &str, user: &str| {
            let (name, role) = (format!("test-{user}-{role}"), format!("--clusterrole={role}"));
            let made =
                ["create", "clusterrolebinding", &name.replace(':', "-"), &role, &format!("--user={user}")];
            self.cluster.kubectl(&made).expect("a binding");
        };
        let writer = ["create", "clusterrole", "test-writer", "--verb=create,update,patch"];
        self.cluster.kubectl(&[&writer, &["--resource=nodejoins.berth.dev"][..]].concat()).expect("a role");
        bind("berth-operator", "alice");
        bind("system:node-bootstrapper", "alice");
        bind("test-writer", "rita");

        // Nodes, as kubelets would have made them: one that joins through Berth, one
        // that has, one of the control plane that did, and one that came another way.
        let joining = json!([{"key": "berth.dev/joining", "effect": "NoSchedule"}]);
        let annotated = json!({"berth.dev/join": "j-aaaaaaaaaaaaaaaa"});
        let leaving = json!({"berth.dev/join": "j-aaaaaaaaaaaaaaaa", "berth.dev/leaving": "true"});
        let role = json!({"node-role.kubernetes.io/control-plane": ""});
        let role_taint = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
        for (name, metadata, taints) in [
            ("joining", json!({}), joining),
            ("joined", json!({"annotations": annotated}), json!([])),
            ("control", json!({"annotations": annotated, "labels": role}), role_taint),
            ("stranger", json!({}), json!([])),
            ("leaves", json!({"annotations": annotated}), json!([])),
            ("marked", json!({"annotations": leaving}), json!([])),
            ("left-alone", json!({"annotations": leaving}), json!([])),
            ("control-leaves", json!({"annotations": leaving, "labels": role}), json!([])),
        ] {
            let mut node =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}});
            set(&mut node, "/metadata", "name", name.into());
            if ["left-alone", "control-leaves"].contains(&name) {
                set(&mut node, "/spec", "unschedulable", true.into());
            }
            self.admin("POST", "/api/v1/nodes", &node);
        }
        let there = ["wait", "--for=create", "--timeout=20s", "serviceaccount/default"];
        self.cluster.kubectl(&there).expect("the account that pods have");
        let pod = json!({
            "metadata": {"name": "leaves"},
            "spec": {"nodeName": "leaves", "containers": [{"name": "c", "image": "localhost/none"}]},
        });
        self.admin("POST", "/api/v1/namespaces/default/pods", &pod);
        // What clusters have and this one lacks: kubeadm's settings, the lease of a
        // controller manager that is one of several.
        for (namespace, name) in [
            ("kube-system", "kubeadm-config"),
            ("kube-system", "kubelet-config"),
            ("kube-public", "cluster-info"),
        ] {
            let settings = json!({"metadata": {"name": name}, "data": {"test": "yes"}});
            self.admin("POST", &format!("/api/v1/namespaces/{namespace}/configmaps"), &settings);
        }
        let lease = json!({"metadata": {"name": "kube-controller-manager"}});
        self.admin("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", &lease);
        let kept = json!({"metadata": {"name": "kept"}});
        self.admin("POST", "/api/v1/namespaces/berth-system/secrets", &kept);
        let profile = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "NodeProfile", "metadata": {"name": "default"}, "spec": {},
        });
        self.admin("POST", "/apis/berth.dev/v1alpha1/nodeprofiles", &profile);

        // Another's request, which has all the marks of Berth's.
        self.make(&self.alice, REQUESTS, &request("berth-foreign", KUBELETS));
        // Berth's own for another signer: without the policies it may have one.
        let mut serving = request("berth-serving", "kubernetes.io/kubelet-serving");
        set(&mut serving, "/spec", "usages", json!(["digital signature", "server auth"]));
        self.make(&self.server, REQUESTS, &serving);
        let mut user = request("berth-user", "kubernetes.io/kube-apiserver-client");
        set(&mut user, "/spec", "usages", json!(["client auth"]));
        self.make(&self.server, REQUESTS, &user);
        self.make(&self.server, REQUESTS, &request("berth-undecided", KUBELETS));
        let kubelet = self.cluster.node_kubeconfig("joined").expect("a kubelet's kubeconfig");
        self.cluster.ask_for_serving("joined", &kubelet).expect("a kubelet may ask");
        for join in [WAITING, ALSO_WAITING] {
            self.make(&self.server, NODE_JOINS, &node_join(join));
        }
    }

    /// They are compiled some moments after they are made: each is asked by a dry
    /// run until it answers.
    fn wait_for_the_policies(&self) {
        let dry = |path: &str| format!("{path}?dryRun=All");
        let labels = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "yes"}}});
        let finalizers = json!({"metadata": {"finalizers": ["berth.dev/probe"]}});
        let word = json!({"spec": {"approval": {"decision": "Approved", "by": "nobody"}}});
        let ban = machine_ban('f', "nobody");
        let foreign = format!("{REQUESTS}/berth-foreign");
        let (_, mut approval) = self.server("GET", &foreign, None);
        let approved = json!([{"type": "Approved", "status": "True", "reason": "Probe"}]);
        set(&mut approval, "", "status", json!({"conditions": approved}));
        for (policy, asker, method, path, body) in [
            ("berth-server-requests", &self.server, "POST", dry(REQUESTS), request("probe", KUBELETS)),
            ("berth-server-approvals", &self.server, "PUT", dry(&format!("{foreign}/approval")), approval),
            (
                "berth-server-secrets",
                &self.server,
                "POST",
                dry("/api/v1/namespaces/berth-system/secrets"),
                lasting_token(),
            ),
            ("berth-server-nodes", &self.server, "PATCH", dry("/api/v1/nodes/joined"), finalizers),
            ("berth-server-control-plane", &self.server, "PATCH", dry("/api/v1/nodes/joined"), labels),
            ("berth-people-joins", &self.alice, "PATCH", dry(&format!("{NODE_JOINS}/{WAITING}")), word),
            ("berth-people-bans", &self.alice, "POST", dry("/apis/berth.dev/v1alpha1/machinebans"), ban),
        ] {
            let answers = || asker.request(method, &path, Some(&body)).map_or(0, |(status, _)| status);
            assert_eq!(self.until_status(403, answers), 403, "{policy} does not hold");
        }
    }

    /// A call as Berth's account; the body is null where it is no JSON.
    pub(crate) fn server(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body) = self.server.request(method, path, body).expect("the API server answers");
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Looks again at an object of Berth's until it is as wanted.
    pub(crate) fn until(&self, what: &str, first: Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("{REQUESTS}/{}", text(&first, "/metadata/name"));
        let (began, mut seen) = (Instant::now(), first);
        while !wanted(&seen) {
            assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {seen}");
            std::thread::sleep(POLL);
            seen = self.server("GET", &path, None).1;
        }
        seen
    }

    /// Asks until the status is this one; the last one there was.
    #[expect(clippy::unused_self, reason = "only who has a world has somebody to ask")]
    pub(crate) fn until_status(&self, wanted: u16, ask: impl Fn() -> u16) -> u16 {
        let began = Instant::now();
        loop {
            let status = ask();
            if status == wanted || began.elapsed() > PATIENCE {
                return status;
            }
            std::thread::sleep(POLL);
        }
    }

    /// A file of the manifests.
    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn manifests(&self, path: &str) -> PathBuf {
        manifests(path)
    }

    fn admin(&self, method: &str, path: &str, body: &Value) {
        let (status, answer) = self.cluster.api().request(method, path, Some(body)).expect("it answers");
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    }

    /// Makes an object as somebody whose rights were bound a moment ago.
    fn make(&self, asker: &Api, path: &str, body: &Value) {
        let mut said = String::new();
        let status = self.until_status(201, || match asker.request("POST", path, Some(body)) {
            Ok((409, _)) => 201,
            Ok((status, _)) => status,
            Err(_) => 0,
        });
        if status != 201 {
            said = asker
                .request("POST", path, Some(body))
                .map_or_else(|error| format!("{error:#}"), |(_, said)| said);
        }
        assert_eq!(status, 201, "making {}: {said}", text(body, "/metadata/name"));
    }
}

/// A file of `deploy/kubernetes`.
pub(crate) fn manifests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes").join(path)
}

/// A certificate request as Berth makes it, for a node of the same name.
pub(crate) fn request(name: &str, signer: &str) -> Value {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    parameters.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let pem = parameters.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": BASE64.encode(pem.as_bytes()),
            "signerName": signer,
            "usages": ["digital signature", "client auth"],
            "expirationSeconds": 21_600,
        },
    })
}

/// A join that waits and has no name yet.
pub(crate) fn node_join(id: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "NodeJoin",
        "metadata": {"name": id},
        "spec": {"joinID": id, "started": "2026-01-01T00:00:00Z"},
    })
}

/// A ban of the machine whose id is this digit 64 times.
pub(crate) fn machine_ban(digit: char, by: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "MachineBan",
        "metadata": {"name": digit.to_string().repeat(64)},
        "spec": {"node": "joined", "by": by},
    })
}

/// A Secret that Kubernetes turns into a token without an end.
pub(crate) fn lasting_token() -> Value {
    json!({
        "metadata": {"name": "for-ever", "annotations": {"kubernetes.io/service-account.name": "berth-server"}},
        "type": "kubernetes.io/service-account-token",
    })
}

/// Sets one field of an object within.
pub(crate) fn set(object: &mut Value, within: &str, field: &str, value: Value) {
    let within = object.pointer_mut(within).and_then(Value::as_object_mut).expect("an object");
    within.insert(field.to_owned(), value);
}

/// A string within, or nothing.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(crate) const NODE_JOINS: &str = "/apis/berth.dev/v1alpha1/nodejoins";
pub(crate) const WAITING: &str = "j-bbbbbbbbbbbbbbbb";
pub(crate) const ALSO_WAITING: &str = "j-cccccccccccccccc";

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
