mod programs;

use std::collections::BTreeMap;

use berth_domain::bundle::Bundle;
use berth_domain::facts::{Arch, HostFacts, ModuleState, Runtime, RuntimeState};
use berth_domain::identity::{Digest, NodeIdentity};
use berth_domain::labels::{Labels, parse_label};
use berth_domain::phase::Phase;
use berth_domain::pods::PodNetwork;
use berth_domain::profile::Profile;
use berth_domain::timestamp::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::*;
use crate::certificate::authority_keys;
use crate::credential::Credential;
use crate::credential::testing::credential;
use crate::join::tests::authority::Authority;

fn facts() -> HostFacts {
    let runtime = |name: &str, socket: &str, state| Runtime {
        name: name.to_owned(),
        socket: socket.to_owned(),
        version: None,
        state,
        problem: None,
    };
    HostFacts {
        runtimes: vec![
            runtime("cri-o", "/run/crio/crio.sock", RuntimeState::Silent),
            runtime("containerd", "/run/containerd/containerd.sock", RuntimeState::Answers),
        ],
        modules: BTreeMap::from([("br_netfilter".to_owned(), ModuleState::Available)]),
        ..HostFacts::default()
    }
}

/// A machine with programs that nobody has set up yet.
fn installed() -> Installed {
    Installed {
        distribution: Distribution::of("debian", None, ""),
        binaries: Binaries {
            kubelet: Some("/usr/local/bin/kubelet".into()),
            containerd: Some("/usr/local/bin/containerd".into()),
            runc: Some("/usr/local/bin/runc".into()),
            cni_dir: Some("/opt/cni/bin".into()),
        },
        resolv_conf: Some("/run/systemd/resolve/resolv.conf".into()),
        live: true,
        ..Installed::default()
    }
}

/// A machine on which no runtime answers.
fn bare() -> HostFacts {
    HostFacts { runtimes: Vec::new(), ..facts() }
}

fn labels(texts: &[&str]) -> Labels {
    texts.iter().map(|text| parse_label(text).expect("a label")).collect()
}

fn profile() -> Profile {
    Profile {
        cluster_id: "c-7f3a".to_owned(),
        cluster_name: "lab".to_owned(),
        node: NodeIdentity { name: "rack1-n7".parse().expect("a name"), pool: Default::default() },
        api_endpoints: vec!["https://10.0.0.10:6443".to_owned(), "https://10.0.0.11:6443".to_owned()],
        ca_bundle: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        kubelet: serde_json::from_value(json!({
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "maxPods": 110,
            "evictionHard": { "memory.available": "100Mi" },
            "systemReserved": { "cpu": "500m", "pid": "1000" },
            "providerID": "berth://0x10",
            "featureGates": { "yes": true },
            "shutdownGracePeriod": "30s",
        }))
        .expect("an object"),
        labels: labels(&[
            "zone.example.com/rack=1",
            "tier=",
            "node.kubernetes.io/instance-type=m5",
            "kubernetes.io/os=linux",
            "node-role.kubernetes.io/worker=",
            "x.node-restriction.kubernetes.io/y=z",
            "topology.k8s.io/x=1",
        ]),
        taints: vec![
            "dedicated=gpu:NoSchedule".parse().expect("a taint"),
            "spot:NoExecute".parse().expect("a taint"),
        ],
        network: PodNetwork::None,
        kubernetes_version: None,
        bundle: None,
    }
}

fn the_credential() -> Credential {
    let at = |text: &str| text.parse::<Timestamp>().expect("a moment");
    credential("rack1-n7", at("2026-08-22T10:11:12Z"), at("2026-08-23T10:11:12Z"))
}

/// The credential's digest is another each time.
fn steady(text: &str, credential: &Credential) -> String {
    let digest = credential.digest().to_hex();
    text.replace(&digest[..8], "DIGEST00")
}

