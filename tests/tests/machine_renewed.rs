//! A node's certificate is renewed under a kubelet that runs: it goes on as the same
//! process, and its next connection to the API server is made with the new one. It reads
//! the file at each new connection, and closes old ones when it sees that the file has
//! changed, which it looks for every five minutes (client-go, transport/cert_rotation.go):
//! here the network closes them, so that nobody waits. And a profile that says where the
//! kubelet's spans go has them go there.

#![expect(clippy::expect_used, reason = "a test stops where something is not as expected")]

use std::fs;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use berth_machine::{CONTROL, Machine};
use berth_telemetry::collector::Collector;
use berth_tests::{MachineWorld, eventually};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;
use tokio::runtime::Runtime;

#[test]
fn a_kubelet_takes_up_its_renewed_certificate_without_a_restart() {
    let mut observed = None;
    let world = MachineWorld::with(|cluster| {
        // Made here, within the machines' network.
        let runtime = Runtime::new().expect("a runtime");
        let collector = runtime.block_on(Collector::start_at((CONTROL, 0).into())).expect("a collector");
        let endpoint = collector.endpoint().trim_start_matches("http://").to_owned();
        observed = Some((runtime, collector));
        let pki = cluster.pki().expect("the cluster's keys");
        json!({
            // The cluster's own signer takes no lifetime so short.
            "kubernetes": { "signer": "local" },
            "signer": { "certificate": pki.ca_certificate(), "key": pki.ca_key() },
            "policy": { "certificateLifetime": "1m" },
            "cluster": {
                "kubelet": { "tracing": { "endpoint": endpoint, "samplingRatePerMillion": 1_000_000 } },
            },
        })
    });
    let Some(world) = world else { return };
    let machine = world.machine("n1");
    world.join(&machine);
    world.ready(&machine);
    let process = kubelet(&machine);
    let first = certificate(&machine);

    let mut audit = world.cluster.audit_from_now().expect("what the API server records");
    let second = eventually("the certificate is renewed", Duration::from_secs(60), || {
        Some(certificate(&machine)).filter(|now| *now != first)
    });
    let port = world.cluster.api().address().port();
    let cut = format!("OUTPUT -p tcp --dport {port} -j REJECT --reject-with tcp-reset");
    machine
        .sh(&format!("iptables -A {cut}; sleep 1; iptables -D {cut}"))
        .expect("its connections are closed");

    eventually("the kubelet speaks with the new certificate", Duration::from_secs(40), || {
        let events = audit.events().expect("events");
        let of_it = events.iter().filter(|event| event["user"]["username"] == "system:node:n1");
        let shown = |id: &str| format!("X509SHA256={id}");
        let mut used = of_it
            .map(|event| event["user"]["extra"]["authentication.kubernetes.io/credential-id"].to_string());
        used.any(|ids| ids.contains(&shown(&second))).then_some(())
    });
    assert_eq!(kubelet(&machine), process, "the kubelet was started again");
    world.kubectl_says(
        &["get", "node", "n1", "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}"],
        "True",
    );

    let (runtime, collector) = observed.expect("a collector");
    // Its calls of the container runtime are among them.
    let exported = collector.wait_for(
        |spans| {
            spans.iter().any(|span| {
                let of_the_node = span.resource.get("host.name").is_some_and(|host| host == "n1");
                of_the_node && span.service == "kubelet" && span.name.starts_with("runtime.v1.")
            })
        },
        Duration::from_secs(30),
    );
    let _spans = runtime.block_on(exported).expect("spans of the kubelet of n1");
}

/// The kubelet's process, and how often it was started again.
fn kubelet(machine: &Machine) -> String {
    machine.sh("systemctl show --property=MainPID,NRestarts kubelet").expect("systemctl")
}

/// SHA-256 of the certificate in force, as the API server names credentials (KEP-4193).
fn certificate(machine: &Machine) -> String {
    let directory = machine.on_disk("/var/lib/kubelet/pki");
    let current = fs::read_link(directory.join("kubelet-client-current.pem")).expect("a link");
    let file = directory.join(current.file_name().expect("a name"));
    let text = fs::read_to_string(file).expect("a certificate");
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").expect("a whole one");
    let body: String = body.split_whitespace().collect();
    HEXLOWER.encode(digest(&SHA256, &BASE64.decode(body.as_bytes()).expect("base64")).as_ref())
}
