use std::path::Path;
use std::time::Duration;

use super::*;

const HEAD: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: ServerConfiguration\n";

fn parse(yaml: &str) -> Result<Configuration, FileError> {
    Configuration::parse(&format!("{HEAD}{yaml}"), Path::new("server.yaml"))
}

fn resolve(given: Given, yaml: &str) -> Result<Config, Vec<Invalid>> {
    let file = parse(yaml).expect("it is understood");
    Config::resolve(given, Some((PathBuf::from("server.yaml"), file)))
}

fn row(config: &Config, setting: &str) -> (String, String) {
    let row = config.rows.iter().find(|row| row.setting == setting).expect("a row");
    (row.value.clone(), row.from.clone())
}

fn pair(value: &str, from: &str) -> (String, String) {
    (value.to_owned(), from.to_owned())
}

#[test]
fn a_flag_overrules_the_file_and_the_file_the_default() {
    let given = Given {
        advertise: Some(("flag:1".to_owned(), Origin::Flag("--advertise".to_owned()))),
        queue: Some((7, Origin::Environment("BERTH_SERVER_QUEUE".to_owned()))),
        ..Given::default()
    };
    let yaml =
        "advertise: file:1\npolicy: { certificateLifetime: 1h }\nlimits: { queue: 9, joinsInFlight: 3 }\n";
    let config = resolve(given, yaml).expect("it is valid");
    assert_eq!(row(&config, "advertise"), pair("flag:1", "flag --advertise"));
    assert_eq!(row(&config, "limits.queue"), pair("7", "environment BERTH_SERVER_QUEUE"));
    assert_eq!(row(&config, "limits.joinsInFlight"), pair("3", "file server.yaml"));
    assert_eq!(row(&config, "attendance.gracePeriod"), pair("40s", "default"));
    assert_eq!((config.settings.queue, config.settings.joins_in_flight), (7, 3));
    assert_eq!(config.settings.policy.certificate_lifetime, Duration::from_secs(3_600));
}

#[test]
fn the_admin_socket_lies_in_the_data_directory_unless_it_is_named() {
    let config = resolve(Given::default(), "dataDir: /srv/berth\n").expect("it is valid");
    assert_eq!(config.settings.admin_socket, Path::new("/srv/berth/admin.sock"));
    let config =
        resolve(Given::default(), "dataDir: /srv/berth\nadminSocket: /run/b.sock\n").expect("it is valid");
    assert_eq!(config.settings.admin_socket, Path::new("/run/b.sock"));
}

#[test]
fn an_unknown_field_is_refused_with_its_path_and_line() {
    for (yaml, start, field) in [
        ("polcy: {}\n", "server.yaml:3:1: ", "polcy"),
        ("policy:\n  certificateLifetme: 1h\n", "server.yaml:4:3: policy", "certificateLifetme"),
        ("pools:\n- name: a\n- name: b\n  lables: {}\n", "server.yaml:6:3: pools[1]", "lables"),
    ] {
        let refused = parse(yaml).expect_err("a slip of the hand");
        assert!(refused.to_string().starts_with(start), "{refused}");
        let cause = std::error::Error::source(&refused).expect("what is wrong").to_string();
        assert!(cause.contains(field), "{cause}");
    }
}

#[test]
fn a_value_outside_its_grammar_is_refused_where_it_stands() {
    for (yaml, start, wanted) in [
        ("joinListen: everywhere\n", "server.yaml:3:13: joinListen", "address"),
        (
            "policy:\n  certificateLifetime: soon\n",
            "server.yaml:4:24: policy.certificateLifetime",
            "90s, 10m or 1h",
        ),
        ("pools:\n- name: Big_Pool\n", "server.yaml:4:9: pools[0].name", "'B'"),
    ] {
        let refused = parse(yaml).expect_err("it has a grammar");
        assert!(refused.to_string().starts_with(start), "{refused}");
        let cause = std::error::Error::source(&refused).expect("what is wrong").to_string();
        assert!(cause.contains(wanted), "{cause}");
    }
}