fn listed(plan: &Plan, credential: &Credential) -> String {
    let mut out = String::new();
    for step in &plan.steps {
        out += &match step {
            Step::Directory { path, mode } => format!("== {} directory {mode:04o}\n", path.display()),
            Step::File { path, mode, secret: true, .. } => {
                format!("== {} secret {mode:04o}\n", path.display())
            }
            Step::File { path, mode, content, secret: false } => {
                let text = std::str::from_utf8(content.bytes()).expect("text");
                format!("== {} file {mode:04o}\n{text}", path.display())
            }
            Step::Install { path, mode, size, digest, from } => {
                let (path, from) = (path.display(), from.display());
                format!("== {path} file {mode:04o}: {size} bytes with {digest} from {from}\n")
            }
            Step::Symlink { path, target } => format!("== {} -> {}\n", path.display(), target.display()),
            Step::Retire { directory, prefix, keep } => {
                format!("== {}/{prefix}* but {}\n", directory.display(), keep.join(" "))
            }
        };
    }
    for live in &plan.live {
        out += &match live {
            Live::Module { name } => format!("== module {name}\n"),
            Live::Setting { name, value } => format!("== {name} = {value}\n"),
            // Its digest is another each time something is worded otherwise.
            Live::Unit { name, .. } => format!("== unit {name}\n"),
        };
    }
    steady(&out, credential)
}

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../tests/golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_host_s_plan_is_as_agreed() {
    let mut facts = facts();
    facts.sysctls.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    facts.sysctls.insert("net.ipv6.conf.all.forwarding".to_owned(), "1".to_owned());
    golden("plan-host", &listed(&host(&facts), &the_credential()));
}

#[test]
fn the_node_s_plan_is_as_agreed() {
    let credential = the_credential();
    golden(
        "plan-node",
        &listed(&node(&profile(), &credential, &facts(), &installed()).expect("a plan"), &credential),
    );
}

#[test]
fn the_smallest_profile_gives_a_plan_without_an_api_server() {
    let credential = the_credential();
    let profile = Profile {
        api_endpoints: Vec::new(),
        kubelet: BTreeMap::new(),
        labels: Labels::new(),
        taints: Vec::new(),
        ..profile()
    };
    golden(
        "plan-node-smallest",
        &listed(
            &node(&profile, &credential, &HostFacts::default(), &Installed::default()).expect("a plan"),
            &credential,
        ),
    );
}

#[test]
fn a_plan_is_the_same_every_time() {
    let credential = the_credential();
    let made = || node(&profile(), &credential, &facts(), &installed()).expect("a plan");
    assert_eq!(made(), made());
}

#[test]
fn every_path_is_absolute_and_parents_come_before_children() {
    let plan =
        host(&facts()).then(node(&profile(), &the_credential(), &facts(), &installed()).expect("a plan"));
    for (number, step) in plan.steps.iter().enumerate() {
        let path = step.path();
        assert!(path.is_absolute() && !path.to_string_lossy().contains(".."), "{step:?}");
        let children = plan.steps.iter().take(number).any(|other| other.path().parent() == Some(path));
        let again = plan.steps.iter().take(number).any(|other| other.path() == path);
        assert!(!children || again, "{step:?} comes after what is in it");
    }
}

#[test]
fn a_bundle_is_what_a_kubelet_reads() {
    let credential = the_credential();
    let plan = certificate(&credential, None);
    let bundle = plan.steps.iter().find_map(|step| match step {
        Step::File { content, mode: 0o600, secret: true, .. } => Some(content.bytes().to_vec()),
        Step::Directory { .. }
        | Step::File { .. }
        | Step::Install { .. }
        | Step::Symlink { .. }
        | Step::Retire { .. } => None,
    });
    let bundle = bundle.expect("a secret file");
    let leaf = rustls_pki_types::CertificateDer::from_pem_slice(&bundle).expect("a certificate");
    assert_eq!(leaf.as_ref(), credential.chain()[0]);
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(&bundle).expect("a key");
    assert_eq!(key.secret_der(), credential.key());
}

#[test]
fn a_renewal_keeps_the_pem_before_and_no_older_one() {
    let (old, new) = (the_credential(), the_credential());
    let plan = certificate(&new, Some(&old));
    let Some(Step::Retire { keep, prefix, .. }) = plan.steps.last() else {
        panic!("no retirement: {plan:?}")
    };
    assert_eq!(prefix, "kubelet-client-");
    assert_eq!(keep.len(), 3);
    assert!(keep.iter().any(|name| name.contains(&old.digest().to_hex()[..8])));
    assert!(keep.iter().any(|name| name.contains(&new.digest().to_hex()[..8])));
}

#[test]
fn a_profile_that_cannot_be_applied_names_the_field() {
    let with = |json: serde_json::Value| {
        let mut profile = profile();
        profile.kubelet.extend(serde_json::from_value::<BTreeMap<_, _>>(json).expect("an object"));
        profile
    };
    for (profile, field) in [
        (with(json!({"readOnlyPort": 10255})), "readOnlyPort"),
        (
            with(json!({"authentication": {"anonymous": {"enabled": true}}})),
            "authentication.anonymous.enabled",
        ),
        (with(json!({"authentication": "none"})), "authentication.anonymous.enabled"),
        (with(json!({"rotateCertificates": true})), "rotateCertificates"),
        (
            with(json!({"authentication": {"x509": {"clientCAFile": "/tmp/ca"}}})),
            "authentication.x509.clientCAFile",
        ),
        (with(json!({"staticPodPath": "/tmp"})), "staticPodPath"),
        (with(json!({"kind": "Pod"})), "kind"),
        (Profile { cluster_id: "a\nb: c".to_owned(), ..profile() }, "clusterId"),
        (Profile { api_endpoints: vec!["http://x".to_owned()], ..profile() }, "apiEndpoints"),
        (Profile { ca_bundle: "none".to_owned(), ..profile() }, "caBundle"),
        (
            Profile {
                node: NodeIdentity { name: "other".parse().expect("a name"), pool: Default::default() },
                ..profile()
            },
            "node",
        ),
    ] {
        let problem = node(&profile, &the_credential(), &facts(), &installed()).expect_err(field);
        assert_eq!(problem.field(), field);
        let why = problem.into_diagnosis(Phase::Configuration);
        assert!(why.mend().ends_with(field), "{}", why.mend());
        assert!(!why.cause().contains("(unknown)"), "{}", why.cause());
    }
    let same = with(json!({"rotateCertificates": false, "authentication": {"webhook": {"cacheTTL": "2m"}}}));
    assert!(
        node(&same, &the_credential(), &facts(), &installed()).is_ok(),
        "what the agent sets anyway may be said"
    );
}

#[test]
fn a_text_that_yaml_would_take_for_something_else_stays_a_text() {
    let mut profile = profile();
    let odd = json!({"a": "yes", "b": "0x10", "c": "1e3", "d": "null", "e": "# no", "f": "a: b", "g": "12:30:45", "h": "\n- x"});
    profile.kubelet.insert("odd".to_owned(), odd.clone());
    let plan = node(&profile, &the_credential(), &facts(), &installed()).expect("a plan");
    let text = plan.steps.iter().find_map(|step| match step {
        Step::File { path, content, .. } if path.ends_with("config.yaml") => {
            Some(String::from_utf8(content.bytes().to_vec()).expect("text"))
        }
        Step::Directory { .. }
        | Step::File { .. }
        | Step::Install { .. }
        | Step::Symlink { .. }
        | Step::Retire { .. } => None,
    });
    let text = text.expect("there");
    let read: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(read["odd"], odd);
    assert!(text.contains("\"yes\"") || text.contains("'yes'"), "{text}");
}