#[test]
fn each_value_that_cannot_be_names_its_field() {
    for (yaml, field) in [
        ("advertise: berth.example.com", "advertise"),
        ("kubernetes: { kubeconfig: /k }", "kubernetes.kubeconfig"),
        ("kubernetes: { bootstrapTokens: true }", "kubernetes.bootstrapTokens"),
        ("kubernetes: { inventory: /i }", "kubernetes.inventory"),
        ("backend: kubernetes\nkubernetes: { namespace: Berth }", "kubernetes.namespace"),
        ("backend: kubernetes\nkubernetes: { providerID: \"metal://one\" }", "kubernetes.providerID"),
        ("backend: kubernetes\nkubernetes: { signer: local }", "signer.certificate"),
        ("backend: kubernetes\nsigner: { key: /k }", "signer.key"),
        ("backend: kubernetes\npolicy: { certificateLifetime: 10m }", "policy.certificateLifetime"),
        ("signer: { certificate: /c }", "signer.key"),
        ("signer: { key: /k }", "signer.certificate"),
        ("serving: { certificate: /c, key: /k }", "serving.ca"),
        ("advertise: \"2001:db8::1:7443\"", "advertise"),
        ("serverNames: [\"a b\"]", "serverNames"),
        ("policy: { certificateLifetime: 48h }", "policy.certificateLifetime"),
        ("policy: { certificatesPerNameAndHour: 0 }", "policy.certificatesPerNameAndHour"),
        ("limits: { joinsInFlight: 0 }", "limits.joinsInFlight"),
        ("attendance: { heartbeatInterval: 5m, gracePeriod: 20m }", "attendance.heartbeatInterval"),
        ("attendance: { heartbeatInterval: 10s, gracePeriod: 10s }", "attendance.gracePeriod"),
        ("cluster: { apiEndpoints: [\"http://x:6443\"] }", "cluster.apiEndpoints"),
        ("cluster: { kubelet: { readOnlyPort: 10255 } }", "cluster.kubelet"),
        ("cluster: { clusterDomain: a, kubelet: { clusterDomain: b } }", "cluster.kubelet"),
        ("proxyProtocol: { mode: required }", "proxyProtocol.from"),
        ("proxyProtocol: { mode: required, from: [10.0.0.1/8] }", "proxyProtocol.from"),
        ("proxyProtocol: { from: [10.0.0.0/8] }", "proxyProtocol.from"),
        ("pools: [{ name: gpu, labels: { \"-\": x } }]", "pools[0].labels"),
        ("pools: [{ name: gpu }, { name: gpu }]", "pools[1].name"),
        ("pools: [{ name: gpu, kubelet: { readOnlyPort: 1 } }]", "pools[0].kubelet"),
        ("telemetry: { otlpEndpoint: \"collector:4317\" }", "telemetry.otlpEndpoint"),
        ("console: { listen: \"0.0.0.0:7490\" }", "console.listen"),
        ("console: { certificate: /c }", "console.key"),
        ("console: { key: /k }", "console.certificate"),
        ("console: { clientCA: /c }", "console.clientCA"),
        ("console: { names: [\"a b\"] }", "console.names"),
        ("console: { traceURL: \"http://jaeger:16686/trace\" }", "console.traceURL"),
        ("console: { traceURL: \"javascript:{trace}\" }", "console.traceURL"),
        ("console: { servers: [\"10.0.0.1\"] }", "console.servers"),
    ] {
        let refused = resolve(Given::default(), yaml).expect_err(yaml);
        let fields: Vec<&str> = refused.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(fields, [field], "{refused:?}");
    }
}

#[test]
fn a_server_in_the_cluster_needs_one_word_of_configuration() {
    let config = resolve(Given::default(), "backend: kubernetes\n").expect("it is valid");
    let crate::app::Backend::Kubernetes(kubernetes) = config.settings.backend else {
        panic!("{:?}", config.settings.backend);
    };
    assert_eq!((kubernetes.namespace.as_str(), kubernetes.signer), ("berth-system", ClusterSigner::Kube));
    let yaml = "backend: kubernetes\nkubernetes: { signer: local }\nsigner: { certificate: /c, key: /k }\npolicy: { certificateLifetime: 1m }\n";
    resolve(Given::default(), yaml).expect("a server that signs itself may sign for a minute");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let yaml = "limits: { joinsInFlight: 0 }\npolicy: { certificateLifetime: 1s }\nadvertise: x\n";
    let refused = resolve(Given::default(), yaml).expect_err("three slips");
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|wrong| wrong.from == "file server.yaml"), "{refused:?}");
}

#[test]
fn what_clusters_ask_for_reaches_the_kubelet() {
    let yaml = "cluster: { clusterDNS: [10.96.0.10], clusterDomain: cluster.local, kubelet: { maxPods: 50, tracing: { endpoint: \"c:4317\" } } }";
    let config = resolve(Given::default(), yaml).expect("it is valid");
    let kubelet = serde_json::to_value(&config.settings.kubelet).expect("plain data");
    let wanted = serde_json::json!({
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "maxPods": 50,
        "tracing": { "endpoint": "c:4317" },
    });
    assert_eq!(kubelet, wanted);
}

#[test]
fn the_printed_defaults_are_understood_as_they_stand_and_without_their_comment_signs() {
    let path = Path::new("defaults.yaml");
    Configuration::parse(PRINT_DEFAULTS, path).expect("as it stands");
    let all: String = PRINT_DEFAULTS
        .lines()
        .filter(|line| !line.starts_with("# ") || line.starts_with("#  "))
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .collect();
    let file = Configuration::parse(&all, path).expect("every field");
    let invalid = Config::resolve(Given::default(), Some((path.to_owned(), file)))
        .expect_err("backend, mode and networks");
    let fields: Vec<&str> = invalid.iter().map(|wrong| wrong.field.as_str()).collect();
    assert_eq!(
        fields,
        ["kubernetes.kubeconfig", "kubernetes.providerID", "kubernetes.inventory", "proxyProtocol.from"],
        "the examples hold but for the choice of backend and mode: {invalid:?}"
    );
    let nothing = Config::resolve(Given::default(), None).expect("the defaults are valid");
    for row in nothing.rows {
        let name = row.setting.rsplit('.').next().unwrap_or_default().to_owned();
        assert!(PRINT_DEFAULTS.contains(&format!("{name}:")), "{name} is missing");
    }
}

#[test]
fn there_is_no_console_until_it_is_asked_for() {
    let config = resolve(Given::default(), "dataDir: /d\n").expect("it is valid");
    assert_eq!(config.settings.console, None);
    let config =
        resolve(Given::default(), "dataDir: /d\nconsole: { listen: \"[::1]:7490\" }\n").expect("loopback");
    let console = config.settings.console.expect("it was asked for");
    assert_eq!((console.token_file.as_path(), console.tls), (Path::new("/d/console.tokens"), None));
    let yaml = "console: { listen: \"0.0.0.0:7490\", certificate: /c, key: /k, clientCA: /ca }\n";
    let console = resolve(Given::default(), yaml).expect("with TLS").settings.console.expect("a console");
    assert!(console.tls.is_some_and(|tls| tls.client_ca.is_some()));
}