fn seen_differently(plan: &Plan) -> Seen {
    let mut seen = Seen::default();
    let mut put = |path: &str, found: Found| seen.found.insert(path.into(), found);
    put("/etc/kubernetes", Found::Directory { mode: 0o700 });
    put("/var/lib/kubelet", Found::Directory { mode: 0o777 });
    put(
        "/etc/kubernetes/pki/ca.crt",
        Found::File { mode: 0o600, body: Body::of(profile().ca_bundle.as_bytes(), false) },
    );
    put(
        "/etc/kubernetes/kubelet.conf",
        Found::File { mode: 0o644, body: Body::of(b"apiVersion: v1\nkind: \x1b[31mConfig\n", false) },
    );
    put("/var/lib/kubelet/pki/kubelet-client-current.pem", Found::Symlink { target: "older.pem".into() });
    put("/var/lib/kubelet/berth-flags.env", Found::Other { kind: "a FIFO" });
    for step in &plan.steps {
        if let Step::File { path, secret: true, .. } = step {
            let body = Body::of(b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", true);
            seen.found.insert(path.clone(), Found::File { mode: 0o640, body });
        }
    }
    seen.retired.push("/var/lib/kubelet/pki/kubelet-client-2026-01-01.pem".into());
    seen
}

#[test]
fn a_diff_reads_as_people_expect_and_shows_no_secret() {
    let credential = the_credential();
    let plan = node(&profile(), &credential, &facts(), &installed()).expect("a plan");
    let text = diff(&plan, &seen_differently(&plan), Style::default());
    assert!(!text.contains("PRIVATE KEY") && !text.contains('\u{1b}'));
    let steady = steady(&text, &credential);
    // Certificate and key are others each time; so are their size and digest.
    let lines: Vec<String> = steady
        .lines()
        .map(|line| {
            if line.starts_with("+secret") { "+secret, SIZE and SHA-256".to_owned() } else { line.to_owned() }
        })
        .collect();
    golden("plan-diff", &lines.join("\n"));
    let coloured = diff(&plan, &seen_differently(&plan), Style { colour: true });
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), text);
    assert!(coloured.contains("\u{1b}[32m+"), "additions are green");
}

#[test]
fn a_bundle_goes_where_the_machine_looks_for_it() {
    let ca = Authority::new("cluster");
    let bundle = Bundle::verified(&ca.bundle(b"program"), &authority_keys(&ca.pem)).expect("its own");
    let mut facts = HostFacts { arch: Some(Arch::Amd64), ..HostFacts::default() };
    let digest = Digest::of(b"program");
    let from = format!("/var/lib/berth/bundle/blobs/{digest}");
    let text = listed(&software(&bundle, &facts), &the_credential());
    assert_eq!(text, format!("== /usr/local/bin/kubelet file 0755: 7 bytes with {digest} from {from}\n"));
    let told = diff(&software(&bundle, &facts), &Seen::default(), Style::default());
    assert!(told.contains(&format!("+7 bytes with SHA-256 {digest}")), "{told}");
    facts.os.id = Some("flatcar".to_owned());
    assert!(listed(&software(&bundle, &facts), &the_credential()).starts_with("== /opt/bin/kubelet"));
    facts.arch = Some(Arch::Arm64);
    assert_eq!(software(&bundle, &facts), Plan::default());
}

#[test]
fn a_plan_that_stands_has_no_changes() {
    let plan = node(&profile(), &the_credential(), &facts(), &installed()).expect("a plan");
    let mut seen = Seen::default();
    for step in &plan.steps {
        let found = match step {
            Step::Directory { mode, .. } => Found::Directory { mode: *mode },
            Step::File { mode, content, secret, .. } => {
                Found::File { mode: *mode, body: Body::of(content.bytes(), *secret) }
            }
            Step::Install { mode, size, digest, .. } => {
                Found::File { mode: *mode, body: Body::Large { size: *size, digest: *digest } }
            }
            Step::Symlink { target, .. } => Found::Symlink { target: target.clone() },
            Step::Retire { .. } => continue,
        };
        seen.found.insert(step.path().to_owned(), found);
    }
    seen.live.insert(KUBELET, "running".to_owned());
    assert_eq!(diff(&plan, &seen, Style::default()), "no changes\n");
    assert!(
        changes(&plan, &seen).iter().all(|change| change.action == Action::Keep && change.diff.is_empty())
    );
}

#[test]
fn programs_read_the_plan_as_a_list() {
    let plan = host(&facts());
    golden("plan-host-json", &serde_json::to_string_pretty(&changes(&plan, &Seen::default())).expect("JSON"));
}
